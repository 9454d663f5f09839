"""Encoders that know the true dictionary and are trained on nothing: what inference could reach."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from quality_worlds import HELD_OUT, Ground
from torch import Tensor

from interp.types import Directions, Latents, Site


class Told:
    """The true dictionary with an encoder of its own.

    Args:
        ground: The world.
        encoder: Codes of rows from which the world's constant offset was taken.
    """

    signed, trainable = True, False
    site: Site | None = None
    labels: Mapping[int, str] = {}
    provenance: Mapping[str, Any] = {}
    W_enc = None

    def __init__(self, ground: Ground, encoder: Callable[[Tensor], Tensor]) -> None:
        self.W_dec, self.b_dec = ground.world.features, ground.world.origin
        self.d_sae, self.d_in = self.W_dec.shape
        self._encoder = encoder

    def encode(self, x: Float[Tensor, "n d_in"]) -> Latents:
        return Latents.from_dense(self._encoder(x - self.b_dec))

    def decode(self, latents: Latents) -> Float[Tensor, "n d_in"]:
        return latents.dense() @ self.W_dec + self.b_dec


def pursuit(ground: Ground, k: int) -> Directions:
    """Orthogonal matching pursuit with k steps a row (Pati et al. 1993)."""
    return Told(ground, lambda x: _pursue(x, ground.world.features, k, 0.0))


def pursuit_to_noise(ground: Ground, k: int) -> Directions:
    """The same until a row's residual is what the noise leaves."""
    tolerance = 1.3 * ground.world.noise * ground.world.d_in**0.5
    return Told(ground, lambda x: _pursue(x, ground.world.features, 5 * k, tolerance))


def support(ground: Ground, k: int) -> Directions:
    """The features that do fire, by least squares; it is given the held-out rows in order."""
    _, codes = ground.world.sample(HELD_OUT, offset=len(ground.rows))
    fires, seen = codes.dense() != 0, 0

    def encoder(x: Tensor) -> Tensor:
        nonlocal seen
        part = fires[seen : seen + len(x)]
        seen = (seen + len(x)) % HELD_OUT
        most = int(part.sum(1).max())
        chosen = part.float().topk(most, dim=1)
        return _fit(x, ground.world.features, chosen.indices, chosen.values > 0)

    return Told(ground, encoder)


ENCODERS: dict[str, Callable[[Ground, int], Directions]] = {
    "support": support,
    "pursuit": pursuit,
    "pursuit-to-noise": pursuit_to_noise,
}


def _pursue(x: Float[Tensor, "n d"], W: Float[Tensor, "m d"], k: int, tolerance: float) -> Float[Tensor, "n m"]:
    chosen = torch.zeros(len(x), 0, dtype=torch.long)
    taken = torch.zeros(len(x), 0, dtype=torch.bool)
    codes = torch.zeros(len(x), len(W))
    for _ in range(k):
        residual = x - codes @ W
        going = residual.norm(dim=1) > tolerance
        if not going.any():
            break
        scores = (residual @ W.T).abs().scatter(1, chosen, -1.0)
        chosen = torch.cat([chosen, scores.argmax(1, keepdim=True)], dim=1)
        taken = torch.cat([taken, going[:, None]], dim=1)
        codes = _fit(x, W, chosen, taken)
    return codes


def _fit(
    x: Float[Tensor, "n d"], W: Float[Tensor, "m d"], chosen: Int[Tensor, "n s"], taken: Bool[Tensor, "n s"]
) -> Float[Tensor, "n m"]:
    """Least squares on the chosen rows of W that are taken."""
    atoms = (W[chosen] * taken[..., None]).double()
    # What is not taken gets the equation code = 0; a grain of ridge for rows that need each other.
    gram = atoms @ atoms.mT + torch.diag_embed((~taken).double() + 1e-9)
    values = torch.linalg.solve(gram, atoms @ x.double()[..., None])[..., 0] * taken
    return torch.zeros(len(x), len(W)).scatter_add_(1, chosen, values.float())
