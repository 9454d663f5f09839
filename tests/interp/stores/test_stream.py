import itertools
import json
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from interp.harvesting import harvest
from interp.models.torch_module import TorchModel
from interp.stores import stream_reading
from interp.stores.base import RowStore
from interp.stores.shuffling import shuffled
from interp.stores.stream import StreamStore
from interp.stores.stream_extent import Streamed
from interp.stores.stream_mixing import mixed, stage_rows
from interp.types import Activations, ActivationStore, Geometry, Inputs

ROOT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {"chunk_examples": 8, "dtype": "float32", "threads": 1}
# What a batch of the tiny model must keep, in bits, whatever ran before.
OPTIONS = [
    {},
    {"loss": "next_token", "first": "drop", "labels": ["kind"]},
    {"max_norm_ratio": 1.2, "exclude": ("cls", "sep"), "dtype": "bfloat16"},
]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The bits of a harvest are those of the thread count it ran under."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def stream(tiny_text: Any, sentences: Any) -> Callable[..., StreamStore]:
    """A function that opens a stream over 52 items: 7 chunks, 4 half-windows, the last of 4 items."""

    def make(n: int = 52, **options: Any) -> StreamStore:
        return StreamStore(tiny_text, sentences(n), "blocks.1", **{"half_window": 2, **SMALL, **options})

    return make


@pytest.fixture
def harvested(tiny_text: Any, sentences: Any) -> Callable[..., RowStore]:
    def make(n: int = 52, **options: Any) -> RowStore:
        options = {name: value for name, value in {**SMALL, **options}.items() if name != "threads"}
        (store,) = harvest(tiny_text, sentences(n), "blocks.1", **options).values()
        return store

    return make


def _equal(a: Activations, b: Activations) -> bool:
    pairs = ((a.values, b.values), (a.example, b.example), (a.position, b.position), (a.grads, b.grads))
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


def _addresses(batches: list[Activations]) -> list[tuple[int, int]]:
    return [pair for batch in batches for pair in zip(batch.example.tolist(), batch.position.tolist(), strict=True)]


# What it gives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS)
def test_in_order_it_gives_what_a_harvest_stores(stream: Any, harvested: Any, options: dict) -> None:
    store, stored = stream(**options), harvested(**options)
    for epochs in (None, 2):
        batches = list(store.batches(32, seed=None, epochs=epochs))
        expected = list(stored.batches(32, seed=None, epochs=epochs))
        assert len(batches) == len(expected)
        assert all(_equal(a, b) for a, b in zip(batches, expected, strict=True))
        assert {batch.values.dtype for batch in batches} == {torch.float32}
    assert len(store) == len(stored)


@pytest.mark.parametrize("options", OPTIONS)
def test_examples_and_items_are_those_of_a_harvest(stream: Any, harvested: Any, options: dict) -> None:
    store, stored = stream(20, **options), harvested(20, **options)
    assert len(store.items) == len(stored.items)
    assert store.d_in == stored.d_in == 8
    assert store.geometry == stored.geometry
    for index, (item, expected) in enumerate(zip(store.items, stored.items, strict=True)):
        assert (item.pieces, item.labels) == (expected.pieces, expected.labels)
        assert torch.equal(store.items[index].tokens, expected.tokens)
        assert _equal(store.example(index), stored.example(index))
    for index in (-1, 20):
        with pytest.raises(IndexError, match="example is -1|item is 20"):
            store.example(index)


def test_it_is_a_store_of_both_kinds(stream: Any, harvested: Any) -> None:
    assert isinstance(stream(), ActivationStore)
    assert isinstance(stream(), Streamed)
    assert not isinstance(harvested(), Streamed)


def _listed(batches: list[Activations]) -> list[tuple]:
    columns = [(b.values.tolist(), b.example.tolist(), b.position.tolist()) for b in batches]
    return [row for column in columns for row in zip(*column, strict=True)]


