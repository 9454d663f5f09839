"""Plain torch twins of the kernels that have none of the same name in `engine.sparse` and `engine.choices`.

They are the reference that the kernels are compared with, and what runs where there is no GPU.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def weight_gradients(
    grad: Float[Tensor, "p d"],
    x: Float[Tensor, "n d"],
    values: Float[Tensor, " nnz"],
    grad_pre_acts: Float[Tensor, " nnz"],
    rows: Int[Tensor, " nnz"],
    order: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " m_plus_1"],
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Gradients of decoder, encoder ([d_sae, d_in]) and encoder bias; see the kernel for the arguments."""
    rows = rows[order]

    def summed(table: Tensor, weights: Tensor) -> Tensor:
        return F.embedding_bag(
            rows % len(table), table, offsets, mode="sum", per_sample_weights=weights[order], include_last_offset=True
        )

    dec, enc = summed(grad, values), summed(x, grad_pre_acts)
    features = torch.repeat_interleave(offsets.diff(), output_size=len(order))
    bias = torch.bincount(features, weights=grad_pre_acts[order], minlength=len(dec)).to(grad.dtype)
    return dec, enc, bias


@torch.no_grad()
def adam_step(
    weights: Float[Tensor, "m d"],
    grad: Float[Tensor, "m d"],
    mean: Float[Tensor, "m d"],
    square: Float[Tensor, "m d"],
    *,
    step: Float[Tensor, ""] | int,
    lr: Float[Tensor, ""] | float,
    betas: tuple[float, float],
    eps: float = 1e-8,
    factor: Float[Tensor, ""] | None = None,
    skip: Float[Tensor, ""] | None = None,
    unit_rows: bool = False,
) -> None:
    """One step of Adam in place, with clipping and unit rows; see the kernel for the arguments."""
    if skip is not None and bool(skip):
        return
    grad = grad if factor is None else grad * factor
    done = torch.as_tensor(step, dtype=torch.float64, device=weights.device)
    correction1, correction2 = ((1 - beta**done).to(weights.dtype) for beta in betas)
    mean.lerp_(grad, 1 - betas[0])
    square.lerp_(grad * grad, 1 - betas[1])
    weights.sub_(lr / correction1 * mean / (square.sqrt() / correction2.sqrt() + eps))
    if unit_rows:
        weights.div_(weights.norm(dim=1, keepdim=True))
