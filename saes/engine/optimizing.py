"""The optimizer's pass over one SAE: Adam, clipping, decoder rows that stay on the unit sphere."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def adam(sae: nn.Module, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """Adam over all parameters; the learning rate comes with each step."""
    # Fused: one pass over the memory of weights and averages, in the weights' own strides.
    return torch.optim.Adam(sae.parameters(), lr=0.0, betas=betas, fused=True)


@torch.no_grad()
def remove_parallel(W_dec: nn.Parameter) -> None:
    """Take out of the decoder's gradient what would only change norms: rows stay on the unit sphere."""
    if W_dec.grad is not None:
        W_dec.grad.addcmul_((W_dec.grad * W_dec).sum(dim=1, keepdim=True), W_dec, value=-1)


def gradient_norm(sae: nn.Module) -> Float[Tensor, ""]:
    """Norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in sae.parameters() if p.grad is not None])


@torch.no_grad()
def update(
    sae: nn.Module,
    W_dec: nn.Parameter,
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    clip: float | None,
    norm: Float[Tensor, ""],
) -> None:
    """Clip, step, and put the decoder's rows back on the unit sphere.

    Args:
        sae: Whose parameters have gradients.
        W_dec: Its decoder.
        optimizer: Its optimizer.
        lr: Learning rate of this step.
        clip: Largest gradient norm; None for no clipping.
        norm: The gradients' norm.
    """
    if clip is not None:
        torch.nn.utils.clip_grads_with_norm_(sae.parameters(), clip, norm)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    W_dec.div_(W_dec.norm(dim=1, keepdim=True))
