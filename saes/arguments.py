"""Checks of arguments that several methods take."""


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


def check_rate(name: str, rate: float) -> None:
    """Refuse a weight of new batches in a running mean that cannot be.

    Raises:
        ValueError: If `rate` is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"{name} is {rate}, but a rate is in (0, 1]: 0.1 follows about 10 batches.")
