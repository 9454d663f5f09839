"""A progress bar where someone watches: tqdm on a terminal, else nothing."""

import sys
from typing import Any


class Progress:
    """Counts what is done.

    Args:
        task: What is counted, shown before the bar.
        total: How many there are; None where nobody knows.
        unit: What one of them is called.
        shown: False for never; True still needs a terminal.
    """

    def __init__(self, task: str, *, total: int | None = None, unit: str = "it", shown: bool = True) -> None:
        self._bar: Any = None
        if not shown or not sys.stderr.isatty():
            return
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            return
        self._bar = tqdm(desc=task, total=total, unit=unit, unit_scale=True)

    def update(self, n: int) -> None:
        """`n` more are done."""
        if self._bar is not None:
            self._bar.update(n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()
