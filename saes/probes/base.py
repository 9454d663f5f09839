"""What every probe is: directions that tell classes apart, one a class, made from a labelled sample."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.types import JSON, Latents
from saes.metrics.bootstrap import Interval, bootstrap
from saes.probes.samples import Part, Sample


class Probe:
    """A linear map from rows, or from the latents of other directions, to one score a class.

    It is `Directions` itself: `encode` gives the scores as codes, one a class, and `labels` names the classes. The row
    of `W_dec` is the direction of the class's weights at unit length (through the decoder, where latents are read), the
    one to steer along or to compare latents with; `decode` is no reconstruction.

    Args:
        weight: What each feature adds to the score of each class.
        bias: What each class starts from.
        sample: What it was fitted on.
        about: How it was fitted, in plain JSON values.
    """

    signed = True
    trainable = False

    def __init__(
        self, weight: Float[Tensor, "d c"], bias: Float[Tensor, " c"], sample: Sample, about: JSON | None = None
    ) -> None:
        self.weight, self.bias, self.inner = weight.float(), bias.float(), sample.directions
        self.d_in = sample.width if self.inner is None else self.inner.d_in
        self.d_sae = len(sample.classes)
        self.site = sample.site
        self.labels: Mapping[int, str] = dict(enumerate(sample.classes))
        self.provenance: JSON = {**sample.provenance, "classes": list(sample.classes), **(about or {})}
        read = self.weight.T if self.inner is None else self.weight.T @ self.inner.W_dec.detach().float().cpu()
        self._W_dec = F.normalize(read, dim=1)

    @property
    def W_dec(self) -> Float[Tensor, "c d_in"]:
        """The direction of each class."""
        return self._W_dec

    @property
    def W_enc(self) -> Float[Tensor, "d_in c"] | None:
        """The weights, where the probe reads rows; None where it reads latents."""
        return self.weight if self.inner is None else None

    def encode(self, x: Float[Tensor, "n d_in"]) -> Latents:
        """Scores of rows: logits, or what ridge regression predicts for one-hot targets."""
        with torch.set_grad_enabled(x.requires_grad and torch.is_grad_enabled()):
            codes = x if self.inner is None else self.inner.encode(x)
            return Latents.from_dense(times(codes, self.weight) + self.bias)

    def decode(self, latents: Latents) -> Float[Tensor, "n d_in"]:
        """Scores times the directions."""
        return times(latents, self.W_dec)

    def scores(self, sample: Sample) -> Float[Tensor, "n c"]:
        """Scores of a sample's rows."""
        return times(sample.codes, self.weight) + self.bias

    def accuracy(self, sample: Sample, part: Part = "test", *, resamples: int = 1000, seed: int = 0) -> Interval:
        """Share of rows whose class has the highest score, with an interval over examples."""
        rows = sample.only(part)
        right = (self.scores(rows).argmax(dim=1) == rows.labels).double()
        return bootstrap(
            by_example(torch.stack([right, torch.ones_like(right)], dim=1), rows.example),
            lambda totals: totals[..., 0] / totals[..., 1],
            resamples=resamples,
            seed=seed,
        )


def by_example(statistics: Float[Tensor, "n q"], example: Int[Tensor, " n"]) -> Float[Tensor, "e q"]:
    """Statistics of rows, summed by example."""
    found, of = torch.unique(example, return_inverse=True)
    return statistics.new_zeros(len(found), statistics.shape[1]).index_add_(0, of, statistics)


def times(codes: Latents | Float[Tensor, "n d"], weight: Float[Tensor, "d c"]) -> Float[Tensor, "n c"]:
    """Codes times a matrix, as exact as the matrix is; sparse codes stay sparse."""
    if isinstance(codes, Tensor):
        return codes.to(weight) @ weight
    values = codes.values.to(weight)
    indices, offsets = codes.indices.to(weight.device), codes.offsets[:-1].to(weight.device)
    return F.embedding_bag(indices, weight, offsets, mode="sum", per_sample_weights=values)


def transposed_times(codes: Latents | Float[Tensor, "n d"], rows: Float[Tensor, "n c"]) -> Float[Tensor, "d c"]:
    """Transposed codes times a matrix, likewise."""
    if isinstance(codes, Tensor):
        return (rows.T @ codes.to(rows)).T  # A seventh of the time of codes.T @ rows, where the columns are few.
    by = codes.by_feature
    values = codes.values.detach()[by.order].to(rows)
    return F.embedding_bag(by.rows, rows, by.offsets[:-1], mode="sum", per_sample_weights=values)


def moments(codes: Latents | Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation of each feature, in float64."""
    squares = codes.with_values(codes.values.double().square()) if isinstance(codes, Latents) else codes.double() ** 2
    share = torch.full((len(codes), 1), 1 / len(codes), dtype=torch.float64)
    mean = transposed_times(codes, share)[:, 0]
    variance = transposed_times(squares, share)[:, 0] - mean.square()
    # What is left of a constant feature is rounding.
    return mean, torch.where(variance > 1e-12 * mean.square(), variance, 0.0).clamp(min=0).sqrt()
