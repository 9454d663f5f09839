"""The optimizer's pass over one SAE: projection, clipping, Adam, decoder rows that stay on the unit sphere.

No number goes to the host: fused Adam reads the clipping factor, and whether the step counts at all, where they are.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

BLOCK = 1 << 19
"""Entries of a weight matrix worked on at once, so that what one operation wrote is in the cache for the next."""


def adam(sae: nn.Module, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam over all parameters; the learning rate comes with each step."""
    # Fused: one pass over the memory of weights and averages, in the weights' own strides.
    return torch.optim.Adam(sae.parameters(), lr=0.0, betas=betas, fused=True)


@torch.no_grad()
def remove_parallel(W_dec: nn.Parameter) -> None:
    """Take out of the decoder's gradient what would only change norms: rows stay on the unit sphere."""
    if W_dec.grad is None:
        return
    for grad, W in zip(_blocks(W_dec.grad), _blocks(W_dec), strict=True):
        grad.addcmul_((grad * W).sum(dim=1, keepdim=True), W, value=-1)


@torch.no_grad()
def gradient_norm(sae: nn.Module) -> Float[Tensor, ""]:
    """Norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in sae.parameters() if p.grad is not None])


@torch.no_grad()
def update(
    W_dec: nn.Parameter,
    optimizer: torch.optim.Adam,
    *,
    lr: float,
    clip: float | None,
    norm: Float[Tensor, ""],
    good: Bool[Tensor, ""],
) -> None:
    """Clip, step, put the decoder's rows back on the unit sphere, and let go of the gradients.

    Args:
        W_dec: The decoder.
        optimizer: Of all parameters.
        lr: Learning rate of this step.
        clip: Largest gradient norm; None for no clipping.
        norm: The gradients' norm.
        good: Whether the step counts; weights and averages stay as they are where it is False.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    # Fused Adam divides gradients by `grad_scale` as it reads them, and does nothing where `found_inf` is 1.
    optimizer.grad_scale = None if clip is None else (norm / clip).clamp(min=1.0).float()  # type: ignore[attr-defined]
    optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
    optimizer.step()
    for W in _blocks(W_dec):
        W.div_(torch.where(good, torch.linalg.vector_norm(W, dim=1, keepdim=True), 1.0))
    optimizer.zero_grad(set_to_none=True)


def _blocks(matrix: Tensor) -> tuple[Tensor, ...]:
    if matrix.is_cuda:
        return (matrix.detach(),)
    return matrix.detach().split(max(1, BLOCK // matrix.shape[1]))
