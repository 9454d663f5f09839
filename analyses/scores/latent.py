"""A feature of a dictionary, or a class of a probe, at a site: what any direction sees in an example."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.scores.base import Pass, Score
from interp.types import Directions, Site

_ONE = "one position an example, or one for all"


@dataclass(frozen=True, eq=False)
class Latent(Score):
    """The code of one feature, gathered over the positions of each example.

    Args:
        directions: A dictionary, a probe or any other directions; its site is where it is read.
        feature: Which of its features; one an example, or one for all.
        over: The sum of the codes over positions, their mean or their maximum; or a position, one an example or one for
            all, prefix tokens counted.
        site: Where it is read instead.
        linear: Read the inner product with the feature's encoder direction, its bias added, rather than its code. This
            has a gradient also where a feature is silent.

    Raises:
        ValueError: If there is no such feature, or no site; `linear` where encoding is not.
    """

    directions: Directions
    feature: int | Int[Tensor, " n"]
    over: Literal["sum", "mean", "max"] | int | Int[Tensor, " n"] = "max"
    site: str | Site | None = None
    linear: bool = False

    def __post_init__(self) -> None:
        features = torch.as_tensor(self.feature)
        if (features < 0).any() or (features >= self.directions.d_sae).any():
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
        """The codes.

        Raises:
            ValueError: If the site has another width, or there are not as many features or positions as examples.
        """
        (site,) = run.values
        rows, mask = run.rows(site)
        if rows.shape[-1] != self.directions.d_in:
            raise ValueError(
                f"{site} holds vectors of width {rows.shape[-1]}, but the directions read {self.directions.d_in}: give "
                "the site that they were made for."
            )
        over = self.over
        if not isinstance(over, str):
            at = torch.full((len(rows),), over) if isinstance(over, int) else run.own("over", over, _ONE)
            rows, mask, over = _read_at(rows, mask, at.to(rows.device), site), None, "max"
        return _gathered(self._codes(rows, self._features(run)), mask, over)

    def _features(self, run: Pass) -> Int[Tensor, " f"]:
        """The feature of all examples, or that of each."""
        if isinstance(self.feature, Tensor):
            return run.own("feature", self.feature, "one feature an example, or one for all")
        return torch.tensor([self.feature])

    def _codes(self, rows: Float[Tensor, "b p d"], features: Int[Tensor, " f"]) -> Float[Tensor, "b p"]:
        rows = rows.to(self.directions.W_dec)
        wanted, which = torch.unique(features.to(rows.device), return_inverse=True)
        flat = rows.flatten(0, 1)
        codes = pre_acts(self.directions, flat, wanted) if self.linear else self.directions.encode(flat).columns(wanted)
        own = which.expand(len(rows))[:, None, None].expand(*rows.shape[:2], 1)
        return codes.unflatten(0, rows.shape[:2]).gather(2, own)[:, :, 0]


def pre_acts(directions: Directions, rows: Float[Tensor, "n d"], features: Int[Tensor, " f"]) -> Float[Tensor, "n f"]:
    """What features read before anything is selected: an SAE's pre-activations, a probe's scores."""
    own = getattr(directions, "pre_acts", None)
    if own is not None:
        return own(rows, features)
    assert directions.W_enc is not None
    bias = getattr(directions, "b_enc", getattr(directions, "bias", None))
    read = rows @ directions.W_enc[:, features].detach()
    return read if bias is None else read + bias[features].detach()


def _read_at(
    rows: Float[Tensor, "b p d"], mask: Bool[Tensor, "b p"] | None, at: Int[Tensor, " b"], site: Site
) -> Float[Tensor, "b 1 d"]:
    """One position of each example; negative ones count from the end of the tensor."""
    p, each = rows.shape[1], torch.arange(len(rows), device=rows.device)
    at = torch.where(at < 0, at + p, at)
    inside = (at >= 0) & (at < p)
    held = inside if mask is None else inside & mask[each, at.clamp(0, p - 1)]
    if not bool(held.all()):
        raise ValueError(
            f"over is {at.tolist()}, but {site} has {p} positions, and some of these examples hold no data there: give "
            "positions that they have."
        )
    return rows[each, at][:, None]


def _gathered(
    codes: Float[Tensor, "b p"], mask: Bool[Tensor, "b p"] | None, over: Literal["sum", "mean", "max"]
) -> Float[Tensor, " b"]:
    kept = torch.ones_like(codes, dtype=torch.bool) if mask is None else mask
    if over == "max":
        return codes.masked_fill(~kept, -torch.inf).amax(dim=1)
    total = codes.masked_fill(~kept, 0).sum(dim=1)
    return total if over == "sum" else total / kept.sum(dim=1).clamp(min=1)
