"""The build of a dictionary: one pass, a second look around the examples, one rename; resumable."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from analyses.dictionary.accumulating import Accumulators
from analyses.dictionary.encoding import Codes, encode, evaluating
from analyses.dictionary.gathering import Partners, Windows
from analyses.dictionary.recipes import Recipe
from analyses.dictionary.selecting import Examples, choose_examples
from analyses.dictionary.shown import Shown
from analyses.dictionary.writing import Found, write_bundle
from interp.durability import TEMPORARY, write_bytes
from interp.progress import Progress
from interp.types import JSON, ActivationStore, Directions


class Build:
    """One build; `run` goes on from the checkpoint beside `path`, if there is one.

    Args:
        directions: The features.
        source: The store.
        path: The bundle.
        recipe: What to keep.
        identity: What makes two builds the same.
        batch_rows: Rows a batch, a multiple of the encoded chunk.
        max_memory: Bytes for codes kept from the pass for the second look; what does not fit is encoded again.
        checkpoint_rows: Rows between checkpoints.
        pieces: Pieces of each example where they are not the items' own.
        decoder: Whether the decoder goes into the bundle.
        progress: Whether to show a bar.
    """

    def __init__(
        self,
        directions: Directions,
        source: ActivationStore,
        path: Path,
        recipe: Recipe,
        identity: JSON,
        *,
        batch_rows: int,
        max_memory: int,
        checkpoint_rows: int,
        pieces: Sequence[Sequence[str]] | None,
        decoder: bool,
        progress: bool,
    ) -> None:
        self.directions, self.source, self.path, self.recipe, self.identity = directions, source, path, recipe, identity
        self.batch_rows, self.max_memory, self.checkpoint_rows = batch_rows, max_memory, checkpoint_rows
        self.pieces, self.decoder, self.progress = pieces, decoder, progress
        self.checkpoint = checkpoint_of(path)
        self._codes: dict[int, Codes] = {}
        self._codes_bytes = 0

    def run(self) -> None:
        """Build the bundle."""
        with evaluating(self.directions):
            accumulators = self._pass()
            examples = choose_examples(accumulators, self.recipe)
            shown = Shown(self.source, np.unique(examples.example), self.pieces)
            windows = self._windows(examples, shown, accumulators)
            partners = Partners(accumulators.sampled, self.recipe.firings)
            self._second_look(windows, partners)
            found = Found(
                self.directions,
                self.source,
                self.identity,
                accumulators,
                examples,
                windows,
                partners,
                shown,
                self.decoder,
            )
            write_bundle(found, self.path)
        discard_checkpoint(self.path)

    def _pass(self) -> Accumulators:
        d = self.directions
        accumulators = Accumulators(d.d_sae, d.signed, len(self.source.items), self.recipe)
        if self.checkpoint.exists():
            accumulators.load(read_checkpoint(self.checkpoint)[1])
        saved = accumulators.rows
        with Progress("reading", total=len(self.source), unit="row", shown=self.progress) as bar:
            bar.update(saved)
            for start, codes in self._encoded(saved):
                accumulators.add(codes)
                self._keep(start, codes)
                bar.update(len(codes))
                if accumulators.rows - saved >= self.checkpoint_rows and accumulators.rows < len(self.source):
                    saved = accumulators.rows
                    write_checkpoint(self.checkpoint, self.identity, accumulators.state())
        return accumulators

    def _encoded(self, row: int) -> Iterator[tuple[int, Codes]]:
        """First row and codes of each batch from `row` on, which is a whole number of encoded chunks."""
        step, skip = divmod(row, self.batch_rows)
        for batch in self.source.batches(self.batch_rows, seed=None, start_step=step):
            yield step * self.batch_rows + skip, encode(self.directions, batch[skip:] if skip else batch)
            step, skip = step + 1, 0

    def _keep(self, start: int, codes: Codes) -> None:
        whole = start % self.batch_rows == 0
        if whole and self._codes_bytes + codes.nbytes <= self.max_memory:
            self._codes[start] = codes.bare()
            self._codes_bytes += codes.nbytes

    def _windows(self, examples: Examples, shown: Shown, accumulators: Accumulators) -> Windows:
        start, stop = self._spans(examples, shown, accumulators)
        signed = accumulators.signed
        largest = np.maximum(np.abs(accumulators.high), np.abs(accumulators.low))
        scale = np.where(accumulators.count > 0, largest, 1) / (127 if signed else 255)
        return Windows(examples, start, stop, scale.astype(np.float32), 128 if signed else 0)

    def _spans(
        self, examples: Examples, shown: Shown, accumulators: Accumulators
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First position of each example's window and the position after its last; a grid is shown whole."""
        positions = self.source.geometry.positions
        if positions is not None:
            return np.zeros(len(examples), np.int64), np.full(len(examples), positions, np.int64)
        pieces, lengths = shown.pieces.lengths, accumulators.lengths.copy()
        torn = np.flatnonzero((pieces > 0) & (pieces < lengths[shown.items]))
        if len(torn):
            item = shown.items[torn[0]]
            raise ValueError(
                f"example {item} has {pieces[torn[0]]} pieces, but rows up to position {lengths[item] - 1}: "
                "give a piece for each position, special tokens counted."
            )
        lengths[shown.items] = np.maximum(pieces, lengths[shown.items])
        before, after = self.recipe.window
        start = np.maximum(examples.position - before, 0)
        return start, np.minimum(examples.position + after + 1, lengths[examples.example])

    def _second_look(self, windows: Windows, partners: Partners) -> None:
        with Progress("gathering", total=len(self.source), unit="row", shown=self.progress) as bar:
            for start in range(0, len(self.source), self.batch_rows):
                codes = self._codes.pop(start, None)
                if codes is None:
                    codes = next(self._encoded(start))[1]
                windows.add(codes)
                partners.add(codes)
                bar.update(len(codes))


def checkpoint_of(path: Path) -> Path:
    """Where an unfinished build keeps its state."""
    return path.with_name(path.name + ".building")


def write_checkpoint(path: Path, identity: JSON, state: dict[str, NDArray]) -> None:
    """Save the state of the pass, whole or not at all."""
    write_bytes(path, save(state, {"identity": json.dumps(identity, sort_keys=True)}))


def read_checkpoint(path: Path) -> tuple[JSON, dict[str, NDArray]]:
    """Identity and state of an unfinished build."""
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["identity"]), {
            name: file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
        }


def discard_checkpoint(path: Path) -> None:
    """Forget an unfinished build."""
    checkpoint = checkpoint_of(path)
    checkpoint.unlink(missing_ok=True)
    checkpoint.with_name(checkpoint.name + TEMPORARY).unlink(missing_ok=True)
