import pytest
import torch

from saes.engine.choices import (
    above,
    feature_budgets,
    feature_top_k,
    largest,
    row_borders,
    row_top_k,
    top_columns,
    top_rows,
)
from saes.engine.selection import Candidates, Context

CONTEXT = Context(training=True, n=100, start=40)
SHAPES = [(3, 5, 2), (4, 16, 1), (7, 64, 32), (5, 64, 64), (9, 128, 4), (6, 1024, 8), (2, 2048, 32), (3, 4096, 5)]


@pytest.mark.parametrize(("n", "m", "k"), [*SHAPES, (1, 1000, 7), (1, 1, 1), (0, 512, 4), (11, 24_576, 32)])
@pytest.mark.parametrize("form", ["rows", "columns"])
def test_the_largest_of_rows_and_columns_are_those_of_topk(n: int, m: int, k: int, form: str) -> None:
    scores = torch.randn(n, m, generator=torch.Generator().manual_seed(m))
    values, indices = top_rows(scores, k) if form == "rows" else top_columns(scores.T.contiguous(), k)
    expected = scores.topk(k, dim=1)
    assert torch.equal(values.sort(dim=1, descending=True).values, expected.values)
    assert torch.equal(indices.sort(dim=1).values, expected.indices.sort(dim=1).values)
    assert torch.equal(scores.gather(1, indices), values)


@pytest.mark.parametrize(("n", "m", "k"), SHAPES)
@pytest.mark.parametrize("form", ["rows", "columns"])
def test_with_ties_they_are_distinct_entries_with_the_largest_values(n: int, m: int, k: int, form: str) -> None:
    scores = torch.randint(3, (n, m), generator=torch.Generator().manual_seed(k)).float()
    values, indices = top_rows(scores, k) if form == "rows" else top_columns(scores.T.contiguous(), k)
    assert torch.equal(values.sort(dim=1, descending=True).values, scores.topk(k, dim=1).values)
    assert torch.equal(scores.gather(1, indices), values)
    assert all(len(row.unique()) == k for row in indices)


@pytest.mark.parametrize("n", [8, 64, 4096, 1, 7, 30, 1001])
@pytest.mark.parametrize("per_feature", [False, True])
def test_above_is_nonzero(n: int, per_feature: bool) -> None:
    draw = torch.Generator().manual_seed(n)
    pre_acts = torch.randn(13, n, generator=draw).round(decimals=1)  # Some entries equal the bound: they are left out.
    bound = torch.randn(60, generator=draw) if per_feature else 0.5
    found = above(pre_acts, bound, CONTEXT)
    features, rows = (pre_acts > (bound[40:53, None] if per_feature else bound)).nonzero(as_tuple=True)
    assert torch.equal(found.rows, rows)
    assert torch.equal(found.indices, features + 40)
    assert torch.equal(found.values, pre_acts[features, rows])


@pytest.mark.parametrize("n", [0, 16, 17])
def test_above_of_nothing(n: int) -> None:
    assert above(torch.zeros(0, n), 0.0, CONTEXT).values.numel() == 0
    assert above(-torch.ones(3, n), 0.0, CONTEXT).values.numel() == 0


def test_row_top_k_numbers_rows_and_orders_features() -> None:
    found = row_top_k(torch.tensor([[3.0, -1.0, 4.0], [-1.0, 0.0, 5.0]]).T.contiguous(), 2, CONTEXT)
    assert found.rows.tolist() == [40, 40, 41, 41]
    assert found.indices.tolist() == [0, 2, 1, 2]
    assert found.values.tolist() == [3.0, 4.0, 0.0, 5.0]


def test_scores_rank_and_values_are_the_pre_activations() -> None:
    scores = torch.tensor([[0.0], [5.0], [1.0]])
    found = row_top_k(torch.tensor([[3.0], [-1.0], [2.0]]), 2, CONTEXT, scores)
    assert found.indices.tolist() == [1, 2]
    assert found.values.tolist() == [-1.0, 2.0]


def test_feature_top_k_is_topk_of_each_feature() -> None:
    pre_acts = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))  # 20 features in 33 rows
    found = feature_top_k(pre_acts, 4, CONTEXT)
    assert torch.equal(found.indices, torch.arange(40, 60).repeat_interleave(4))
    assert torch.equal(found.rows.view(20, 4), pre_acts.topk(4, dim=1).indices.sort(dim=1).values)
    assert torch.equal(found.values, pre_acts[found.indices - 40, found.rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("budgets", ["alike", "nearly alike", "by rank", "none"])
def test_feature_budgets_keep_the_largest_positive_of_each_feature(budgets: str, dtype: torch.dtype) -> None:
    scores = torch.randn(20, 33, generator=torch.Generator().manual_seed(0)).to(dtype)  # 20 features in 33 rows
    own = {
        "alike": torch.full((20,), 4),
        "nearly alike": 4 + torch.arange(20) % 2,
        "by rank": (33 / torch.arange(1, 21)).long() * (torch.arange(20) != 7),
        "none": torch.zeros(20, dtype=torch.long),
    }[budgets]
    found = feature_budgets(scores, own, CONTEXT)
    pairs = []
    for feature, budget in enumerate(own.tolist()):
        rows = scores[feature].sort(descending=True).indices[:budget]
        pairs += [(feature + 40, int(row)) for row in rows.sort().values if scores[feature, row] > 0]
    assert list(zip(found.indices.tolist(), found.rows.tolist(), strict=True)) == pairs
    assert torch.equal(found.values, scores[found.indices - 40, found.rows])


@pytest.mark.parametrize("k", [1, 7, 30])
def test_row_borders_are_the_kth_largest(k: int) -> None:
    scores = torch.randn(9, 30, generator=torch.Generator().manual_seed(k))
    assert torch.equal(row_borders(scores, k).squeeze(1), scores.sort(dim=1, descending=True).values[:, k - 1])


@pytest.mark.parametrize(
    ("values", "budget", "kept"),
    [
        ([1.0, 3.0, 2.0], 2, [1, 2]),
        ([1.0, 1.0, 2.0], 2, [0, 2]),  # The first two reach the border value, but the last is larger.
        ([1.0, 1.0, 1.0], 2, [0, 1]),
        ([1.0, 2.0], 5, [0, 1]),
        ([], 0, []),
    ],
)
def test_largest(values: list[float], budget: int, kept: list[int]) -> None:
    n = torch.arange(len(values))
    assert largest(Candidates(n, n, torch.tensor(values)), budget).rows.tolist() == kept
