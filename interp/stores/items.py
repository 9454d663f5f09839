"""What examples were made from, on disk: any item by its number, no table in memory."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from interp.types import Item


def pack_items(items: Sequence[Item]) -> dict[str, Tensor]:
    """Items as tensors: values one after another, and where each item's begin."""
    labels = [json.dumps(dict(item.labels), sort_keys=True).encode() if item.labels else b"" for item in items]
    pieces = [piece.encode("utf-8", "surrogatepass") for item in items for piece in item.pieces]
    packed = {
        "labels": _bytes(labels),
        "label_offsets": _offsets([len(label) for label in labels]),
        "pieces": _bytes(pieces),
        "piece_offsets": _offsets([len(piece) for piece in pieces]),
        "item_pieces": _offsets([len(item.pieces) for item in items]),
    }
    if any(item.tokens is not None for item in items):
        tokens = [torch.zeros(0, dtype=torch.int32) if item.tokens is None else item.tokens.int() for item in items]
        packed |= {"tokens": torch.cat(tokens), "token_offsets": _offsets([len(part) for part in tokens])}
    if any(item.image is not None for item in items):
        images = [torch.zeros(0, 0, 0, dtype=torch.uint8) if item.image is None else item.image for item in items]
        packed |= {
            "images": torch.cat([image.flatten() for image in images]),
            "image_offsets": _offsets([image.numel() for image in images]),
            "image_shapes": torch.tensor([image.shape for image in images]),
        }
    return packed


def unpack_item(packed: dict[str, Tensor], index: int) -> Item:
    """One item of a packed run."""
    low, high = _range(packed["item_pieces"], index)
    ends = packed["piece_offsets"][low : high + 1].tolist()
    text = bytes(packed["pieces"][ends[0] : ends[-1]].numpy())
    pieces = tuple(
        text[a - ends[0] : b - ends[0]].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(ends)
    )
    tokens = None
    if "tokens" in packed:
        tokens = packed["tokens"][slice(*_range(packed["token_offsets"], index))].long()
    label = bytes(packed["labels"][slice(*_range(packed["label_offsets"], index))].numpy())
    image = None
    if "images" in packed and packed["image_shapes"][index].all():
        pixels = packed["images"][slice(*_range(packed["image_offsets"], index))]
        image = pixels.view(*packed["image_shapes"][index].tolist())
    return Item(tokens, pieces, json.loads(label) if label else {}, image)


class ItemRuns(Sequence[Item]):
    """Items in several runs, numbered on; a subclass gives `item`.

    Args:
        counts: Items in each run.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._starts = np.cumsum([0, *counts])

    def item(self, run: int, index: int) -> Item:
        """One item of one run."""
        raise NotImplementedError

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"item is {index}, but the store holds items 0 to {len(self) - 1}.")
        run = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self.item(run, number - int(self._starts[run]))


class ItemTable(ItemRuns):
    """The items of all shards, read when asked for.

    Args:
        counts: Items in each shard.
        load: Gives the packed tensors of a shard.
    """

    def __init__(self, counts: Sequence[int], load: Callable[[int], dict[str, Tensor]]) -> None:
        super().__init__(counts)
        self._load = load

    def item(self, run: int, index: int) -> Item:
        """One item of one shard."""
        return unpack_item(self._load(run), index)


def _range(offsets: Int[Tensor, " n_plus_1"], index: int) -> tuple[int, int]:
    return int(offsets[index]), int(offsets[index + 1])


def _offsets(lengths: Sequence[int]) -> Int[Tensor, " n_plus_1"]:
    return torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int64))


def _bytes(parts: Sequence[bytes]) -> UInt8[Tensor, " n"]:
    return torch.from_numpy(np.frombuffer(b"".join(parts), np.uint8).copy())
