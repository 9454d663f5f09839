"""Maps of texts: tokens in reading order on a ground of their value, a block of lines for each example and map."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analyses.maps import Maps
from analyses.plots.token_lines import Piece, lines_of, visible
from analyses.plots.token_rows import TokenRow, chosen_examples, ink, token_rows

_FONT = 9
_COLUMN, _LINE = 0.602 * _FONT / 72, 1.7 * _FONT / 72  # inches; DejaVu Sans Mono is 0.602 em wide
_SCORE, _TITLE, _GAP, _LEGEND, _MARGIN = 0.17, 0.22, 0.18, 0.34, 0.15
_DPI = 110  # letters and their grounds drift apart at the 72 of notebooks
_LEGENDS = 3  # beside each other


def map_texts(
    maps: Maps, tokens: Sequence[Sequence[str]], *, examples: Sequence[int] = range(8), columns: int = 100
) -> Figure:
    """Draw the text of each of several examples once for each site, method and feature; the score above.

    A method with negative values has two colours that meet in 0, others one; each site, method and feature has one
    scale for all examples, shown at the bottom. Padding is left out.

    Args:
        maps: What `attribute` gave, of texts.
        tokens: What each token of each example shows (`pieces` of `model.tokenize`), special ones among them.
        examples: Which examples.
        columns: Characters in a line.

    Returns:
        The figure; its axes are those of the first example, then those of the next, and at last the scales; its texts
        are the scores.

    Raises:
        ValueError: If there is no such example, a map has two axes, or tokens are not those of the positions.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}, but a line has characters: give 1 or more.")
    shown = chosen_examples(maps, tokens, examples)
    rows = token_rows(maps, tokens, shown)
    laid = [lines_of(tokens[number], columns) for number in shown]
    blocks = [_SCORE + len(rows) * (_TITLE + lines * _LINE) + _GAP for _, lines in laid]
    width, height = columns * _COLUMN + 2 * _MARGIN, sum(blocks) - len(rows) // -_LEGENDS * _LEGEND + 2 * _MARGIN
    figure, top = plt.figure(figsize=(width, height), dpi=_DPI), _MARGIN
    for place, (number, (pieces, lines)) in enumerate(zip(shown, laid, strict=True)):
        score = "" if maps.scores is None else f"score {float(maps.scores[number]):.3g}"
        figure.text(_MARGIN / width, 1 - top / height, score, fontsize=_FONT, va="top")
        for k, row in enumerate(rows):
            down = top + _SCORE + k * (_TITLE + lines * _LINE) + _TITLE
            ax = _axes(figure, _MARGIN, down, columns * _COLUMN, lines * _LINE)
            ax.set(xlim=(0, columns), ylim=(lines, 0))
            ax.set_title(row.label, loc="left", fontsize=7, color="0.4", pad=2, parse_math=False)
            _draw(ax, pieces, row, row.values[place])
        top += blocks[place]
    _legends(figure, rows, top, columns * _COLUMN / _LEGENDS)
    return figure


@dataclass(frozen=True)
class Html:
    """A piece of a page, which a notebook shows.

    Args:
        text: The piece; all that comes from data is escaped.
    """

    text: str

    def _repr_html_(self) -> str:
        return self.text


def as_html(maps: Maps, tokens: Sequence[Sequence[str]], *, examples: Sequence[int] = range(8)) -> Html:
    """The same for a notebook or a page, in any script; the value of a token shows under the pointer.

    Args:
        maps: As in `map_texts`.
        tokens: As in `map_texts`.
        examples: As in `map_texts`.

    Raises:
        ValueError: As `map_texts`.
    """
    shown = chosen_examples(maps, tokens, examples)
    rows, parts = token_rows(maps, tokens, shown), []
    for place, number in enumerate(shown):
        if maps.scores is not None:
            parts.append(f'<div style="margin-top:1em">score {float(maps.scores[number]):.3g}</div>')
        for row in rows:
            spans = "".join(_span(*pair, row) for pair in zip(tokens[number], row.values[place].tolist(), strict=True))
            parts.append(f'<div style="color:#666;font-size:11px">{html.escape(row.label)}</div>')
            parts.append(f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{spans}</div>')
    for row in rows:
        ramp = ",".join(to_hex(row.palette(x)) for x in np.linspace(0, 1, 9))
        bar = f'<span style="background:linear-gradient(90deg,{ramp})">{"&nbsp;" * 12}</span>'
        about = f"{row.least:.2g} {bar} {row.most:.2g} {html.escape(row.label)}"
        parts.append(f'<div style="color:#666;font-size:11px;margin-top:.5em">{about}</div>')
    style = "font:13px/1.7 monospace;color:#222;background:#fff;max-width:100ch"
    return Html(f'<div style="{style}">{"".join(parts)}</div>')


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without a frame, placed in inches from the upper left."""
    w, h = figure.get_size_inches()
    ax = figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))
    ax.set(xticks=[], yticks=[])
    sns.despine(ax=ax, left=True, bottom=True)
    return ax


def _draw(ax: Axes, pieces: Sequence[Piece], row: TokenRow, values: NDArray[np.float32]) -> None:
    colours = row.colours(values)
    for number, column, line, width, text in pieces:
        ground = colours[number]
        ax.add_patch(Rectangle((column, line + 0.06), width, 0.88, facecolor=ground, linewidth=0))
        style: dict[str, Any] = {"fontsize": _FONT, "family": "monospace", "color": ink(ground), "parse_math": False}
        ax.text(column, line + 0.54, text, va="center_baseline", clip_on=False, **style)


def _legends(figure: Figure, rows: Sequence[TokenRow], top: float, width: float) -> None:
    for k, row in enumerate(rows):
        ax = _axes(figure, _MARGIN + k % _LEGENDS * width, top + 0.2 + k // _LEGENDS * _LEGEND, 1.1, 0.09)
        ax.imshow(np.linspace(0, 1, 64)[None], cmap=row.palette, aspect="auto", extent=(0, 1, 0, 1))
        ax.set_title(row.label, loc="left", fontsize=6, color="0.4", pad=2, parse_math=False)
        ax.text(1.05, 0.5, f"{row.least:.2g} to {row.most:.2g}", fontsize=6, color="0.4", va="center")


def _span(token: str, value: float, row: TokenRow) -> str:
    ground = row.colours(np.asarray([value], np.float32))[0]
    text = visible(token).replace("↵", "↵\n") or "·"
    style = f"background:{to_hex(ground)};color:{ink(ground)}"
    return f'<span style="{style}" title="{value:.3g}">{html.escape(text)}</span>'
