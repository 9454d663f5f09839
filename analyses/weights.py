"""Other weights for a while."""

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


@contextlib.contextmanager
def replaced(others: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Other weights for as long as the block lasts. The old ones are set aside, not copied, so they come back as they
    were, whatever happens.

    Args:
        others: What takes the place of each weight.
    """
    old = {weight: weight.data for weight in others}
    try:
        for weight, value in others.items():
            weight.data = value
        yield
    finally:
        for weight, value in old.items():
            weight.data = value
