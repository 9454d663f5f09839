"""Rows of a store to sparse codes, the same bits however the rows are batched."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from interp.types import Activations, ActivationStore, Directions

# The last bits of a GEMM depend on its shape: rows are encoded by this many, counted from the store's first row,
# so that codes depend neither on `batch_rows` nor on where a run was resumed. 1024 is also the fastest chunk measured.
ENCODED_ROWS = 1024
# An address packs (example, position) into one sortable integer.
POSITION_BITS = 24


@dataclass(frozen=True)
class Codes:
    """Codes of a run of rows, compressed by row, with the address of each row.

    Args:
        values: The codes that are not zero, [nnz] float32.
        features: The feature of each code, [nnz] int32.
        offsets: Row i holds codes `offsets[i]` to `offsets[i + 1]`, [n + 1].
        example: Example of each row, [n].
        position: Position of each row, [n].
    """

    values: NDArray[np.float32]
    features: NDArray[np.int32]
    offsets: NDArray[np.int64]
    example: NDArray[np.int64]
    position: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.example)

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The row of each code."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def address(self) -> NDArray[np.int64]:
        """One integer a row that sorts like (example, position)."""
        return address_of(self.example, self.position)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored columns."""
        parts = (self.values, self.features, self.offsets, self.example, self.position)
        return sum(part.nbytes for part in parts)

    def bare(self) -> "Codes":
        """The same codes without derived columns."""
        return Codes(self.values, self.features, self.offsets, self.example, self.position)


def address_of(example: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """One integer for each (example, position), in the same order."""
    return (example.astype(np.int64) << POSITION_BITS) + position


def whole_batches(batch_rows: int) -> int:
    """Round up to a whole number of encoded chunks.

    Raises:
        ValueError: If `batch_rows` is not positive.
    """
    if batch_rows < 1:
        raise ValueError(f"batch_rows is {batch_rows}, but a batch needs at least one row: give a positive number.")
    return -(-batch_rows // ENCODED_ROWS) * ENCODED_ROWS


def encoded_batches(
    directions: Directions, source: ActivationStore, batch_rows: int, start_step: int = 0
) -> Iterator[Codes]:
    """Encode a store in stored order.

    Args:
        directions: What encodes.
        source: The store.
        batch_rows: Rows a batch; a multiple of `ENCODED_ROWS`, as `whole_batches` gives.
        start_step: First batch.

    Raises:
        ValueError: If a code is not finite.
    """
    for batch in source.batches(batch_rows, seed=None, start_step=start_step):
        yield encode(directions, batch)


@contextlib.contextmanager
def evaluating(directions: Directions) -> Iterator[None]:
    """Encode as at evaluation, where a row's codes do not depend on its batch; the mode is put back afterwards."""
    module = directions if isinstance(directions, nn.Module) and directions.training else None
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        if module is not None:
            module.train()


@torch.no_grad()
def encode(directions: Directions, batch: Activations) -> Codes:
    """Codes of a batch that starts on a chunk's border.

    Raises:
        ValueError: If a code is not finite.
    """
    weights = directions.W_dec
    by_grads = batch.grads is not None and "grads" in inspect.signature(directions.encode).parameters
    values, features, counts = [], [], []
    for start in range(0, len(batch), ENCODED_ROWS):
        chunk = batch[start : start + ENCODED_ROWS].to(weights.device, weights.dtype)
        extra = {"grads": chunk.grads} if by_grads else {}
        latents = directions.encode(chunk.values, **extra)
        values.append(latents.values.detach().float().cpu())
        features.append(latents.indices.to("cpu", torch.int32))
        counts.append(latents.offsets.diff().cpu())
    value, feature, count = (torch.cat(part).numpy() for part in (values, features, counts))
    if not np.isfinite(value).all():
        raise ValueError("directions gave a code that is NaN or infinite: check its weights and the store's rows.")
    offsets = np.concatenate([[0], np.cumsum(count)])
    if not value.all():  # A fixed number of codes a row may hold zeros, which are no firing.
        kept = value != 0
        offsets = np.concatenate([[0], np.cumsum(kept)])[offsets]
        value, feature = value[kept], feature[kept]
    return Codes(value, feature, offsets, batch.example.cpu().numpy(), batch.position.cpu().numpy())
