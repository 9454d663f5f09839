"""Linear probe: multinomial logistic regression (Alain and Bengio 2017, https://arxiv.org/abs/1610.01644)."""

from collections.abc import Sequence

from saes.probes.base import Probe
from saes.probes.logistic import Fit, chosen
from saes.probes.samples import Sample

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def fit_linear(sample: Sample, *, penalties: Sequence[float] = PENALTIES, balanced: bool = False) -> Probe:
    """Fit a softmax probe to all features; the penalty is chosen on the validation rows, the test rows are not read.

    The penalty with the least cross-entropy on the validation rows is taken, and the probe then fitted on training and
    validation rows together. Features are standardised inside, so their units do not matter. Two classes are a case
    like others: their weights are opposite.

    Args:
        sample: Labelled rows, raw or latents.
        penalties: L2 penalties to choose from, on cross-entropy averaged over rows; one is taken as it is.
        balanced: Let every class count alike, rather than every row.
    """
    train, validation = sample.only("train"), sample.only("validation")
    both, classes, l2 = sample.only("train", "validation"), len(sample.classes), penalties[0]
    if len(penalties) > 1:
        held_out = (validation.codes, validation.labels)
        l2 = chosen((train.codes, train.labels), held_out, penalties, classes, balanced=balanced)
    weight, bias = Fit(both.codes, both.labels, classes, balanced=balanced).at(l2)
    return Probe(weight, bias, sample, {"probe": "linear", "l2": l2, "balanced": balanced})
