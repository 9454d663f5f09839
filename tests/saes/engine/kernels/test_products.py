import pytest
import torch

from saes.engine import sparse


@pytest.mark.parametrize("kind", ["some", "all", "none"])
@pytest.mark.parametrize(("n", "d", "m"), [(1, 1, 1), (7, 5, 12), (5, 300, 9)])
def test_inner_products_are_the_twins(n, d, m, kind, kernels, random, codes, close) -> None:
    support, left, table = codes(n, m, kind), random(n, d), random(m, d, seed=2)
    found = kernels.products.inner_products(left, table, support.rows, support.indices)
    ours, theirs = left.double()[support.rows], table.double()[support.indices]
    close(found, (ours * theirs).sum(1), (ours * theirs).abs().sum(1))
    torch.testing.assert_close(found, sparse.inner_products(left, table, support), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 3e-6), (None, 2**-7)])
def test_bfloat16_is_added_in_float32(dtype, unit, kernels, random, codes, close) -> None:
    support, left, table = codes(7, 12, "some"), random(7, 9).bfloat16(), random(12, 9, seed=2).bfloat16()
    found = kernels.products.inner_products(left, table, support.rows, support.indices, dtype)
    assert found.dtype == (dtype or torch.bfloat16)
    each = left.double()[support.rows] * table.double()[support.indices]
    close(found, each.sum(1), each.abs().sum(1), unit)
