"""Both weight gradients from one node of autograd, where a kernel makes them in one pass over the codes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.types import Latents
from saes.engine.kernels import availability


class Handover:
    """What lets the encode's node make W_dec's gradient along with W_enc's.

    That node gives out two tensors which no forward pass reads. A decode takes them, and its backward pass returns as
    their gradients that of the reconstruction, and the codes. So autograd carries both, orders the two nodes and keeps
    backward passes apart, also where codes were cut off or one of the nodes is not reached. It would add what two
    decodes return, so the first takes them, and every other makes a gradient of its own.

    Args:
        W_dec: The decoder; an input of the encode's node.
        parts: Supports that are stacked to that of the encode; none where there is one SAE.
    """

    def __init__(self, W_dec: Float[Tensor, "d_sae d_in"], parts: Sequence[Latents] = ()) -> None:
        self.W_dec, self.parts = W_dec, parts
        self.support: Latents | None = None
        self._given: tuple[Tensor, Tensor, Tensor | None] | None = None

    def give(self, support: Latents, recon: Tensor, codes: Tensor, rows: Tensor | None) -> None:
        """From the encode: what stands for reconstruction and codes, and the decoder rows of watched features."""
        self.support, self._given = support, (recon, codes, rows)

    def take(self, latents: Latents, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """For a decode: what was given, once, if codes and decoder are those of the encode."""
        if self.support is None or latents.indices is not self.support.indices or W_dec is not self.W_dec:
            return None
        found, self._given = self._given, None
        return found

    def stacked(self, latents: Sequence[Latents]) -> Latents | None:
        """Codes of the parts at the encode's support, sorted as it is; None for codes of anything else."""
        if self.support is None or [id(one.indices) for one in latents] != [id(one.indices) for one in self.parts]:
            return None
        return self.support.with_values(torch.cat([one.values for one in latents]))


def handover(
    W_enc: Float[Tensor, "d_in d_sae"], W_dec: Float[Tensor, "d_sae d_out"] | None, parts: Sequence[Latents] = ()
) -> Handover | None:
    """A handover, where the kernel of both gradients is wanted and can take them: decoders of another width it cannot.

    Args:
        W_enc: Encoder.
        W_dec: Decoder; None for one that is no parameter.
        parts: As in `Handover`.
    """
    if W_dec is None or W_dec.shape != W_enc.T.shape or not availability.wanted(W_dec):
        return None
    return Handover(W_dec, parts) if torch.is_grad_enabled() and W_dec.requires_grad and W_enc.requires_grad else None
