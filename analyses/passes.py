"""Passes of a model over examples, a chunk at a time, with one score an example."""

from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from analyses.scores.base import Pass, Score
from interp.captured import Capture
from interp.capturing import capture
from interp.models.base import Model
from interp.types import Geometry, Inputs, Site


class Passes:
    """Passes through the model, a chunk of examples each; a single one is kept, several are run again when asked."""

    def __init__(self, model: Model, inputs: Inputs, sites: Sequence[Site], score: Any, batch_size: int) -> None:
        self.model, self.inputs, self.sites, self.score = model, inputs, sites, score
        self.starts = range(0, len(inputs), batch_size)
        self.geometries: dict[str, Geometry] = {}
        self.scores: list[Tensor] = []
        self._kept: Capture | None = None

    def __iter__(self) -> Iterator[tuple[int, Capture]]:
        """The number of the first example of each chunk, and what its pass gave."""
        if self._kept is not None:
            yield 0, self._kept
            return
        self.scores = []
        for start in self.starts:
            found = self._run(start)
            if len(self.starts) == 1:
                self._kept = found
            yield start, found

    def _run(self, start: int) -> Capture:
        stop = start + self.starts.step
        mask = None if self.inputs.mask is None else self.inputs.mask[start:stop]
        chunk = Inputs({name: value[start:stop] for name, value in self.inputs.tensors.items()}, mask)
        if self.score is None:
            found = capture(self.model, chunk, self.sites)
        else:
            reads = self.score.sites if isinstance(self.score, Score) else ()
            found = capture(self.model, chunk, self.sites, score=_Scored(self, chunk), reads=reads)
        for site in self.sites:
            self.geometries[str(site)] = found.geometries[site]
        return found

    def scored(self, chunk: Inputs, output: Any, values: dict[Site, Tensor]) -> Float[Tensor, " b"]:
        """The scores of a chunk, one an example."""
        if isinstance(self.score, Score):
            geometries = {site: self.model.geometry(site, chunk) for site in values}
            found = self.score(Pass(self.model, chunk, output, values, geometries))
        else:
            found = self.score(output)
        if not isinstance(found, Tensor) or found.shape != (len(chunk),):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"score gave {shape} for {len(chunk)} examples, but maps need one number an example: return a tensor "
                f"of shape [{len(chunk)}]."
            )
        self.scores.append(found.detach())
        return found


class _Scored:
    """What `capture` calls for the score of one chunk."""

    def __init__(self, passes: Passes, chunk: Inputs) -> None:
        self.passes, self.chunk = passes, chunk

    def __call__(self, output: Any, values: dict[Site, Tensor] | None = None) -> Tensor:
        return self.passes.scored(self.chunk, output, values or {})
