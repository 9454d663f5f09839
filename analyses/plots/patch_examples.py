"""Where features of a vision model fire: their strongest examples, patches coloured over the pictures."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analyses.dictionary.bundle import FeatureDictionary

_OPACITY = 0.75


def patch_examples(
    bundle: FeatureDictionary, features: Sequence[int], *, examples: int = 6, kind: str = "top"
) -> Figure:
    """Draw a row of pictures for each feature, with one colour scale a feature.

    Args:
        bundle: A dictionary of a model of images.
        features: Features, a row each.
        examples: Pictures a row.
        kind: Which examples: `top`, `quantile` or `random`.

    Returns:
        The figure; its axes are in rows of `examples`, and a bar of the scale ends each row.

    Raises:
        ValueError: If the bundle has no grid, a feature or kind does not exist, or nothing is asked for.
    """
    if len(bundle.manifest["geometry"]["grid"]) != 2:
        raise ValueError("bundle has no grid of patches: draw what fires on texts with export_page.")
    wrong = [feature for feature in features if not 0 <= feature < len(bundle)]
    if not len(features) or wrong or examples < 1:
        raise ValueError(f"features is {features}, but it takes one or more of 0 to {len(bundle) - 1}: choose some.")
    if kind not in ("top", "quantile", "random"):
        raise ValueError(f"kind is {kind!r}, but examples are 'top', 'quantile' or 'random': choose one.")
    figure, rows = plt.subplots(
        len(features),
        examples,
        figsize=(1.25 * examples + 0.7, 1.45 * len(features)),
        squeeze=False,
        layout="constrained",
    )
    labels = bundle.features()["label"]
    for feature, row in zip(features, rows, strict=True):
        shown = [example for example in bundle.feature(feature) if example["bin"] == kind][:examples]
        norm = Normalize(0, max((float(example["scale"]) * 255 for example in shown), default=1.0))
        for ax, example in zip(row, shown, strict=False):
            _draw(ax, bundle, example, norm)
        for ax in row[len(shown) :]:
            ax.axis("off")
        name = labels[feature] if isinstance(labels[feature], str) else ""
        row[0].set_title(f"feature {feature}  {name}".rstrip().replace("$", r"\$"), fontsize=9, loc="left")
        scale = plt.cm.ScalarMappable(norm, sns.color_palette("rocket", as_cmap=True))
        bar = figure.colorbar(scale, ax=list(row), fraction=0.02, pad=0.01, aspect=12)
        bar.ax.tick_params(labelsize=7)
    return figure


def _draw(ax: Axes, bundle: FeatureDictionary, example: dict, norm: Normalize) -> None:
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[])
    sns.despine(ax=ax, left=True, bottom=True)
    heat = heat_of(bundle, example)
    rows, columns = heat.shape
    if example["item"] in bundle.sheets.boxes:
        ax.imshow(bundle.sheets.image(example["item"]), cmap="gray", extent=(0, columns, rows, 0), vmin=0, vmax=255)
    opacity = np.where(heat != 0, _OPACITY, 0.0)
    ax.imshow(
        heat, cmap=sns.color_palette("rocket", as_cmap=True), norm=norm, alpha=opacity, extent=(0, columns, rows, 0)
    )
    ax.set_xlabel(f"{example['activation']:.3g}", fontsize=8, labelpad=2)


def heat_of(bundle: FeatureDictionary, example: dict) -> NDArray[np.float32]:
    """Activations of an example on its grid, in units of the model.

    Args:
        bundle: The dictionary.
        example: One of `bundle.feature(...)`.
    """
    geometry, zero = bundle.manifest["geometry"], bundle.manifest["heat"]["zero"]
    steps = np.asarray(example["window"], np.float32)[geometry["prefix"] :] - zero
    return (steps * np.float32(example["scale"])).reshape(geometry["grid"])
