"""A feature's map beside its heat: where it fires, and where that comes from."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from analyses.maps import Maps
from analyses.plots.map_matrix import map_examples


def map_beside_heat(
    maps: Maps,
    heat: Maps,
    pictures: Float[Tensor, "b c h w"] | None = None,
    *,
    examples: Sequence[int] = range(8),
    smooth: bool = True,
) -> Figure:
    """Draw one column an example: the feature's codes at its own site first, then each map of its score below.

    Args:
        maps: What `attribute` gave for the score of one feature (`analyses.scores.latent.Latent`).
        heat: What `analyses.heat.heat` gave for that feature, of the same examples.
        pictures: As in `analyses.plots.map_matrix.map_matrix`.
        examples: Which examples.
        smooth: As there.

    Returns:
        The figure; its axes are in rows.

    Raises:
        ValueError: If the heat is of several features, or of other examples.
    """
    if maps.features is not None or heat.features is None or len(heat.features) != 1 or len(heat) != len(maps):
        raise ValueError(
            f"heat is of features {heat.features} and {len(heat)} examples, and maps of {maps.features or 'a score'} "
            f"and {len(maps)}, but one feature's heat stands beside maps of its score on the same examples: give such."
        )
    own = {key: values[:, 0] for key, values in heat.values.items()}
    merged = replace(maps, values=own | dict(maps.values), geometries={**heat.geometries, **maps.geometries})
    return map_examples(merged, pictures, examples=examples, smooth=smooth)
