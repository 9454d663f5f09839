"""What features of a dictionary read at each position: the heat that their maps are laid beside."""

from collections.abc import Sequence

import torch

from analyses.layers import layers
from analyses.maps import Maps
from analyses.passes import Examples
from analyses.through import fits
from interp.capturing import capture
from interp.models.base import Model
from interp.types import Directions, Inputs, Site

HEAT = "heat"


def heat(
    model: Model,
    inputs: Inputs,
    directions: Directions,
    features: Sequence[int],
    *,
    site: str | Site | None = None,
    batch_size: int = 32,
) -> Maps:
    """The codes of some features at each position, in the form of maps of the method `heat`.

    Args:
        model: The model.
        inputs: The examples.
        directions: The dictionary, or any other directions.
        features: Which of its features.
        site: Where; by default where the directions were made.
        batch_size: Examples that run at once.

    Returns:
        Maps of features, `[b, f, *grid]`, in units of the codes; padded positions are 0.

    Raises:
        ValueError: If no site is known, there is no such feature, or widths differ.
    """
    where = site or directions.site
    if where is None:
        raise ValueError("site is None, and the directions do not know theirs: give site=.")
    wrong = [feature for feature in features if not 0 <= feature < directions.d_sae]
    if wrong or not features:
        raise ValueError(
            f"features are {list(features)}, but the dictionary has {directions.d_sae}: choose from "
            f"0..{directions.d_sae - 1}."
        )
    place, columns = model.site(where), torch.tensor(list(features))
    key, values, geometry = (str(place), HEAT), None, model.geometry(model.site(where), inputs)
    for chunk in Examples.all(inputs).chunks(batch_size):
        found = capture(model, chunk.inputs, place)
        for layer in layers(found, place):
            flat = layer.acts.flatten(0, -2).to(directions.W_dec)
            fits(directions, place, flat.shape[1])
            codes = directions.encode(flat).detach().columns(columns.to(flat.device))
            maps = codes.view(*layer.acts.shape[:-1], len(features)).movedim(-1, 1)
            values = maps.new_zeros(len(inputs), len(features), *layer.shape) if values is None else values
            layer.spread(maps, values, chunk.numbers[layer.examples])
    assert values is not None
    return Maps({key: values}, None, {str(place): geometry}, inputs.mask, tuple(features))
