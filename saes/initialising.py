"""Where an SAE starts: at rows of the data, at its centre, with an encoder that fits its decoder."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import ActivationStore
from saes import normalising
from saes.base import SAE

Centre = Literal["mean", "geometric_median", "zero"]
Decoder = Literal["data", "random"]
Encoder = Literal["tied", "kaiming"]


@torch.no_grad()
def initialise(
    sae: SAE,
    store: ActivationStore,
    *,
    centre: Centre = "geometric_median",
    decoder: Decoder = "data",
    encoder: Encoder = "tied",
    seed: int = 0,
) -> None:
    """Give a fresh SAE its first weights from rows of a store; it is in the store's units then.

    Args:
        sae: What is to be trained; changed in place.
        store: The activations it will be trained on.
        centre: Where `b_dec` (and a transcoder's `b_in`) start: the mean, the geometric median, which few extreme rows
            do not move, or 0, which training takes for none and starts at the mean.
        decoder: Directions of the latents: rows of the data less the centre, at norm 1, or the random ones it has. A
            parametrization may take them otherwise.
        encoder: `tied` to the decoder (of a transcoder: to the same rows' inputs), or `kaiming`: uniform, of variance
            `1 / (3 d_in)`.
        seed: Names the rows and what is drawn.

    Raises:
        ValueError: If the store has fewer rows than are needed, or its rows do not vary.
    """
    rows = _rows(store, max(sae.d_sae, 4096), seed, needed=sae.d_sae if decoder == "data" else 1)
    x, y = rows
    sae.b_in.copy_(_centre(x, centre))
    if sae.b_in is not sae.b_dec:
        sae.b_dec.copy_(_centre(y, centre))
    inputs, outputs = x - sae.b_in, y - sae.b_dec
    if sae.parametrization is not None:
        sae.parametrization.start_at(outputs)
    elif decoder == "data" and sae.unit_rows is not None:
        sae.unit_rows.copy_(torch.nn.functional.normalize(outputs[: sae.d_sae], dim=1))
    if sae.W_enc is not None:
        sae.W_enc.copy_(_encoder(sae, inputs, encoder, decoder, seed).T)
    # What the constructor gives in units of training (thresholds) comes into the store's, as all else now is.
    units = normalising.estimate(store, "scale", seed=seed)
    sae.rescale_latents(units.out)


def _rows(store: ActivationStore, n: int, seed: int, *, needed: int) -> tuple[Tensor, Tensor]:
    """Shuffled rows and their targets, which are themselves for an autoencoder."""
    batch = next(iter(store.batches(min(n, len(store)), seed=seed)))
    if len(batch) < needed:
        raise ValueError(
            f"store has {len(store)} rows, but {needed} latents start at as many: give more rows, or decoder='random'."
        )
    x = batch.values.float()
    return x, x if batch.target is None else batch.target.float()


def _centre(rows: Float[Tensor, "n d"], how: Centre) -> Float[Tensor, " d"]:
    if how == "zero":
        return rows.new_zeros(rows.shape[1])
    return rows.mean(dim=0) if how == "mean" else geometric_median(rows)


def geometric_median(rows: Float[Tensor, "n d"], steps: int = 100, tolerance: float = 1e-6) -> Float[Tensor, " d"]:
    """The point with the smallest sum of distances to all rows (Weiszfeld 1937).

    Args:
        rows: Points.
        steps: Iterations at most.
        tolerance: Part of the mean distance below which a move ends the iterations.
    """
    found = rows.mean(dim=0)
    for _ in range(steps):
        distances = (rows - found).norm(dim=1)
        # A row that is the median itself would weigh infinitely much.
        weights = 1 / distances.clamp(min=1e-6 * distances.mean() + torch.finfo(rows.dtype).tiny)
        moved = (weights @ rows) / weights.sum()
        if float((moved - found).norm()) <= tolerance * float(distances.mean()):
            return moved
        found = moved
    return found


def _encoder(sae: SAE, inputs: Tensor, how: Encoder, decoder: Decoder, seed: int) -> Float[Tensor, "d_sae d_in"]:
    if how == "kaiming":
        draw = torch.Generator().manual_seed(seed)
        return (torch.rand(sae.d_sae, sae.d_in, generator=draw) * 2 - 1) / sae.d_in**0.5
    if sae.axes["d_out"] is None:
        # A row of a parametrization has a length of its own: its code is the projection in units of that.
        return sae.W_dec / sae.W_dec.square().sum(dim=1, keepdim=True) if sae.unit_rows is None else sae.unit_rows
    tied = inputs[: sae.d_sae] if decoder == "data" else sae.W_enc.T
    return torch.nn.functional.normalize(tied, dim=1)