def _slow(rows: list[list[Any]], seed: int, passes: int) -> list[Any]:
    """The order of a stream, written as its docstring says it, on lists of the rows of each half-window."""
    halves = [(row for row in half) for _ in range(passes) for half in rows]
    kept: list[Any] = []
    given = []
    for window, half in enumerate([*map(list, halves), []]):
        permuted = [half[i] for i in shuffled(np.arange(len(half)), len(half), seed=seed, epoch=2 * window)]
        earlier, later = permuted[: len(half) // 2], permuted[len(half) // 2 :]
        stage = [*kept, *earlier]
        given += [stage[i] for i in shuffled(np.arange(len(stage)), len(stage), seed=seed, epoch=2 * window + 1)]
        kept = later
    return given


@pytest.mark.parametrize(("seed", "size"), [(0, 32), (5, 7), (5, 500)])
def test_the_order_is_that_of_the_slow_version(stream: Any, harvested: Any, seed: int, size: int) -> None:
    everything = harvested().span(0, len(harvested()))
    stored = _listed([everything])
    rows = [[row for row in stored if row[1] // 16 == half] for half in range(4)]
    batches = list(stream().batches(size, seed=seed, epochs=2))
    assert {len(batch) for batch in batches[:-1]} == {size}
    assert _listed(batches) == _slow(rows, seed, 2)


def test_each_pass_gives_each_row_once_in_an_order_of_its_own(stream: Any, harvested: Any) -> None:
    n = len(harvested())
    rows = _addresses(list(stream().batches(16, seed=0, epochs=2)))
    assert sorted(rows) == sorted(2 * _addresses([harvested().span(0, n)]))
    assert rows != rows[n:] + rows[:n]
    assert rows != _addresses(list(stream().batches(16, seed=1, epochs=2)))


def test_rows_stand_where_two_even_draws_in_two_stages_stand() -> None:
    """Mean distance 2/3 of a half-window between rows that were neighbours, at most two half-windows."""
    n, halves = 600, 40
    places: dict[int, int] = {}
    start = 0
    for window in range(halves):
        earlier = n if window else 0
        for place, row in enumerate(mixed(np.arange(stage_rows(earlier, n)), earlier, n, seed=1, window=window)):
            places[int(row) + (window * n - earlier)] = start + place
        start += stage_rows(earlier, n)
    inner = [half * n + row for half in range(1, halves - 1) for row in range(n)]
    distance = np.array([abs(places[a] - places[a + 1]) for a in inner if (a + 1) % n])
    assert abs(distance.mean() / n - 2 / 3) < 0.02
    assert distance.max() < 2 * n
    assert distance.max() > 1.8 * n
    shift = np.array([places[a] - (a // n * n - n // 2) for a in inner])  # From where its half-window begins to go out.
    counts = np.histogram(shift, bins=10, range=(0, 2 * n))[0]
    expected = len(inner) / 10
    assert counts.sum() == len(inner)
    assert ((counts - expected) ** 2 / expected).sum() < 28  # 9 degrees of freedom: p = 0.001.


def test_every_batch_mixes_two_half_windows(stream: Any) -> None:
    batches = list(stream().batches(64, seed=0, epochs=2))
    first = next(i for i, batch in enumerate(batches) if (batch.example // 16).unique().numel() > 1)
    assert first <= 2
    assert all((batch.example // 16).unique().numel() >= 2 for batch in batches[first:-1])
    assert all((batch.example // 16).unique().numel() <= 3 for batch in batches)


# Where it starts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 3])
def test_starting_at_a_step_equals_skipping_to_it(stream: Any, seed: int | None) -> None:
    told = stream()
    whole = list(told.batches(64, seed=seed, epochs=2))
    for start in (0, 1, 7, 12, len(whole) - 1, len(whole), len(whole) + 40):
        restored = stream()
        restored.restore(json.loads(json.dumps(told.state(start * 64))))
        for store in (stream(), restored, told):
            late = list(store.batches(64, seed=seed, epochs=2, start_step=start))
            assert len(late) == max(0, len(whole) - start)
            assert all(_equal(a, b) for a, b in zip(late, whole[start:], strict=True))


def test_the_state_is_a_function_of_the_rows_given(stream: Any) -> None:
    """Not of how far the thread read ahead: equal runs write equal checkpoints."""
    ahead = stream()
    list(ahead.batches(64, seed=0, epochs=2))
    store = stream()
    for step, _ in enumerate(store.batches(64, seed=0, epochs=2), start=1):
        assert store.state(step * 64) == ahead.state(step * 64)
    assert store.state(0) == {"half_windows": [], "whole": False}
    assert store.state(10**6)["whole"]


class Counting(TorchModel):
    """One vector an item, its number twice; counts the items it is given."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Identity()))
        self.seen: list[int] = []
        self.pause = threading.Event()
        self.pause.set()

    def forward(self, inputs: Inputs) -> Any:
        assert self.pause.wait(20)
        self.seen += inputs.tensors["x"][:, 0].int().tolist()
        return super().forward(inputs)


def _numbers(items: list[Any]) -> Inputs:
    return Inputs({"x": torch.tensor(items, dtype=torch.float32)[:, None].repeat(1, 2)})


def _counting(n: int, model: Counting | None = None, **options: Any) -> tuple[Counting, StreamStore]:
    model = model or Counting()
    options = {"collate": _numbers, "chunk_examples": 5, "half_window": 2, "dtype": "float32", **options}
    return model, StreamStore(model, range(n), "0", **options)


def test_a_restored_stream_runs_the_model_for_its_window_only() -> None:
    _, told = _counting(100)
    list(told.batches(8, seed=0, epochs=1))
    for step in (3, 6, 11):
        model, store = _counting(100)
        store.restore(told.state(step * 8))
        batches = store.batches(8, seed=0, start_step=step)
        next(batches)
        batches.close()
        window = (step * 8 + 5) // 10  # Stages begin at rows 0, 5, 15, 25, ...
        assert model.seen[0] == 10 * (window - 1)
        assert len(model.seen) <= 40  # A batch may reach into the next stage, and one half-window is made ahead.


# The thread ----------------------------------------------------------------------------------------------------------


def _until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def test_the_model_works_while_rows_are_used_one_half_window_ahead() -> None:
    model, store = _counting(1000)
    batches = store.batches(2, seed=0)
    next(batches)
    assert _until(lambda: len(model.seen) == 20)  # The second half-window, though nobody asked for it.
    time.sleep(0.05)
    assert len(model.seen) == 20
    for _ in range(3):  # Five rows of the first half-window, then the next stage begins.
        next(batches)
    assert _until(lambda: len(model.seen) == 30)
    batches.close()


def test_no_more_than_three_half_windows_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = [0]

    class Seen(stream_reading.HalfWindow):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            alive.add(self)
            most[0] = max(most[0], sum(1 for half in list(alive) if len(half)))

    monkeypatch.setattr(stream_reading, "HalfWindow", Seen)
    _, store = _counting(150)
    batches = store.batches(7, seed=0)
    for _ in range(60):  # Nearly three passes of 15 half-windows.
        next(batches)
    batches.close()
    assert 2 <= most[0] <= 3  # how far the producer got ahead is a matter of timing
    del batches
    assert not alive


def test_an_error_of_the_model_comes_with_its_traceback() -> None:
    class Breaking(Counting):
        def forward(self, inputs: Inputs) -> Any:
            if 42 in inputs.tensors["x"]:
                raise RuntimeError("forty-two")
            return super().forward(inputs)

    _, store = _counting(100, Breaking())
    given = []
    with pytest.raises(RuntimeError, match="forty-two") as caught:
        given += store.batches(5, seed=0)
    assert "in forward" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert not [t for t in threading.enumerate() if t.name.startswith("unweave")]


def test_an_error_of_the_user_or_an_interrupt_stops_the_thread() -> None:
    for error in (ZeroDivisionError, KeyboardInterrupt):
        _, store = _counting(100)
        with pytest.raises(error):
            for _ in store.batches(5, seed=0):
                assert [t for t in threading.enumerate() if t.name.startswith("unweave")]
                raise error
        assert not [t for t in threading.enumerate() if t.name.startswith("unweave")]


def test_a_forgotten_iterator_stops_its_thread_within_a_chunk() -> None:
    model, store = _counting(1000)
    batches = store.batches(2, seed=0)
    next(batches)
    assert _until(lambda: len(model.seen) == 20)
    model.pause.clear()
    for _ in range(3):
        next(batches)
    assert _until(lambda: [t for t in threading.enumerate() if t.name.startswith("unweave")] != [])
    threading.Timer(0.1, model.pause.set).start()
    del batches
    assert not [t for t in threading.enumerate() if t.name.startswith("unweave")]
    assert len(model.seen) <= 25


def test_the_model_and_the_caller_are_left_as_they_were(stream: Any, tiny_text: Any) -> None:
    torch.set_num_threads(2)
    tiny_text.module.train()
    tiny_text.module.blocks[0].eval()
    flags = [(m.training, [p.requires_grad for p in m.parameters()]) for m in tiny_text.module.modules()]
    weight = torch.ones(3, requires_grad=True)
    for options in ({}, {"loss": "next_token"}):
        for _ in zip(range(8), stream(**options).batches(32, seed=0), strict=False):
            assert torch.is_grad_enabled()
            loss = (weight * torch.ones(3)).sum()  # A graph of the caller's, made while the thread works.
            loss.backward()
    assert torch.equal(weight.grad, torch.full((3,), 16.0))
    assert flags == [(m.training, [p.requires_grad for p in m.parameters()]) for m in tiny_text.module.modules()]
    assert all(not hooks for m in tiny_text.module.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks))
    elsewhere: list[int] = []
    thread = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == elsewhere[0] == 2


@pytest.mark.parametrize(("threads", "expected"), [(None, 2), (1, 1), (3, 3)])
def test_the_model_runs_in_threads_of_its_own(threads: int | None, expected: int) -> None:
    class Asking(Counting):
        def forward(self, inputs: Inputs) -> Any:
            self.seen.append(torch.get_num_threads())
            return super().forward(inputs)

    torch.set_num_threads(4)
    model, store = _counting(20, Asking(), threads=threads)
    list(store.batches(4, seed=0, epochs=1))
    store.example(3)
    assert set(model.seen[::6]) == {expected}


def test_two_streams_over_one_model_take_turns(tiny_text: Any, sentences: Any) -> None:
    """Their hooks sit on one model: a pass of one must not be read by the other."""
    stores = [StreamStore(tiny_text, sentences(100, seed=i), f"blocks.{i}", half_window=2, **SMALL) for i in range(2)]
    alone = [list(store.batches(32, seed=0, epochs=1)) for store in stores]
    together = list(zip(*(store.batches(32, seed=0, epochs=1) for store in stores), strict=False))
    assert len(together) > 25
    for number, batches in enumerate(zip(*together, strict=True)):
        assert all(_equal(a, b) for a, b in zip(batches, alone[number], strict=False))


def test_what_an_estimate_read_is_not_made_again() -> None:
    model, store = _counting(100)
    for batch in store.batches(8, seed=0, epochs=1):
        assert len(batch) == 8
        if len(model.seen) >= 20:
            break
    read = len(model.seen)
    batches = store.batches(8, seed=0, epochs=1)
    rows = list(batches)
    assert sorted(model.seen[read:]) == list(range(20, 100))
    assert all(_equal(a, b) for a, b in zip(rows, _counting(100)[1].batches(8, seed=0, epochs=1), strict=True))
    assert not store._halves._kept


# Memory, in a process of its own -------------------------------------------------------------------------------------

PROGRAM = """
import resource, sys, torch
from interp.models.torch_module import TorchModel
from interp.stores.stream import StreamStore
from interp.types import Inputs

def collate(items):
    return Inputs({"x": torch.tensor(items, dtype=torch.float32)[:, None].repeat(1, 1024)})

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

# A half-window is 16 MB of rows.
torch.set_num_threads(1)
store = StreamStore(TorchModel(torch.nn.Sequential(torch.nn.Identity())), range(10**6), "0", collate=collate,
                    half_window=8, chunk_examples=512, dtype="float32")
batches = store.batches(512, seed=0)
sizes = []
for _, _ in zip(range(8 * 30), batches):
    sizes.append(resident())
print(*sizes, flush=True)
# The iterator is alive, and its thread at work: the process must end all the same.
"""


def test_memory_does_not_grow_over_windows_and_the_process_ends() -> None:
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    sizes = [float(size) for size in done.stdout.split()]
    # Peaks, since how far ahead the thread is at a given step is the machine's affair, and late ones, since the
    # allocator settles over the first ten stages. A leak of one half-window a stage would be 240 MB.
    early, late = max(sizes[8 * 6 : 8 * 15]), max(sizes[8 * 20 :])
    assert late - early < 48, sizes
    assert time.monotonic() - begin < 100


# Images --------------------------------------------------------------------------------------------------------------


def _pictures(items: list[Any]) -> Inputs:
    return Inputs({"x": torch.stack([torch.as_tensor(item["pixels"]) for item in items])})


def test_a_stream_of_pictures_is_a_harvest_of_them() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.ReLU())
    model = TorchModel(network, geometry=Geometry("grid", grid=(4, 4)))
    draw = torch.Generator().manual_seed(0)
    items = [{"pixels": torch.randn(3, 8, 8, generator=draw), "name": str(i)} for i in range(30)]
    options: dict[str, Any] = {"collate": _pictures, "labels": ["name"], "chunk_examples": 4, "dtype": "float32"}
    (stored,) = harvest(model, items, "1", **options).values()
    store = StreamStore(model, items, "1", half_window=2, **options)
    for a, b in zip(store.batches(64, seed=None), stored.batches(64, seed=None), strict=True):
        assert _equal(a, b)
    assert store.geometry.grid == (4, 4)
    assert store.items[3].labels == {"name": "3"}
    rows = _addresses(list(store.batches(64, seed=0, epochs=1)))
    assert sorted(rows) == list(itertools.product(range(30), range(16)))


# Refusals ------------------------------------------------------------------------------------------------------------


def test_a_length_is_known_after_a_pass(stream: Any) -> None:
    store = stream()
    with pytest.raises(ValueError, match=r"no length before its dataset was read to the end.*TrainConfig\(tokens="):
        len(store)
    list(store.batches(50, seed=0, epochs=1))
    assert len(store) == len(list(store.batches(1, seed=None)))


class Endless:
    """An iterable that tells no length, and begins again each time."""

    def __iter__(self) -> Iterator[str]:
        return (f"words for number {i}" for i in itertools.count())


def test_an_endless_dataset_is_read_as_far_as_needed(tiny_text: Any) -> None:
    store = StreamStore(tiny_text, Endless(), "blocks.0", half_window=1, **SMALL)
    batches = [batch for _, batch in zip(range(5), store.batches(30, seed=0), strict=False)]
    restored = StreamStore(tiny_text, Endless(), "blocks.0", half_window=1, **SMALL)
    restored.restore(store.state(90))
    assert _equal(next(restored.batches(30, seed=0, start_step=3)), batches[3])
    assert store.items[70].pieces[-2] == " 70"
    with pytest.raises(ValueError, match="does not tell how many items it has"):
        len(store.items)


def test_datasets_that_cannot_be_streamed_are_refused(tiny_text: Any) -> None:
    with pytest.raises(ValueError, match=r"can be read only once.*begins again each time"):
        StreamStore(tiny_text, iter(["a"]), "blocks.0")
    for texts in ([], ["", " "]):
        store = StreamStore(tiny_text, texts, "blocks.0")
        for read in (lambda s: list(s.batches(4, seed=0)), lambda s: list(s.batches(4, seed=None)), lambda s: s.d_in):
            with pytest.raises(ValueError, match="dataset gave no rows"):
                read(store)


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (["other", *"bcdefgh"], "half-window 0 of the dataset is not what it was"),
        ([*"abcdefghij"], "half-window 2 of the dataset is not what it was"),
        ([*"abcd"], "the dataset ended after 1 half-windows, but gave 2 before"),
    ],
)
def test_a_dataset_that_changes_is_found_out(tiny_text: Any, later: list[str], message: str) -> None:
    texts = [*"abcdefgh"]
    store = StreamStore(tiny_text, texts, "blocks.0", half_window=2, chunk_examples=2, threads=1)
    assert len(list(store.batches(10, seed=0, epochs=1))) == 3  # Eight letters, and two special tokens with each.
    list(store.batches(10, seed=0, epochs=1))
    texts[:] = later
    with pytest.raises(ValueError, match=message):
        list(store.batches(10, seed=0, epochs=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_window": 0}, "half_window is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"chunk_examples": 0}, "chunk_examples is 0"),
        ({"exclude": ("nobody",)}, "exclude has"),
        ({"loss": "previous_token"}, "loss is 'previous_token'"),
    ],
)
def test_arguments_out_of_range_are_refused(stream: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(**options)
    with pytest.raises(ValueError, match="size is 0"):
        stream().batches(0, seed=0)


def test_fingerprints_name_what_changes_the_rows(stream: Any, tiny_text: Any) -> None:
    found = [stream(**options).fingerprint for options in ({}, {}, {"first": "drop"}, {"n": 51}, {"half_window": 1})]
    assert found[0] == found[1]
    assert len(set(found)) == 4
    with torch.no_grad():
        tiny_text.module.head.bias += 1
    assert stream().fingerprint not in found
