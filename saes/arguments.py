"""Checks of arguments that several methods take."""

import itertools
from collections.abc import Sequence


def check_k(name: str, k: int, d_sae: int) -> None:
    """Refuse a number of kept latents that cannot be.

    Raises:
        ValueError: If `k` is not in `1..d_sae`.
    """
    if not isinstance(k, int) or not 1 <= k <= d_sae:
        raise ValueError(
            f"{name} is {k!r}, but it is a whole number in 1..d_sae = {d_sae}: "
            "choose fewer latents a row or a larger d_sae."
        )


def check_prefixes(prefixes: Sequence[int] | None, d_sae: int) -> list[int] | None:
    """Prefixes as a list.

    Raises:
        ValueError: If they do not ascend from 1 or more to `d_sae`.
    """
    if prefixes is None:
        return None
    found = list(prefixes)
    if not found or found[0] < 1 or found[-1] != d_sae or any(a >= b for a, b in itertools.pairwise(found)):
        raise ValueError(
            f"prefixes is {found}, but prefixes ascend from at least 1 to d_sae = {d_sae}: for four that double, "
            f"give {[d_sae // 8, d_sae // 4, d_sae // 2, d_sae]}."
        )
    return found
