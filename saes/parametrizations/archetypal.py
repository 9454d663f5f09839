"""Relaxed archetypal dictionaries (RA-SAE: Fel et al. 2025, https://arxiv.org/abs/2502.12892)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from saes.parametrizations.base import Parametrization, generator

_PEAK = 6.0
"""Logarithm of what a row's own point weighs beside all others at the start."""


class Archetypal(Parametrization):
    """`W_dec = weights @ points + relaxation`: rows are mixtures of data, up to a distance of `delta`.

    Weights of a row are positive and sum to 1, so with `delta = 0` every row lies in the convex hull of the points.
    Points are rows of data less the decoder's bias, set by `SAE.initialise`; before that they are random directions.
    All have norm 1, since what a selection compares are codes, and those of short decoder rows are large: with points
    of their own lengths most latents on patches of images died.

    Args:
        directions: Rows that a free decoder would start from; they stand for the points until there is data.
        points: How many rows of data span the hull; None for as many as latents.
        delta: Largest distance of a row from the hull, as a part of the root mean square norm of the points.
        seed: Names which points a row starts from.

    Raises:
        ValueError: If `points` is not positive or `delta` is negative.
    """

    points: Tensor

    def __init__(
        self,
        *,
        directions: Float[Tensor, "d_sae d_out"],
        points: int | None = None,
        delta: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (points is not None and points < 1) or delta < 0:
            raise ValueError(
                f"Archetypal has points {points} and delta {delta}, but points are at least 1 and delta at least 0: "
                "choose such values."
            )
        d_sae, d_out = directions.shape
        n, self.delta = points or d_sae, delta
        drawn = generator(seed)
        start = directions if n == d_sae else torch.randn(n, d_out, generator=drawn) / d_out**0.5
        self.register_buffer("points", start.clone())
        # Each row starts near one point, each point near the start of as many rows, so that no two rows start alike.
        nearest = torch.arange(d_sae) % n
        logits = torch.randn(d_sae, n, generator=drawn)
        logits[torch.arange(d_sae), nearest] += _PEAK + torch.log(torch.tensor(float(n)))
        self.logits = nn.Parameter(logits)
        self.relaxation = nn.Parameter(torch.zeros(d_sae, d_out))

    def forward(self) -> Float[Tensor, "d_sae d_out"]:
        """Mixtures of the points, moved by at most `delta` of their size."""
        reach = self.delta * self.points.square().sum(dim=1).mean().sqrt()
        norms = self.relaxation.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return self.logits.softmax(dim=1) @ self.points + self.relaxation * (reach / norms).clamp(max=1.0)

    @torch.no_grad()
    def start_at(self, rows: Float[Tensor, "n d_out"]) -> None:
        """Span the hull by the directions of rows of data.

        Raises:
            ValueError: If there are fewer rows than points.
        """
        if len(rows) < len(self.points):
            raise ValueError(
                f"rows are {len(rows)}, but {len(self.points)} points span the hull: give more rows, or fewer points."
            )
        self.points.copy_(F.normalize(rows[: len(self.points)], dim=1))
