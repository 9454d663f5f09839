"""Whether maps deserve trust: sanity checks, faithfulness and, where it is known, the truth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from analyses.attributing import attribute
from analyses.discovering import classes, described, made
from analyses.faithfulness.base import Attributor, Case, Judge
from analyses.maps import Key
from analyses.methods import Method, chosen
from analyses.passes import Examples, Scorer
from analyses.scores.base import Pass, Score
from analyses.scores.class_logit import ClassLogit
from interp.capturing import left_as_found
from interp.models.base import Model
from interp.progress import Progress
from interp.types import Inputs, Site
from saes.metrics.bootstrap import Interval, bootstrap


@dataclass(frozen=True)
class Judgement:
    """What judges say of the maps of each site and method.

    Args:
        values: By site and method, one number an example from each judge.
        judges: The judges, by name.
    """

    values: Mapping[Key, Mapping[str, Float[Tensor, " b"]]]
    judges: Mapping[str, Judge]

    def interval(self, site: str, method: str, judge: str) -> Interval:
        """The mean over examples, with a 95 % interval."""
        return mean(self.values[site, method][judge])

    def difference(self, judge: str, first: Key, second: Key) -> Interval:
        """The mean over examples of one less another, with a 95 % interval: they were judged on the same examples."""
        return mean(self.values[first][judge] - self.values[second][judge])

    def failed(self, site: str, method: str) -> list[str]:
        """Judges with a limit on whose wrong side the whole interval lies."""
        return [name for name, judge in self.judges.items() if self._fails(judge, self.interval(site, method, name))]

    def _fails(self, judge: Judge, found: Interval) -> bool:
        if judge.limit is None:
            return False
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        return low > judge.limit if judge.better == "lower" else high < judge.limit

    def best(self, judge: str) -> Key:
        """The site and method whose mean is the best."""
        sign = 1 if self.judges[judge].better == "higher" else -1
        return max(self.values, key=lambda key: sign * float(self.values[key][judge].double().mean()))

    def _repr_markdown_(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """A table in Markdown: means with their intervals, an arrow to what is better, and which checks fail."""
        arrows = {"higher": "↑", "lower": "↓"}
        names = [f"{name} {arrows[judge.better]}" for name, judge in self.judges.items()]
        lines = [["site", "method", *names, "fails"]]
        for site, method in self.values:
            cells = [_cell(self.interval(site, method, name)) for name in self.judges]
            lines.append([site, method, *cells, ", ".join(self.failed(site, method)) or "-"])
        lines.insert(1, ["---"] * len(lines[0]))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def known_judges() -> dict[str, type[Judge]]:
    """Name and class of every judge."""
    return classes(("analyses.faithfulness",), (Judge,))


def judge(
    attributor: str | Method | Attributor | Sequence[str | Method] | Mapping[str, Attributor],
    model: Model,
    inputs: Inputs,
    site: str | Site | Sequence[str | Site],
    *,
    score: Score | Callable[[Any], Tensor] | None = None,
    truth: Shaped[Tensor, " b *whole"] | None = None,
    other: Score | Callable[[Any], Tensor] | None = None,
    judges: Sequence[str | Judge] | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> Judgement:
    """Judge ways of making maps on some examples; `print` the result for a table.

    A class that is each example's own choice is held fixed while inputs and weights change. The model is left as it was
    found.

    Args:
        attributor: Methods by name, or made with arguments; or any function, or several by name, from (model, inputs,
            score) to maps `[b, *grid]` of the site's positions or of the input's.
        model: The model.
        inputs: The examples.
        site: Where maps are made; several are judged one after the other.
        score: What is explained, as in `analyses.attributing.attribute`.
        truth: Where the object is, one mask an example in positions of the input; then the pointing games and the
            overlap are judged too.
        other: Another score, whose maps should differ; for a `ClassLogit`, each example's least likely class.
        judges: Which, by name or made with arguments; by default the sanity checks that apply, insertion and deletion,
            and those that need the truth where it is given.
        batch_size: Examples that run at once.
        progress: Whether to show a bar.

    Raises:
        ValueError: If a name is unknown, a judge lacks what it needs, or maps cannot be made.
    """
    asked = score or ClassLogit()
    kept, contrast = _held(Scorer(model, asked), Examples.all(inputs), batch_size)
    other = contrast if other is None else other
    called = _called(judges, truth=truth is not None, other=other is not None)
    sites = [model.site(one) for one in ([site] if isinstance(site, str | Site) else site)]
    found: dict[Key, dict[str, Tensor]] = {}
    made_by = [(where, name, maker) for where in sites for name, maker in _attributors(attributor, where, batch_size)]
    with Progress("judging", total=len(made_by) * len(called), unit="judge", shown=progress) as bar:
        for where, name, maker in made_by:
            case = Case(maker, model, inputs, kept, where, truth, other, batch_size)
            numbers = found[str(where), name] = {}
            for title, one in called.items():
                numbers[title] = one(case)
                bar.update(1)
    return Judgement(found, called)


def mean(values: Float[Tensor, " b"]) -> Interval:
    """The mean over examples, with a 95 % interval.

    Args:
        values: One number an example.
    """
    counted = torch.stack([values.double(), torch.ones_like(values, dtype=torch.float64)], dim=1)
    return bootstrap(counted, lambda totals: totals[..., 0] / totals[..., 1])


def _held(scorer: Scorer, examples: Examples, batch_size: int) -> tuple[Any, Any]:
    """The score with its choices fixed, and what the examples show least."""
    score = scorer.score
    if not isinstance(score, Score) or score.sites:
        return score, None
    return score.held(_runs(scorer, examples, batch_size)), score.contrast(_runs(scorer, examples, batch_size))


def _runs(scorer: Scorer, examples: Examples, batch_size: int) -> Iterator[Pass]:
    """The forward passes of all examples, one at a time; none where nobody asks."""
    with left_as_found(scorer.model, frozen=False), torch.no_grad():
        for chunk in examples.chunks(batch_size):
            yield scorer.forward(chunk)


def _called(asked: Sequence[str | Judge] | None, *, truth: bool, other: bool) -> dict[str, Judge]:
    known = known_judges()
    if asked is None:
        has = {"truth": truth, "other": other}
        kinds = [kind for kind in known.values() if kind.sanity or kind.needs == "truth"]
        asked = [kind() for kind in kinds if kind.needs is None or has[kind.needs]]
    found = {described(one, (Judge,)): one for one in (made(one, known, "judges") for one in asked)}
    if len(found) < max(len(asked), 1):
        raise ValueError(f"judges is {list(asked)}, but at least one is needed, and each once: give other arguments.")
    return found


def _attributors(asked: Any, site: Site, batch_size: int) -> list[tuple[str, Attributor]]:
    if isinstance(asked, Mapping):
        return list(asked.items())
    if callable(asked) and not isinstance(asked, Method):
        return [(getattr(asked, "__name__", type(asked).__name__), asked)]
    methods = chosen([asked] if isinstance(asked, str | Method) else asked)
    return [(name, _ByMethod(method, site, batch_size)) for name, method in methods.items()]


@dataclass(frozen=True)
class _ByMethod:
    """Maps by one of our own methods."""

    method: Method
    site: Site
    batch_size: int

    def __call__(self, model: Model, inputs: Inputs, score: Any) -> Float[Tensor, " b *grid"]:
        found = attribute(model, inputs, self.site, score=score, methods=[self.method], batch_size=self.batch_size)
        return next(iter(found.values.values()))


def _cell(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.3g}"
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"
