"""What a harvest would cost, measured on its first examples."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from interp.harvest_dataset import Raw, Source
from interp.harvest_policy import Policy, Tally
from interp.harvest_rows import Block, RowReader

_SAMPLE = 64
_WARM_UP = 4
_ADDRESS_BYTES = 8


@dataclass(frozen=True)
class Plan:
    """An estimate, from the first examples of the dataset.

    Args:
        rows: Rows that would be stored; None where the dataset does not tell its length and no `max_tokens` ends it.
        bytes: What they take on the disk.
        minutes: How long the forward passes take on this machine.
        examples: Examples that were run to find out.
    """

    rows: int | None
    bytes: int | None
    minutes: float | None
    examples: int

    def __str__(self) -> str:
        if self.rows is None or self.bytes is None or self.minutes is None:
            return f"unknown: the dataset does not tell its length ({self.examples} examples ran); give max_tokens"
        return (
            f"{self.rows:,} rows, {self.bytes / 1e9:.2f} GB, {self.minutes:.1f} minutes (from {self.examples} examples)"
        )


def estimated(source: Source, reader: RowReader, policy: Policy) -> Plan:
    """Run the first examples and scale up; nothing is written.

    Raises:
        ValueError: If the first examples give no row.
    """
    raws = list(itertools.islice(source.read(0), min(_SAMPLE, policy.chunk_examples)))
    reader.read(reader.prepare(raws[:_WARM_UP]), Tally())
    tally, start = Tally(), time.perf_counter()
    block = reader.read(reader.prepare(raws), tally)
    minutes = (time.perf_counter() - start) / 60
    if not len(block):
        raise ValueError(f"the first {len(raws)} examples give no row: check the dataset, exclude and first.")
    by_length = None if source.length is None else source.length / len(raws)
    by_tokens = None if policy.max_tokens is None else policy.max_tokens / tally.tokens
    scales = [scale for scale in (by_length, by_tokens) if scale is not None]
    if not scales:
        return Plan(None, None, None, len(raws))
    scale = min(scales)
    return Plan(round(len(block) * scale), round(_bytes(block, raws) * scale), minutes * scale, len(raws))


def _bytes(block: Block, raws: Sequence[Raw]) -> int:
    """Vectors, addresses, thumbnails, and four bytes a token with the texts themselves."""
    vectors = [part for rows in block.rows.values() for part in (rows.values, rows.grads) if part is not None]
    tokens = sum(len(item.tokens) for item in block.items if item.tokens is not None)
    texts = sum(len(raw.content.encode()) for raw in raws if isinstance(raw.content, str))
    thumbnails = sum(item.image.numel() for item in block.items if item.image is not None)
    rows = sum(part.numel() * part.element_size() for part in vectors) + len(block) * _ADDRESS_BYTES
    return rows + 12 * tokens + texts + thumbnails
