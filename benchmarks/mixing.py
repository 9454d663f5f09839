"""Mixing of rows as they are made: a stream's, beside the buffers of SAELens and of dictionary_learning.

    python benchmarks/mixing.py [--saelens PYTHON] [--dictionary-learning PYTHON] [--rows 1048576] [--threads 2]

Each side mixes the same number of rows of 512 and gives float32. All keep float32; the stream keeps its default,
bfloat16, in a row of its own. Each is fed by a model that costs nothing: blocks of rows that are ready. Sides take
turns, a round being as many batches as half the rows make, so that each has filled up once. Also the batches of rows in
memory and on disk, beside one gather of as many random rows. Before anything is timed, the stream's rows are compared
with those of a slow shuffle of lists.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import torch
from peers.client import Peer
from torch import nn

import interp
from interp.models.torch_module import TorchModel
from interp.stores.memory import MemoryStore
from interp.stores.shuffling import shuffled
from interp.stores.stream import StreamStore
from interp.stores.stream_extent import Extent
from interp.stores.stream_reading import HalfWindow
from interp.types import Activations, Inputs
from saes.engine.memory import kept_memory

D_IN, BATCH = 512, 4096
ROUNDS, PEERS_ROUNDS = 5, 2  # A round of a peer takes minutes.
CONTEXT = 128
CHUNK = 512 * CONTEXT  # Rows of a stream's chunk by default, and of a block of dictionary_learning's.

Seconds = tuple[float, ...]  # On the wall, and on the processor: that hardly moves on a busy machine.
Side = Callable[[int], Seconds]


class Ready:
    """Half-windows that are there already: what a stream reads where it would run a model.

    Two of them take turns, as in memory there are two; each comes with examples of its own.
    """

    def __init__(self, rows: int, chunk: int, dtype: torch.dtype = torch.float32) -> None:
        self.extent, self.rows, self.chunk = Extent(), rows, chunk
        random = torch.Generator().manual_seed(0)
        self.values = [torch.randn(rows, D_IN, generator=random).to(dtype).split(chunk) for _ in range(2)]

    def read(self, window: int, passes: int | None) -> Generator[HalfWindow, None, None]:
        for number in itertools.count(window):
            example = torch.arange(number * self.rows, (number + 1) * self.rows).split(self.chunk)
            self.extent.note(number, self.rows, "")
            values = self.values[number % 2]
            yield HalfWindow(tuple(Activations(v, e, e) for v, e in zip(values, example, strict=True)))


def stacked(items: list[torch.Tensor]) -> Inputs:
    return Inputs({"input": torch.stack(items)})


def stream(ready: Ready) -> StreamStore:
    model = TorchModel(nn.Sequential(nn.Identity()))
    store = StreamStore(model, [torch.zeros(1, D_IN)], "0", collate=stacked, dtype="float32")
    store._halves = ready  # type: ignore[assignment]
    return store


def slow_examples(rows: int, seed: int) -> Iterator[int]:
    """The order of a stream, as `stream_mixing` describes it, one list a stage."""
    kept: list[int] = []
    for window in itertools.count():
        order = shuffled(np.arange(rows), rows, seed=seed, epoch=2 * window)
        half = [window * rows + int(row) for row in order]
        stage = [*kept, *half[: rows // 2]]
        yield from (stage[i] for i in shuffled(np.arange(len(stage)), len(stage), seed=seed, epoch=2 * window + 1))
        kept = half[rows // 2 :]


def check(rows: int = 5000, chunk: int = 600, size: int = 64) -> None:
    """The slow shuffle's order; each row once, with its values, while its half-window is one of the two that mix."""
    ready = Ready(rows, chunk)
    whole = [torch.cat(values) for values in ready.values]
    batches = list(itertools.islice(stream(ready).batches(size, seed=3), 10 * rows // size))
    examples = torch.cat([batch.example for batch in batches])
    assert examples.tolist() == list(itertools.islice(slow_examples(rows, 3), len(examples)))
    came = torch.full((12 * rows,), -1)
    came[examples] = torch.arange(len(examples))
    assert (came[: 8 * rows] >= 0).all(), "a row is missing"
    assert len(examples.unique()) == len(examples), "a row came twice"
    shift = came[: 8 * rows] - (torch.arange(8 * rows) // rows * rows - rows // 2)
    assert ((shift >= 0) & (shift < 2 * rows)).all(), "a row left its window"
    expected = torch.stack([whole[e // rows % 2][e % rows] for e in examples.tolist()])
    assert torch.equal(torch.cat([batch.values for batch in batches]), expected)


def timed(batches: Iterator[object]) -> Side:
    next(batches)

    def work(n: int) -> Seconds:
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(n):
            next(batches)
        return (time.perf_counter() - wall) / n, (time.process_time() - processor) / n

    return work


def interleaved(sides: dict[str, Side], batches: int, rounds: int) -> dict[str, Seconds]:
    """Median seconds of a batch of each side."""
    found: dict[str, list[Seconds]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            found[name].append(work(batches))
    return {name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in found.items()}


def beside(sides: dict[str, Side], batches: int, rounds: int = ROUNDS) -> None:
    """Print each side, as ratios to the first."""
    found = interleaved(sides, batches, rounds)
    (wall, processor), *_ = found.values()
    for name, seconds in found.items():
        print(
            f"{name:36} {BATCH / seconds[0]:12,.0f} rows/s   takes {seconds[0] / wall:7.2f} of the first's time, "
            f"{seconds[1] / processor:7.2f} of its processor's",
            flush=True,
        )


def gathers(values: torch.Tensor) -> Iterator[torch.Tensor]:
    """Random rows, each batch one `index_select` into memory of its own."""
    random = torch.Generator().manual_seed(0)
    while True:
        yield values.index_select(0, torch.randint(len(values), (BATCH,), generator=random))


def mixing(asked: argparse.Namespace) -> None:
    """The stream beside each of the others in turn: all at once would take more memory than they need."""
    half = asked.rows // 2
    ready = Ready(half, CHUNK)
    ours = {
        "stream": timed(stream(ready).batches(BATCH, seed=0)),
        "stream of bfloat16, its default": timed(stream(Ready(half, CHUNK, torch.bfloat16)).batches(BATCH, seed=0)),
    }
    beside({**ours, "one gather": timed(gathers(torch.cat(ready.values[0])))}, half // BATCH)
    for name, python, block in (
        ("saelens", asked.saelens, 4096),  # Its default: 32 prompts of 128 tokens.
        ("saelens", asked.saelens, CHUNK),
        ("dictionary_learning", asked.dictionary_learning, CHUNK),
    ):
        if python:
            options = {"rows": asked.rows, "block": block, "threads": asked.threads, "batch": BATCH, "d_in": D_IN}
            with Peer(python, f"{name}_mixing", **options) as peer:
                beside({**ours, f"{name}, blocks of {block}": peer.step}, half // BATCH, PEERS_ROUNDS)


def stores(rows: int = 400 * 1024) -> None:
    """Batches of rows in memory and on disk, beside one gather of as many rows."""
    items = [torch.randn(CONTEXT, D_IN) for _ in range(rows // CONTEXT)]
    model = TorchModel(nn.Sequential(nn.Identity()))
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            options = {"collate": stacked, "dtype": dtype, "progress": False}
            (disk,) = interp.harvest(model, items, ["0"], Path(folder) / "store", **options).values()
            values = torch.cat(items).to(getattr(torch, dtype))
            number = torch.arange(rows)
            memory = MemoryStore(Activations(values, number // CONTEXT, number % CONTEXT))
            ours = {"memory": memory.batches(BATCH, seed=0), "disk": disk.batches(BATCH, seed=0)}
            for a, b in itertools.islice(zip(*ours.values(), strict=True), rows // BATCH):
                assert torch.equal(a.values.float(), b.values)
                assert torch.equal(a.example, b.example)
            sides = {"one gather": gathers(values), **ours}
            beside({f"{dtype}, {name}": timed(side) for name, side in sides.items()}, rows // BATCH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saelens", type=Path, help="python of an environment that has sae-lens 6")
    parser.add_argument("--dictionary-learning", type=Path, help="python of one that has dictionary-learning")
    parser.add_argument("--rows", type=int, default=2**20, help="rows a buffer mixes")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    check()
    with kept_memory():  # As in a run.
        stores()
        mixing(asked)
