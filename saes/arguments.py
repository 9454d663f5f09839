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
