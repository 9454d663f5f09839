"""What the examples of a stream are made from: read from the dataset when asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from interp.harvest_dataset import Raw, Source
from interp.types import Item


class SourceItems(Sequence[Item]):
    """The items of a dataset.

    Args:
        source: The dataset.
        read: Makes items of what it gives.
    """

    def __init__(self, source: Source, read: Callable[[list[Raw]], list[Item]]) -> None:
        self._source, self._read = source, read

    def __len__(self) -> int:
        if self._source.length is None:
            raise ValueError(
                "the dataset does not tell how many items it has: ask for items by number, or give one with a length."
            )
        return self._source.length

    def __iter__(self) -> Iterator[Item]:
        return (self._read([raw])[0] for raw in self._source.read(0))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        raw = next(self._source.read(number), None) if number >= 0 else None
        if raw is None:
            raise IndexError(f"item is {index}, but the dataset has no such item.")
        return self._read([raw])[0]
