"""A store over a live model: its rows are made while they are read, and never stored."""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal

import numpy as np
import torch

from interp.harvest_dataset import chained
from interp.harvest_policy import Loss
from interp.harvest_request import requested
from interp.models.base import Model
from interp.stores.stream_items import SourceItems
from interp.stores.stream_mixing import mixed, picked, stage_rows
from interp.stores.stream_reading import NOTHING, HalfWindows
from interp.types import JSON, Activations, Geometry, Inputs, Site


class StreamStore:
    """Rows of one site, made by a model while a trainer reads them: no harvest, no disk.

    A thread runs the model for the next half-window while the rows of the last two are given out, mixed (see
    `interp.stores.stream_mixing`); at most three half-windows are in memory. Each row has the bits that
    `harvest(model, dataset, site, ...)` with the same arguments gives it. Order and batches are a function of
    (seed, step): a training run over a stream is exact across kills, as over a stored harvest. When the dataset ends,
    it is read again, in another order.

        model = interp.load_model("all-minilm-l6-v2")
        store = StreamStore(model, documentation(), "blocks.3")
        (sae,) = saes.train(TopK(d_in=store.d_in, d_sae=6144, k=32), store, TrainConfig(tokens=10_000_000))

    While an iterator of `batches` is alive the model is the stream's: run it elsewhere after the iterator is closed
    or dropped, which stops the thread within a chunk. `fingerprint` names the model, the arguments and the dataset's
    name, length and first chunk; what comes later is compared when it is read again.

    Args:
        model: What is read; it is left as it was found.
        dataset: As for `harvest`, and readable more than once.
        site: Where.
        half_window: Chunks of a half-window. More mix better, and take more memory: the rows of three half-windows.
        threads: Threads of the model's operations, beside the trainer's; None for half as many as torch has
            (`torch.get_num_threads()`). Another count may change the last bits of the rows.
        text: The column that holds the text. This and all that follow are as for `harvest`.
        image: The column that holds the picture.
        labels: Columns kept as the labels of each item.
        max_length: Tokens kept of each text.
        exclude: Special tokens whose positions are left out.
        first: Whether the first position of each example is kept.
        max_norm_ratio: Leave out positions whose norm is over this many medians of the first chunk.
        loss: Also give its gradient at each row.
        collate: Makes a batch from a list of items that are neither texts nor pictures.
        on_error: Whether a picture that cannot be read ends the stream, or has no rows.
        dtype: What rows wait in; they are given in float32.
        chunk_examples: Items sorted by length together.
        batch_tokens: Tokens of one forward pass, padding counted; a GPU takes as many as fit.

    Raises:
        ValueError: If an argument does not fit, or the dataset can be read only once.
    """

    def __init__(
        self,
        model: Model,
        dataset: Any,
        site: str | Site,
        *,
        half_window: int = 4,
        threads: int | None = None,
        text: str = "text",
        image: str = "image",
        labels: Sequence[str] = (),
        max_length: int = 128,
        exclude: Sequence[str] | None = None,
        first: Literal["keep", "drop"] = "keep",
        max_norm_ratio: float | None = None,
        loss: Loss = None,
        collate: Callable[[list[Any]], Inputs] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        dtype: str = "bfloat16",
        chunk_examples: int = 512,
        batch_tokens: int = 4096,
    ) -> None:
        for name, value in (("half_window", half_window), ("threads", threads)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but at least 1 is needed: give a positive number.")
        if hasattr(dataset, "__next__"):
            raise ValueError(
                f"dataset is a {type(dataset).__name__}, which can be read only once, but a stream starts anew for "
                "each epoch and resume: give a sequence, a Hugging Face dataset, or an iterable that begins again "
                "each time."
            )
        self.site = model.site(site)
        self._policy, self._source, reader = requested(
            model,
            dataset,
            [self.site],
            text=text,
            image=image,
            labels=labels,
            max_length=max_length,
            max_tokens=None,
            rows_per_shard=None,
            exclude=exclude,
            first=first,
            max_norm_ratio=max_norm_ratio,
            loss=loss,
            collate=collate,
            on_error=on_error,
            dtype=dtype,
            chunk_examples=chunk_examples,
            batch_tokens=batch_tokens,
        )
        self._model, self._half_window, self._threads = model, half_window, threads
        self._halves = HalfWindows(
            model, self.site, self._policy, self._source, reader, chunks=half_window, threads=threads
        )
        self.items = SourceItems(self._source, self._halves.items)

    def __len__(self) -> int:
        """Rows of one pass over the dataset.

        Raises:
            ValueError: If no pass was read to its end yet.
        """
        if self._halves.extent.rows is None:
            raise ValueError(
                "a stream has no length before its dataset was read to the end: say how many rows to train on with "
                "TrainConfig(tokens=...)."
            )
        return self._halves.extent.rows

    def __repr__(self) -> str:
        return f"StreamStore({self._model.name}, {self._source.name}, {str(self.site)!r})"

    @property
    def geometry(self) -> Geometry:
        """How the positions of one example are laid out."""
        return self._model.geometry(self.site)

    @functools.cached_property
    def d_in(self) -> int:
        """Width of the rows; one example is run to find out."""
        return self._halves.width()

    @functools.cached_property
    def provenance(self) -> JSON:
        """Where the rows come from, and how they are mixed."""
        start = itertools.islice(self._source.read(0), self._policy.chunk_examples)
        dataset = {"name": self._source.name, "items": self._source.length, "first_chunk": chained("", start)}
        return {
            "model": {"name": self._model.name, "fingerprint": self._model.fingerprint},
            "dataset": dataset,
            "policy": self._policy.to_json(),
            "dtype": self._policy.dtype,
            "site": str(self.site),
            "stream": {"half_window": self._half_window, "threads": self._threads},
        }

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the provenance."""
        return hashlib.sha256(json.dumps(self.provenance, sort_keys=True).encode()).hexdigest()

    def example(self, index: int) -> Activations:
        """All rows of one example, in order of position. Runs its chunk: the batch it came in moves the last bits.

        Raises:
            IndexError: If the dataset has no such example.
        """
        if index < 0 or self.items[index] is None:
            raise IndexError(f"example is {index}, but examples are counted from 0.")
        rows = self._halves.chunk(index // self._policy.chunk_examples)
        if rows is None:
            none = torch.zeros(0, dtype=torch.long)
            return Activations(torch.zeros(0, self.d_in), none, none)
        return rows[rows.example == index].to(dtype=torch.float32)

    def batches(
        self, size: int, *, seed: int | None, start_step: int = 0, epochs: int | None = None
    ) -> Iterator[Activations]:
        """Yield batches of rows.

        Args:
            size: Rows a batch.
            seed: Names the order of the mixed rows; None keeps the dataset's order.
            start_step: First batch to yield. Where neither this store nor a restored state knows the rows before it,
                they are made again to count them.
            epochs: Passes over the dataset; None is one pass in the dataset's order, and no end when mixed.

        Raises:
            ValueError: If `size` is not positive; while reading, if the dataset gives no row, or not the items that
                it gave before.
        """
        if size < 1:
            raise ValueError(f"size is {size}, but a batch needs at least one row: give a positive size.")
        if seed is None:
            return self._ordered(size, start_step, epochs or 1)
        return self._drawn(size, start_step * size, epochs, seed)

    def state(self, rows: int) -> JSON:
        """What the first `rows` mixed rows told of the dataset; see `Streamed`."""
        return self._halves.extent.to_json(rows)

    def restore(self, state: JSON) -> None:
        """Start later batches without making the rows before them; see `Streamed`."""
        self._halves.extent.from_json(state)

    def _ordered(self, size: int, step: int, passes: int) -> Iterator[Activations]:
        for _ in range(passes):
            yield from self._drawn(size, step * size, 1, None)
            step = max(0, step - -(-len(self) // size))

    def _drawn(self, size: int, row: int, passes: int | None, seed: int | None) -> Iterator[Activations]:
        """Batches from a row on, stage by stage: a stage is a half-window, or the mixture of two."""
        mixing = seed is not None
        window, start = self._halves.extent.stage(row, mixing=mixing)
        batch, room = list[Activations](), dict[str, torch.Tensor]()
        with closing(self._halves.read(max(window - mixing, 0), passes)) as halves:
            earlier = next(halves, NOTHING) if window and mixing else NOTHING
            for later in itertools.chain(halves, [NOTHING]):
                end = start + (stage_rows(len(earlier), len(later)) if mixing else len(later))
                while row < end:
                    stop = min(end, row - row % size + size)
                    places = np.arange(row - start, stop - start)
                    if seed is None:
                        batch.append(picked(later.parts, places, room))
                    else:
                        numbers = mixed(places, len(earlier), len(later), seed=seed, window=window)
                        batch.append(picked(earlier.parts + later.parts, numbers, room))
                    row = stop
                    if row % size == 0:
                        yield _joined(batch)
                        batch = []
                window, start, earlier = window + 1, end, later
        if batch:
            yield _joined(batch)


def _joined(batch: list[Activations]) -> Activations:
    return batch[0] if len(batch) == 1 else Activations.concatenate(batch)
