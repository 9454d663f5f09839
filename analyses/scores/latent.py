"""A feature of a dictionary, or a class of a probe, at a site: what any direction sees in an example."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.scores.base import Pass, Score
from interp.types import Directions, Site


@dataclass(frozen=True, eq=False)
class Latent(Score):
    """The code of one feature, gathered over the positions of each example.

    Args:
        directions: A dictionary, a probe or any other directions; its site is where it is read.
        feature: Which of its features.
        over: The sum of the codes over positions, their mean or their maximum; or one position, prefix tokens counted.
        site: Where it is read instead.
        linear: Read the inner product with the feature's encoder direction, its bias added, rather than its code. This
            has a gradient also where a feature is silent.

    Raises:
        ValueError: If there is no such feature, or no site; `linear` where encoding is not.
    """

    directions: Directions
    feature: int
    over: Literal["sum", "mean", "max"] | int = "max"
    site: str | Site | None = None
    linear: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.feature < self.directions.d_sae:
            raise ValueError(
                f"feature is {self.feature}, but the dictionary has {self.directions.d_sae}: "
                f"choose from 0..{self.directions.d_sae - 1}."
            )
        if self.site is None and self.directions.site is None:
            raise ValueError("site is None, and the directions do not know theirs: give site=.")
        if self.linear and self.directions.W_enc is None:
            raise ValueError("linear is True, but these directions have no W_enc: leave linear= out.")

    @property
    def sites(self) -> tuple[str | Site, ...]:
        """Where it is read."""
        return (self.site or self.directions.site,)  # type: ignore[return-value]

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The codes."""
        (site,) = run.values
        rows, mask = run.rows(site)
        if rows.shape[-1] != self.directions.d_in:
            raise ValueError(
                f"{site} holds vectors of width {rows.shape[-1]}, but the directions read {self.directions.d_in}: give "
                "the site that they were made for."
            )
        codes = self._codes(rows.flatten(0, 1)).view(rows.shape[:2])
        return _gathered(codes, mask, self.over)

    def _codes(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        rows = rows.to(self.directions.W_dec)
        feature = torch.tensor([self.feature], device=rows.device)
        if self.linear:
            return pre_acts(self.directions, rows, feature)[:, 0]
        return self.directions.encode(rows).columns(feature)[:, 0]


def pre_acts(directions: Directions, rows: Float[Tensor, "n d"], features: Int[Tensor, " f"]) -> Float[Tensor, "n f"]:
    """What features read before anything is selected: an SAE's pre-activations, a probe's scores."""
    own = getattr(directions, "pre_acts", None)
    if own is not None:
        return own(rows, features)
    assert directions.W_enc is not None
    bias = getattr(directions, "b_enc", getattr(directions, "bias", None))
    read = rows @ directions.W_enc[:, features].detach()
    return read if bias is None else read + bias[features].detach()


def _gathered(
    codes: Float[Tensor, "b p"], mask: Bool[Tensor, "b p"] | None, over: Literal["sum", "mean", "max"] | int
) -> Float[Tensor, " b"]:
    if isinstance(over, int):
        return codes[:, over]
    kept = torch.ones_like(codes, dtype=torch.bool) if mask is None else mask
    if over == "max":
        return codes.masked_fill(~kept, -torch.inf).amax(dim=1)
    total = codes.masked_fill(~kept, 0).sum(dim=1)
    return total if over == "sum" else total / kept.sum(dim=1).clamp(min=1)
