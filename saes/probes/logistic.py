"""Multinomial logistic regression with an L2 penalty, by L-BFGS on all rows at once (Liu and Nocedal 1989)."""

from collections import deque
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.types import Latents
from saes.probes.base import moments, times, transposed_times

_STEPS, _PAIRS = 500, 20
_SMALL = 1e-6  # The largest entry of the gradient at which the loss counts as least.


class Fit:
    """Rows ready to be fitted, at one penalty after another.

    The loss is the cross-entropy averaged over rows plus `l2 / 2` times the squared weights of standardised features
    (mean 0, variance 1 in these rows), the bias free: so it does not depend on the units of a feature. Means are taken
    off the products, never off the codes, which stay sparse. A feature that is constant here has weight 0.

    Args:
        codes: What is read.
        labels: Class of each row.
        classes: Number of classes.
        balanced: Weigh rows so that every class counts alike, rather than every row.
    """

    def __init__(
        self, codes: Latents | Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int, *, balanced: bool = False
    ) -> None:
        self._codes = codes if isinstance(codes, Latents) else codes.double()
        self._mean, std = moments(codes)
        self._inverse = torch.where(std > 0, 1 / std, 0.0)
        counts = torch.bincount(labels, minlength=classes).double()
        row_weights = (1 / (classes * counts))[labels] if balanced else torch.full((len(labels),), 1 / len(labels))
        self._row_weights = row_weights.double()[:, None]
        self._targets = F.one_hot(labels, classes).double()
        self._found = torch.zeros(len(std) + 1, classes, dtype=torch.float64)

    def at(self, l2: float) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
        """Weight and bias at a penalty, in the units of the features; starts from the last ones found."""
        self._found = _minimised(lambda found: self._loss(found, l2), self._found)
        return self._unscaled(self._found)

    def _loss(self, found: Float[Tensor, "d_plus_1 c"], l2: float) -> tuple[float, Float[Tensor, "d_plus_1 c"]]:
        """The loss and its gradient."""
        weight, bias = self._unscaled(found)
        logs = (times(self._codes, weight) + bias).log_softmax(dim=1)
        value = -(logs * self._targets * self._row_weights).sum() + l2 / 2 * found[:-1].square().sum()
        missing = (logs.exp() - self._targets) * self._row_weights
        total = missing.sum(dim=0)
        grad = transposed_times(self._codes, missing) - self._mean[:, None] * total
        return float(value), torch.cat([grad * self._inverse[:, None] + l2 * found[:-1], total[None]])

    def _unscaled(self, found: Float[Tensor, "d_plus_1 c"]) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
        weight = found[:-1] * self._inverse[:, None]
        return weight, found[-1] - self._mean @ weight


def _minimised(loss: Callable[[Tensor], tuple[float, Tensor]], x: Tensor) -> Tensor:
    """Where a smooth convex loss, given with its gradient, is least."""
    # torch.optim.LBFGS imports torch's compiler when first called: seconds, for a probe that takes a tenth of one.
    value, grad = loss(x)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_PAIRS)
    for _ in range(_STEPS):
        if grad.abs().max() <= _SMALL:
            break
        direction = -_curved(grad.flatten(), pairs).view_as(x)
        slope = float((direction * grad).sum())
        step = 1.0 if pairs else 1 / max(1.0, float(grad.norm()))
        while (found := loss(x + step * direction))[0] > value + 1e-4 * step * slope + 1e-15 * abs(value):
            step /= 2
            if step < 1e-10:  # Rounding hides what is left to gain.
                return x
        moved, turned = (step * direction).flatten(), (found[1] - grad).flatten()
        if (along := moved.dot(turned)) > 0:
            pairs.append((moved, turned, along))
        x, value, grad = x + step * direction, *found
    return x


def _curved(grad: Float[Tensor, " q"], pairs: deque[tuple[Tensor, Tensor, Tensor]]) -> Float[Tensor, " q"]:
    """The gradient times the inverse Hessian, as steps and the gradient's changes along them tell it."""
    shares = []
    for moved, turned, along in reversed(pairs):
        shares.append(moved.dot(grad) / along)
        grad = torch.addcmul(grad, turned, shares[-1], value=-1)
    if pairs:
        _, turned, along = pairs[-1]
        grad = grad * (along / turned.dot(turned))
    for (moved, turned, along), share in zip(pairs, reversed(shares), strict=True):
        grad = torch.addcmul(grad, moved, share - turned.dot(grad) / along)
    return grad


def chosen(
    train: tuple[Latents | Float[Tensor, "n d"], Int[Tensor, " n"]],
    validation: tuple[Latents | Float[Tensor, "m d"], Int[Tensor, " m"]],
    penalties: Sequence[float],
    classes: int,
    *,
    balanced: bool = False,
) -> float:
    """The penalty, fitted on the training rows, whose cross-entropy on the validation rows is least.

    From the largest on, for as long as it falls: what comes after overfits, and takes longest to fit.
    """
    fit, (codes, labels) = Fit(*train, classes, balanced=balanced), validation
    counts = torch.bincount(labels, minlength=classes).double()
    weights = 1 / counts if balanced else torch.ones(classes, dtype=torch.float64)
    best, least = max(penalties), float("inf")
    for l2 in sorted(penalties, reverse=True):
        weight, bias = fit.at(l2)
        scores = times(codes if isinstance(codes, Latents) else codes.double(), weight) + bias
        loss = float(F.cross_entropy(scores, labels, weight=weights))
        if loss > least:
            break
        best, least = l2, loss
    return best
