"""Tokens in lines: each in visible characters, cut and wrapped at a width."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """A token, or a part of one, where it stands.

    Attributes:
        token: Its number in the text.
        column: Where it begins.
        line: In which line.
        width: Columns that it takes.
        text: What is printed.
    """

    token: int
    column: int
    line: int
    width: int
    text: str


def lines_of(tokens: Sequence[str], columns: int) -> tuple[list[Piece], int]:
    """Lay tokens out from left to right, on a new line after a line break and where one is full.

    Args:
        tokens: What each shows, white space kept.
        columns: Characters in a line.

    Returns:
        The pieces, and how many lines there are.
    """
    pieces, column, line = [], 0, 0
    for number, token in enumerate(tokens):
        for text in _cut(visible(token), columns):
            width = _width(text)
            if column and column + width > columns:
                column, line = 0, line + 1
            pieces.append(Piece(number, column, line, width, text))
            column += width
            if text.endswith("↵"):
                column = columns  # what comes next begins a line
    return pieces, line + 1


def visible(token: str) -> str:
    """A token in characters that can be seen: line breaks as ↵, tabs as →, other control characters as a dot."""
    return "".join(_SHOWN.get(c) or ("·" if unicodedata.category(c) in _UNSEEN else c) for c in token)


_SHOWN, _UNSEEN = {"\n": "↵", "\t": "→"}, ("Cc", "Cs", "Cn", "Co")


def _cut(text: str, columns: int) -> list[str]:
    """Parts of what is printed: after line breaks, and where it is longer than a line."""
    parts = [""]
    for character in text:
        if parts[-1].endswith("↵") or (parts[-1] and _width(parts[-1] + character) > columns):
            parts.append("")
        parts[-1] += character
    return parts


def _width(text: str) -> int:
    """Columns; at least one, so that the ground of a token that shows nothing can be seen."""
    wide = sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text if not unicodedata.combining(c))
    return max(wide, 1)
