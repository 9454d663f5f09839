"""The optimizer's pass over one SAE: projection, clipping, Adam, decoder rows that stay on the unit sphere.

No number goes to the host: Adam reads the clipping factor, and whether the step counts at all, where they are.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim.adam import adam

from saes.engine.kernels import availability

BLOCK = 1 << 19
"""Entries of a weight matrix worked on at once, so that what one operation wrote is in the cache for the next."""


class Adam:
    """Adam over all parameters of one SAE (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    torch's fused step, on memory in its own order: it would copy a transposed encoder there and back, 3 % of a step. A
    kernel, where one is wanted, takes the matrices.

    Args:
        sae: Whose parameters.
        betas: Decay of the running averages of gradients and of their squares.
    """

    def __init__(self, sae: nn.Module, betas: tuple[float, float]) -> None:
        self.betas = betas
        self.rate: Tensor | None = None
        """Read instead of the learning rate that a step is given: a graph's steps are all given the same."""
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        for parameter in sae.parameters():
            averages = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **averages}

    @torch.no_grad()
    def step(
        self,
        lr: float,
        *,
        divide: Float[Tensor, ""] | None = None,
        skip: Float[Tensor, ""] | None = None,
        unit: nn.Parameter | None = None,
    ) -> None:
        """Move the parameters that have a gradient, and let go of the gradients.

        Args:
            lr: Learning rate.
            divide: What gradients are divided by as they are read.
            skip: 1 leaves everything as it is.
            unit: A matrix whose rows are put back on the unit sphere.
        """
        rate = lr if self.rate is None else self.rate
        given = [p for p in self.state if p.grad is not None]
        matrices = {p for p in given if p.ndim == 2 and availability.wanted(p)}
        self._by_torch([p for p in given if p not in matrices], rate, divide, skip)
        for p in matrices:
            self._by_kernel(p, rate, divide, skip, unit_rows=p is unit)
        if unit is not None and unit not in matrices:
            for W in _blocks(unit):
                norms = torch.linalg.vector_norm(W, dim=1, keepdim=True)
                W.div_(norms if skip is None else torch.where(skip > 0, 1.0, norms))
        for p in self.state:
            p.grad = None

    def _by_torch(
        self, moved: list[nn.Parameter], lr: float | Tensor, divide: Tensor | None, skip: Tensor | None
    ) -> None:
        states = [self.state[p] for p in moved]
        adam(
            [_in_order_of(p, p) for p in moved],
            [_in_order_of(p, p.grad) for p in moved if p.grad is not None],
            [_in_order_of(p, state["exp_avg"]) for p, state in zip(moved, states, strict=True)],
            [_in_order_of(p, state["exp_avg_sq"]) for p, state in zip(moved, states, strict=True)],
            [],
            [state["step"] for state in states],
            fused=True,
            grad_scale=divide,
            found_inf=skip,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def _by_kernel(
        self, p: nn.Parameter, lr: float | Tensor, divide: Tensor | None, skip: Tensor | None, unit_rows: bool
    ) -> None:
        from saes.engine.kernels.adam import adam_step

        assert p.grad is not None
        state = self.state[p]
        state["step"] += 1 if skip is None else 1 - skip
        adam_step(
            *(_in_order_of(p, part.detach()) for part in (p, p.grad, state["exp_avg"], state["exp_avg_sq"])),
            step=state["step"],
            lr=lr,
            betas=self.betas,
            factor=None if divide is None else divide.reciprocal(),
            skip=skip,
            unit_rows=unit_rows,
        )


@torch.no_grad()
def remove_parallel(W_dec: nn.Parameter | None) -> None:
    """Take out of a decoder's gradient what would only change norms, where there is one whose rows stay at norm 1."""
    if W_dec is None or W_dec.grad is None:
        return
    for grad, W in zip(_blocks(W_dec.grad), _blocks(W_dec), strict=True):
        grad.addcmul_((grad * W).sum(dim=1, keepdim=True), W, value=-1)


@torch.no_grad()
def gradient_norm(sae: nn.Module) -> Float[Tensor, ""]:
    """Norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in sae.parameters() if p.grad is not None])


@torch.no_grad()
def update(
    W_dec: nn.Parameter | None,
    optimizer: Adam,
    *,
    lr: float,
    clip: float | None,
    norm: Float[Tensor, ""],
    good: Bool[Tensor, ""],
) -> None:
    """Clip, step, and put the decoder's rows back on the unit sphere.

    Args:
        W_dec: The decoder, where its rows stay at norm 1; else None.
        optimizer: Of all parameters.
        lr: Learning rate of this step.
        clip: Largest gradient norm; None for no clipping.
        norm: The gradients' norm.
        good: Whether the step counts; weights and averages stay as they are where it is False.
    """
    divide = None if clip is None else (norm / clip).clamp(min=1.0).float()
    optimizer.step(lr, divide=divide, skip=(~good).float(), unit=W_dec)


def _in_order_of(parameter: Tensor, matrix: Tensor) -> Tensor:
    return matrix if parameter.is_contiguous() else matrix.T


def _blocks(matrix: Tensor) -> tuple[Tensor, ...]:
    if matrix.is_cuda:
        return (matrix.detach(),)
    return matrix.detach().split(max(1, BLOCK // matrix.shape[1]))
