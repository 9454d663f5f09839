"""Figures as the bytes of a file: equal figures, equal bytes."""

import io
import warnings

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def png(figure: Figure, *, dpi: int = 150) -> bytes:
    """Draw a figure as a PNG and close it.

    A character that no font has is drawn as a box, in silence.

    Args:
        figure: The figure.
        dpi: Pixels an inch.
    """
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(held, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)
    return held.getvalue()
