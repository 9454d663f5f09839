import pytest
import torch
from torch import Tensor

SHAPES = [(1, 1, 1), (3, 5, 2), (2, 37, 3), (2, 64, 64), (1, 300, 7), (2, 129, 16), (1, 1030, 32)]


def _check(scores: Tensor, k: int, found: tuple[Tensor, Tensor]) -> None:
    values, indices = found
    assert values.dtype == scores.dtype and indices.dtype == torch.long
    assert torch.equal(scores.gather(1, indices), values)
    assert (indices.diff(dim=1) > 0).all()  # Distinct, and in order.
    assert torch.equal(values.sort(dim=1, descending=True).values, scores.topk(k, dim=1).values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "m", "k"), SHAPES)
def test_top_rows_are_those_of_topk(n, m, k, dtype, kernels, random) -> None:
    scores = random(n, m).to(dtype)
    _check(scores, k, kernels.selection.top_rows(scores, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_entries_the_right_number_is_kept(dtype, kernels) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randint(3, (4, 130), generator=draw).to(dtype)
    scores[1] = 2.0
    scores[2, 7:] = float("-inf")
    scores[3] = -scores[3] - 1  # No positive entry.
    _check(scores, 9, kernels.selection.top_rows(scores, 9))


def test_extremes_are_ordered(kernels) -> None:
    tiny = torch.finfo(torch.float32).smallest_normal
    scores = torch.tensor([[float("inf"), -3e38, 3e38, tiny, -tiny, tiny / 4, -tiny / 4, float("-inf"), 1.0, -1.0]])
    for k in range(1, 11):
        _check(scores, k, kernels.selection.top_rows(scores, k))


def test_all_of_the_largest_in_one_group_and_in_the_last_column(kernels) -> None:
    scores = torch.zeros(1, 300)
    width = 64  # Of the groups at this shape: k = 8 of 300.
    scores[0, 3::width] = torch.arange(5.0) + 1
    scores[0, 299] = 9.0
    values, indices = kernels.selection.top_rows(scores, 8)
    assert values.sort().values.tolist() == [[0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 9.0]]
    _check(scores, 8, (values, indices))


def test_no_rows(kernels) -> None:
    values, indices = kernels.selection.top_rows(torch.zeros(0, 12), 3)
    assert values.shape == indices.shape == (0, 3)


def test_rows_may_lie_apart(kernels, random) -> None:
    scores = random(3, 400)[:, 37:290]
    _check(scores, 9, kernels.selection.top_rows(scores, 9))
    _check(scores.T[:7].T, 2, kernels.selection.top_rows(scores.T[:7].T, 2))
    across = random(50, 4).T
    _check(across, 5, kernels.selection.top_rows(across, 5))
