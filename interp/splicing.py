"""A model that runs on an SAE's reconstruction of a site, with the latents at hand."""

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from interp.capturing import edited
from interp.edits import Edit, Positions, Rows
from interp.models.base import Model
from interp.types import Activations, Directions, Inputs, Latents, Site


class Spliced:
    """What stood at the site in the last run.

    Gradients are taken at `latents.values` and at `recon` by `torch.autograd.grad`, or read from their `.grad` after
    `backward`.
    """

    def __init__(self) -> None:
        self._last: tuple[Activations, Latents, Tensor] | None = None

    def _needed(self) -> tuple[Activations, Latents, Tensor]:
        if self._last is None:
            raise ValueError(
                "nothing was spliced yet: run the model inside the block, on positions that are replaced, "
                "and then ask for latents."
            )
        return self._last

    @property
    def rows(self) -> Activations:
        """The activations that were replaced, with the example and position of each row; cut from autograd."""
        return self._needed()[0]

    @property
    def latents(self) -> Latents:
        """Their codes, a row each."""
        return self._needed()[1]

    @property
    def recon(self) -> Float[Tensor, "n d_in"]:
        """Their reconstruction."""
        return self._needed()[2]


@contextlib.contextmanager
def spliced(
    model: Model,
    site: str | Site,
    directions: Directions,
    *,
    error: bool = False,
    positions: Positions | None = None,
    inputs: Inputs | None = None,
) -> Iterator[Spliced]:
    """Replace activations by their reconstruction for as long as the block lasts.

    Gradients flow through the latents, to the dictionary's parameters and to what came before the site. Where none of
    these asks for a gradient, the latents do, so that what a score owes to each can always be read.

    Args:
        model: The model.
        site: Where.
        directions: The dictionary.
        error: Add what the reconstruction lacks, held fixed: the forward pass is the model's own to the bit, and
            gradients still flow through the latents alone.
        positions: Positions to replace, as in `interp.editing.replace`; the others stay clean.
        inputs: As in `edited`.

    Raises:
        ValueError: If the site is unknown, or has another width than the dictionary.
    """
    last = Spliced()

    def change(rows: Rows) -> Tensor:
        for width in (directions.d_in, directions.W_dec.shape[1]):
            rows.need_width("directions", width)
        latents = directions.encode(rows.values.to(directions.W_dec))
        if torch.is_grad_enabled():
            if not latents.values.requires_grad:
                latents = latents.with_values(latents.values.detach().requires_grad_())
            latents.values.retain_grad()
        recon = directions.decode(latents)
        if recon.requires_grad:
            recon.retain_grad()
        last._last = (Activations(rows.values.detach(), rows.example, rows.position), latents, recon)
        # Zero in value: x - recon + recon would differ from x in the last bits.
        return rows.values.detach() + (recon - recon.detach()).to(rows.values) if error else recon.to(rows.values)

    with edited(model, {site: Edit(change, positions)}, inputs=inputs):
        yield last
