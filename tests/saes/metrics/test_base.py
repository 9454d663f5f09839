from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from saes.metrics.base import Findings, metrics
from saes.metrics.bootstrap import Interval


@dataclass(frozen=True)
class Found(Findings):
    share: float
    auroc: Mapping[int, Interval]
    per_class: Mapping[int, Mapping[str, float]]
    counts: Mapping[int, int]
    pairs: tuple[tuple[float, float], ...]
    bare: Interval
    rows: torch.Tensor = field(repr=False)


def test_findings_print_a_line_a_number():
    auroc = {1: Interval(0.61234, 0.5, 0.7), 16: Interval(0.8)}
    per_class = {1: {"a": 0.5, "b": 0.123456}, 16: {}}
    found = Found(1 / 3, auroc, per_class, {7: 2, 3: 1}, ((0.5, 0.25), (1.0, 0.0)), Interval(2.0), torch.zeros(9))
    assert str(found).split("\n") == [
        "share      0.3333",
        "auroc      1: 0.6123 [0.5, 0.7]",
        "           16: 0.8",
        "per_class  1: a 0.5, b 0.1235",
        "           16:",
        "counts     7 2, 3 1",
        "pairs      (0.5, 0.25), (1, 0)",
        "bare       2",
    ]


def test_every_metric_of_the_folder_is_found_once():
    names = [metric.name for metric in metrics()]
    assert names == sorted(set(names))
    assert {"fvu", "l0", "density", "dead", "shrinkage", "loss_recovered", "embedding_cosine"} <= set(names)
