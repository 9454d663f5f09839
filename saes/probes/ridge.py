"""Ridge probe: least squares to one-hot targets, in closed form (Hoerl and Kennard 1970)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.types import Latents
from saes.probes.base import Probe
from saes.probes.samples import Sample

PENALTIES = tuple(10.0**power for power in range(-8, 3))
_ROWS = 2048


class Gram:
    """Inner products of features, a constant and targets, summed over rows in float64: all that ridge regression needs.

    Args:
        d: Features.
        classes: Number of classes.
    """

    def __init__(self, d: int, classes: int) -> None:
        self.sums = torch.zeros(d + 1 + classes, d + 1 + classes, dtype=torch.float64)
        self.d = d

    def add(self, codes: Latents | Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> "Gram":
        """Add rows, a few thousand of them dense at a time."""
        for start in range(0, len(labels), _ROWS):
            part = codes[start : start + _ROWS]
            x = (part.dense() if isinstance(part, Latents) else part).double()
            targets = F.one_hot(labels[start : start + _ROWS], len(self.sums) - self.d - 1).double()
            rows = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64), targets], dim=1)
            self.sums.addmm_(rows.T, rows)
        return self

    def __add__(self, other: "Gram") -> "Gram":
        """Of the rows of both."""
        both = Gram(self.d, len(self.sums) - self.d - 1)
        both.sums = self.sums + other.sums
        return both

    def fits(self, penalties: Sequence[float]) -> list[Float[Tensor, "d_plus_1 c"]]:
        """Weights, with the bias as last row, at each penalty; from one eigendecomposition.

        The loss is the squared error averaged over rows plus the penalty times the squared weights of standardised
        features, the bias free. A feature that is constant has weight 0.
        """
        n, mean = self.sums[self.d, self.d], self.sums[self.d] / self.sums[self.d, self.d]
        centred = self.sums / n - mean[:, None] * mean
        variance = centred.diagonal()[: self.d]
        # What is left of a constant feature is rounding.
        inverse = torch.where(variance > 1e-12 * mean[: self.d].square(), variance.clamp(min=1e-300).rsqrt(), 0.0)
        values, vectors = torch.linalg.eigh(centred[: self.d, : self.d] * inverse[:, None] * inverse)
        rotated = vectors.T @ (centred[: self.d, self.d + 1 :] * inverse[:, None])
        found = []
        for l2 in penalties:
            weight = vectors @ (rotated / (values.clamp(min=0) + l2)[:, None]) * inverse[:, None]
            found.append(torch.cat([weight, (mean[self.d + 1 :] - mean[: self.d] @ weight)[None]]))
        return found

    def error(self, weight: Float[Tensor, "d_plus_1 c"]) -> float:
        """Squared error on these rows, averaged over them."""
        both = torch.cat([weight, -torch.eye(weight.shape[1], dtype=torch.float64)])
        return float((both * (self.sums @ both)).sum() / self.sums[self.d, self.d])


def fit_ridge(sample: Sample, *, penalties: Sequence[float] = PENALTIES) -> Probe:
    """Fit a linear map to one-hot targets; the penalty is chosen on the validation rows, the test rows are not read.

    The penalty with the least squared error on the validation rows is taken, and the map then fitted on training and
    validation rows together. Holds a matrix of width squared and takes time with its cube: 0.2 s at 400 features,
    a minute at 6,000.

    Args:
        sample: Labelled rows, raw or latents.
        penalties: To choose from.
    """
    classes = len(sample.classes)
    parts = [sample.only("train"), sample.only("validation")]
    train, validation = (Gram(sample.width, classes).add(part.codes, part.labels) for part in parts)
    errors = [validation.error(weight) for weight in train.fits(penalties)]
    l2 = penalties[errors.index(min(errors))]
    weight = (train + validation).fits([l2])[0]
    return Probe(weight[:-1], weight[-1], sample, {"probe": "ridge", "l2": l2})
