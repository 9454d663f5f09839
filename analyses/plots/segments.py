"""Pictures with the objects that were found in them: a colour and a box each."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from analyses.segmenting import Segments

_OPACITY = 0.5


def segment_examples(
    segments: Segments,
    pictures: Float[Tensor, "b c h w"] | None = None,
    *,
    examples: Sequence[int] = range(8),
    columns: int = 8,
    boxes: bool = True,
) -> Figure:
    """Draw one picture for each of several examples. The first object has the same colour in all of them, and so on.

    Args:
        segments: What `segment` gave.
        pictures: What the model saw (`inputs.tensors["pixel_values"]`), drawn in grey beneath; None for masks alone.
        examples: Which examples.
        columns: Pictures in a row.
        boxes: Draw the box around each object too.

    Returns:
        The figure; its axes are in rows.

    Raises:
        ValueError: If there is no such example, or masks have no two axes.
    """
    shown = [number for number in examples if number < len(segments)] if isinstance(examples, range) else list(examples)
    if not shown or columns < 1 or not all(0 <= number < len(segments) for number in shown):
        raise ValueError(
            f"examples are {shown} in {columns} columns, but segments are of 0 to {len(segments) - 1}: choose of these."
        )
    if segments.masks.ndim != 4:
        raise ValueError(
            f"masks of {segments.site} have {segments.masks.ndim - 2} axes, but a picture has two: read those of "
            "texts from masks, or choose a slice of a volume."
        )
    grown = segments.geometry.stride and segments.geometry.input_size
    objects = segments.upsampled() if grown else segments
    masks, edges = objects.masks.cpu().numpy(), objects.boxes.cpu().numpy()
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    size = (1.5 * columns + 0.4, 1.5 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    for number, ax in zip(shown, axes.flat, strict=False):
        _draw(ax, masks[number], edges[number] if boxes else None, None if pictures is None else pictures[number])
    return figure


def _draw(ax: Axes, masks: np.ndarray, boxes: np.ndarray | None, picture: Tensor | None) -> None:
    """One picture; an edge of the colour of its object stands for a box."""
    h, w = masks.shape[1:]
    ax.set(xticks=[], yticks=[], xlim=(0, w), ylim=(h, 0), aspect="equal")
    sns.despine(ax=ax, left=True, bottom=True)
    if picture is not None:
        ax.imshow(picture.detach().cpu().float().mean(dim=0).numpy(), cmap="gray", extent=(0, w, h, 0))
    for k, (mask, colour) in enumerate(zip(masks, sns.color_palette("colorblind", len(masks)), strict=True)):
        painted = np.zeros((h, w, 4))
        painted[mask] = (*colour, _OPACITY)
        ax.imshow(painted, extent=(0, w, h, 0), interpolation="nearest")
        if boxes is not None and mask.any():
            left, top, right, bottom = boxes[k].tolist()
            ax.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.5)
            )
