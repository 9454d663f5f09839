"""A model at work ahead of the trainer: half-windows of rows, made one after another in a thread of their own."""

import contextlib
import itertools
import threading
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import nn

from interp.harvest_dataset import Raw, Source, chained
from interp.harvest_policy import Policy, Tally
from interp.harvest_rows import RowReader
from interp.models.base import Model
from interp.stores.stream_extent import NO_ROWS, Extent
from interp.types import Activations, Item, Site

_DIGEST = 16  # Hexadecimal digits that a checkpoint keeps of each half-window's hash.
# Two streams over one model take turns: the hooks of one would see the other's pass.
_TURNS: weakref.WeakKeyDictionary[nn.Module, threading.Lock] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class HalfWindow:
    """The rows of a fixed span of items, a part a chunk that gave rows.

    Args:
        parts: Rows in the dataset's order.
        items: Items read.
        digest: Hash of these items.
    """

    parts: tuple[Activations, ...] = ()
    items: int = 0
    digest: str = ""

    def __len__(self) -> int:
        return sum(map(len, self.parts))


NOTHING = HalfWindow()


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """Nobody waits for the half-window any more."""


class HalfWindows:
    """Makes the half-windows of a dataset.

    Args:
        model: The model.
        site: Where it is read.
        policy: What is kept.
        source: The dataset.
        reader: Turns its items into rows.
        chunks: Chunks of a half-window.
        threads: Threads of the model's operations; None for half as many as the caller's have.
    """

    def __init__(
        self,
        model: Model,
        site: Site,
        policy: Policy,
        source: Source,
        reader: RowReader,
        *,
        chunks: int,
        threads: int | None,
    ) -> None:
        self._site, self._policy, self._source, self._reader = site, policy, source, reader
        self._span, self._threads = chunks * policy.chunk_examples, threads
        self._turn = _TURNS.setdefault(model.module, threading.Lock())
        self._medians: dict[str, float] = {}
        self.extent = Extent()
        self._kept: dict[int, HalfWindow] = {}

    def read(self, window: int, passes: int | None) -> Generator[HalfWindow, None, None]:
        """Half-windows from one on, each while the one before is used.

        Args:
            window: The first, counted through all passes; it or the one before it must be known to `extent`.
            passes: Where to end; None for never.
        """
        kept, self._kept = self._kept, {}
        ready = [kept[number] for number in itertools.takewhile(kept.__contains__, itertools.count(window))]
        del kept
        given: list[HalfWindow] = []
        with contextlib.closing(self._ahead(window + len(ready), passes, ready)) as halves:
            for half in halves:
                given, window = [*given, half], window + 1
                try:
                    yield half
                except GeneratorExit:
                    # Who leaves in the first window came for an estimate: the next reader begins with what was made.
                    self._kept = dict(enumerate(given, window - len(given))) if window <= 2 else {}
                    raise
                given = [half]  # Before the next is asked for: never more than three are alive.

    def chunk(self, number: int) -> Activations | None:
        """The rows of one chunk, with the bits they have in the stream; None where it gives none."""
        first = number * self._policy.chunk_examples
        raws = list(itertools.islice(self._source.read(first), self._policy.chunk_examples))
        with self._thread(threading.Event()) as pool:
            return pool.submit(self._rows, raws, first).result()

    def width(self) -> int:
        """Width of the rows, from the first item that has any.

        Raises:
            ValueError: If none has.
        """
        for number, raw in enumerate(self._source.read(0)):
            rows = self._rows([raw], number)
            if rows is not None:
                return rows.values.shape[1]
        raise ValueError(NO_ROWS)

    def items(self, raws: list[Raw]) -> list[Item]:
        """Tokens and pieces; tokenizers serve one thread at a time."""
        with self._turn:
            return self._reader.items(raws)

    def _ahead(self, window: int, passes: int | None, ready: list[HalfWindow]) -> Generator[HalfWindow, None, None]:
        """Those that are ready, then from `window` on, each made while the one before is used."""
        stop = threading.Event()
        made = self._made(window, passes, stop)
        with self._thread(stop) as pool:
            ahead = pool.submit(next, made, None)
            while ready:
                yield ready.pop(0)
            while (half := ahead.result()) is not None:
                ahead = pool.submit(next, made, None)
                yield half

    @contextlib.contextmanager
    def _thread(self, stop: threading.Event) -> Iterator[ThreadPoolExecutor]:
        here = torch.get_num_threads()
        pool = ThreadPoolExecutor(1, "unweave-stream")
        try:
            pool.submit(_use_threads, self._threads or max(1, here // 2)).result()
            torch.set_num_threads(here)  # A new thread begins with the count that was set last, in whatever thread.
            yield pool
        finally:
            stop.set()
            pool.shutdown()

    def _made(self, window: int, passes: int | None, stop: threading.Event) -> Iterator[HalfWindow]:
        done, place = divmod(window, self.extent.length or window + 1)
        while passes is None or done < passes:
            raws = self._source.read(place * self._span)
            items = self._span
            while items == self._span:
                half = self._half(raws, place * self._span, stop)
                items = half.items
                if items:
                    with self._turn:  # Another reader of this stream may be as far.
                        self.extent.note(place, len(half), half.digest)
                    place += 1
                    yield half
            self.extent.end(place)
            done, place = done + 1, 0

    def _half(self, raws: Iterator[Raw], first: int, stop: threading.Event) -> HalfWindow:
        parts, items, digest = [], 0, ""
        while items < self._span:
            # A thread that outlives its reader would keep the process from ending.
            if stop.is_set() or not threading.main_thread().is_alive():
                raise Stopped
            chunk = list(itertools.islice(raws, self._policy.chunk_examples))
            rows = self._rows(chunk, first + items)
            parts += [] if rows is None else [rows]
            items, digest = items + len(chunk), chained(digest, chunk)
            if len(chunk) < self._policy.chunk_examples:
                break
        return HalfWindow(tuple(parts), items, digest[:_DIGEST])

    def _rows(self, raws: list[Raw], first: int) -> Activations | None:
        if self._policy.max_norm_ratio is not None and not self._medians:
            self._measure()
        with self._turn:
            block = self._reader.read(self._reader.prepare(raws), Tally(items=first, medians=self._medians))
        return block.rows[self._site] if len(block) else None

    def _measure(self) -> None:
        """Medians of the first chunk that has rows: those that a harvest compares norms with."""
        raws = self._source.read(0)
        while not self._medians and (chunk := list(itertools.islice(raws, self._policy.chunk_examples))):
            with self._turn:
                self._reader.read(self._reader.prepare(chunk), Tally(medians=self._medians))


def _use_threads(count: int) -> None:
    torch.set_num_threads(count)
    torch.get_num_threads()  # Without it the thread's first operation would take the process's count over.
