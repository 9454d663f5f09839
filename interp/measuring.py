"""How maps lie in images, as one forward pass shows it."""

from collections.abc import Sequence
from typing import Literal

from interp.capturing import capture
from interp.models.base import Model
from interp.types import Geometry, Inputs, Site


def measure(
    model: Model, inputs: Inputs, sites: Sequence[str | Site], *, channels: Literal["first", "last"] = "first"
) -> dict[str, Geometry]:
    """Measure the geometry of maps for inputs of one size: `TorchModel(net, geometry=measure(TorchModel(net), ...))`.

    The stride is the input's size over the grid's, and unknown where that leaves a rest: the grid is taken to tile the
    input, patch beside patch. Convolutions without padding trim the edges, and padded ones of a stride move the centres
    to the patches' corners: what `stride` and `start` then are must be declared.

    Args:
        model: A model of which the geometry of these sites is not declared.
        inputs: A batch with one tensor `[b, d, *size]` of images or volumes.
        sites: Places with a map, `[b, d, *grid]` or `[b, *grid, d]`.
        channels: Where the channels of these maps are.

    Returns:
        The geometry of each site, by its canonical string.

    Raises:
        ValueError: If the inputs hold no image, or a site has no map.
    """
    sizes = [tuple(tensor.shape[2:]) for tensor in inputs.tensors.values() if tensor.ndim > 3]
    if not sizes:
        raise ValueError("inputs hold no tensor [b, d, *size] of images or volumes: declare geometry= instead.")
    size, found = sizes[0], {}
    for site, values in capture(model, inputs, sites).values.items():
        grid = tuple(values.shape[2:] if channels == "first" else values.shape[1:-1])
        if len(grid) != len(size):
            raise ValueError(
                f"{site} holds a tensor of shape {tuple(values.shape)}, which is no map of inputs of size {size}: "
                "leave it out, or declare its geometry."
            )
        ratios = [divmod(along, steps) for along, steps in zip(size, grid, strict=True)]
        stride = tuple(ratio for ratio, _ in ratios) if not any(rest for _, rest in ratios) else ()
        found[str(site)] = Geometry("grid", grid, stride=stride, patch=stride, input_size=size, channels=channels)
    return found
