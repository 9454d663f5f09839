import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from analyses.plots.pareto import pareto
from saes.evaluation import Evaluation
from saes.metrics.bootstrap import Interval


def _evaluation(l0: float, fvu: float, arm: float | None = 0.5) -> Evaluation:
    interval = Interval(float(l0)) if arm is None else Interval(float(l0), l0 - arm, l0 + 2 * arm)
    return Evaluation({"l0": interval, "fvu": Interval(float(fvu))}, 10, 2, torch.zeros(4), "blocks.1", "f")


def test_points_of_a_family_are_joined_in_order_and_bear_their_intervals():
    given = Figure().add_subplot()
    found = {"topk-16": _evaluation(16, 0.1), "topk-8": _evaluation(8, 0.2), "nested": _evaluation(12, 0.3, None)}
    ax = pareto(found, ax=given)
    assert ax is given
    (first, second) = ax.containers
    np.testing.assert_array_equal(first.lines[0].get_xydata(), [[8, 0.2], [16, 0.1]])
    np.testing.assert_array_equal(second.lines[0].get_xydata(), [[12, 0.3]])
    across = [segment[:, 0].tolist() for segment in first.lines[2][0].get_segments()]
    assert across == [[7.5, 9.0], [15.5, 17.0]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["topk", "nested"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("l0", "fvu")


def test_refuses_nothing_and_unknown_metrics():
    with pytest.raises(ValueError, match="evaluations is empty"):
        pareto({})
    with pytest.raises(ValueError, match="evaluation 'a' has no metric 'loss': it has l0, fvu"):
        pareto({"a": _evaluation(1, 1)}, y="loss")
