import pytest
import torch

from interp.finite import rows_not_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_rows_with_nan_or_infinity_are_found(dtype: torch.dtype) -> None:
    values = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert rows_not_finite(values).tolist() == []
    values[7, 3], values[7, 4], values[20, 0] = float("inf"), float("-inf"), float("nan")
    assert rows_not_finite(values).tolist() == [7, 20]


def test_finite_rows_whose_sum_is_infinite_are_finite() -> None:
    assert rows_not_finite(torch.full((4, 3), torch.finfo(torch.float32).max)).tolist() == []
    assert rows_not_finite(torch.zeros(0, 3)).tolist() == []
