"""What reading has told of a dataset that is streamed: how many rows each half-window gives, and where a pass ends."""

from typing import Protocol, runtime_checkable

from interp.stores.stream_mixing import stage_rows
from interp.types import JSON

NO_ROWS = (
    "dataset gave no rows: it is empty, or exclude, first and max_norm_ratio left out all positions: check the text "
    "column and these arguments."
)


@runtime_checkable
class Streamed(Protocol):
    """A store that makes its rows while it is read; only reading tells how many there are.

    A trainer keeps `state` in its checkpoints, so that a resumed run need not read again what it has trained on.
    """

    def state(self, rows: int) -> JSON:
        """What reading the first `rows` shuffled rows has told, in plain values: a function of `rows` and the data."""
        ...

    def restore(self, state: JSON) -> None:
        """Take over what an earlier process was told."""
        ...


class Extent:
    """Rows and hash of each half-window, as far as one pass over the dataset has been read.

    Half-windows are counted on through all passes; those of later passes give the rows of the first.
    """

    def __init__(self) -> None:
        self._known: list[tuple[int, str]] = []
        self._whole = False

    @property
    def length(self) -> int | None:
        """Half-windows of a pass; None until one was read to its end."""
        return len(self._known) if self._whole else None

    @property
    def rows(self) -> int | None:
        """Rows of a pass; None until one was read to its end."""
        return sum(rows for rows, _ in self._known) if self._whole else None

    def rows_of(self, window: int) -> int | None:
        """Rows of a half-window; None where it was not read."""
        place = window % len(self._known) if self._whole else window
        return self._known[place][0] if place < len(self._known) else None

    def note(self, place: int, rows: int, digest: str) -> None:
        """The half-window at a place of a pass was read.

        Raises:
            ValueError: If it gave other rows before.
        """
        if place == len(self._known) and not self._whole:
            self._known.append((rows, digest))
        if place >= len(self._known) or self._known[place] != (rows, digest):
            raise ValueError(
                f"half-window {place} of the dataset is not what it was when it was read before: a stream needs the "
                "same items in the same order each time; store what the dataset draws at random, or harvest it."
            )

    def end(self, places: int) -> None:
        """A pass ended after so many half-windows.

        Raises:
            ValueError: If it gave no row, or ended elsewhere before.
        """
        if places != len(self._known):
            raise ValueError(
                f"the dataset ended after {places} half-windows, but gave {len(self._known)} before: a stream needs "
                "the same items in the same order each time."
            )
        if not any(rows for rows, _ in self._known):
            raise ValueError(NO_ROWS)
        self._whole = True

    def stage(self, row: int, *, mixing: bool) -> tuple[int, int]:
        """The last stage known to begin at or before a row, and the row where it begins.

        Args:
            row: Counted from the start of the stream.
            mixing: Whether stages mix two half-windows; else each is one.
        """
        window, start, earlier = 0, 0, 0
        while (later := self.rows_of(window)) is not None:
            end = start + (stage_rows(earlier, later) if mixing else later)
            if end > row:
                break
            window, start, earlier = window + 1, end, later
        return window, start

    def to_json(self, rows: int) -> JSON:
        """What the first rows of a mixed stream told; not what was read ahead, which is a matter of speed."""
        window, _ = self.stage(max(rows - 1, 0), mixing=True)
        known = self._known[: window + 1] if rows else []
        return {"half_windows": [list(half) for half in known], "whole": self._whole and window >= len(self._known)}

    def from_json(self, state: JSON) -> None:
        """Inverse of `to_json`."""
        self._known = [(int(rows), str(digest)) for rows, digest in state["half_windows"]]
        self._whole = bool(state["whole"])
