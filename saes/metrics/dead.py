"""Dead: features that never fire."""

from jaxtyping import Int
from torch import Tensor

from saes.metrics.base import FeatureMetric


class Dead(FeatureMetric):
    """Fraction of the features that fire in none of the evaluated rows.

    It falls as rows are added, so it means nothing without their number, which the evaluation states. It has no
    interval: a resample can only lose features, never find one, so a bootstrap would be biased to one side.
    """

    name = "dead"

    def value(self, counts: Int[Tensor, " d_sae"]) -> float:
        """Fraction of zeros."""
        return float((counts == 0).double().mean())
