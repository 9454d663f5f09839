"""Maps beside the place where the object is."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.faithfulness.base import Case


def beside_truth(case: Case) -> tuple[Float[Tensor, "b p"], Bool[Tensor, "b p"]]:
    """Maps and truth, one position after the other.

    Raises:
        ValueError: If there is no truth, it has other positions than the maps, or an example has none.
    """
    if case.truth is None:
        raise ValueError("truth is None, but this judge compares maps with where the object is: give truth=.")
    maps, truth = case.shown, case.truth.to(torch.bool)
    if truth.shape != maps.shape:
        raise ValueError(
            f"truth has shape {list(truth.shape)}, but maps of the input {list(maps.shape)}: give one mask an example, "
            "in positions of what the model is given."
        )
    empty = (~truth.flatten(1).any(dim=1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"truth of examples {empty[:8]} has no position at all: leave these examples out.")
    return maps.flatten(1), truth.flatten(1).to(maps.device)
