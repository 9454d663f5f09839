import pytest
import torch

from saes.engine import sparse

SHAPES = [(1, 1, 1), (1, 5, 9), (7, 3, 12), (20, 130, 9)]
KINDS = ["some", "all", "none", "full"]
BF16 = 2**-7  # The interpreter cuts bfloat16 off where a GPU rounds.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d", "m"), SHAPES)
def test_sums_over_rows_and_over_features_are_the_twins(n, d, m, kind, kernels, random, codes, close) -> None:
    support = codes(n, m, kind)
    order, offsets = support.by_feature.order, support.by_feature.offsets
    for table, *bags in (
        (random(m, d), support.indices, support.offsets, support.values),
        (random(n, d), support.rows[order], offsets, support.values[order]),
    ):
        found, twin = kernels.sums.weighted_sums(table, *bags), sparse.weighted_sums(table, *bags)
        dense = support.dense().double() if table.shape[0] == m else support.dense().double().T
        dense = dense if len(found) == len(dense) else dense.T
        close(found, dense @ table.double(), dense.abs() @ table.double().abs())
        torch.testing.assert_close(found, twin, rtol=1e-5, atol=1e-5)
        assert found.dtype == table.dtype


@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_runs_are_cut_anywhere(chunk, kernels, random, codes, close, monkeypatch) -> None:
    """Runs that begin and end on borders of chunks and off them, shorter and longer than one."""
    monkeypatch.setattr(kernels.tiles, "CHUNK", chunk)
    for seed in range(4):
        lengths = torch.randint(0, 14, (9,), generator=torch.Generator().manual_seed(seed))
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        indices = torch.randint(0, 6, (int(offsets[-1]),), generator=torch.Generator().manual_seed(seed))
        table, weights = random(6, 5), random(len(indices), seed=seed)
        bag = torch.arange(9).repeat_interleave(lengths)
        each = weights.double()[:, None] * table[indices].double()
        found = kernels.sums.weighted_sums(table, indices, offsets, weights)
        none = torch.zeros(9, 5, dtype=torch.float64)
        close(found, none.index_add(0, bag, each), none.index_add(0, bag, each.abs()))


@pytest.mark.parametrize("d", [3, 130])
def test_a_feature_in_every_row_is_summed_in_chunks(d, kernels, random, codes, close) -> None:
    support = codes(600, 5, "all")
    assert len(support.rows) // kernels.tiles.CHUNK >= 2
    order, offsets = support.by_feature.order, support.by_feature.offsets
    table, dense = random(600, d), support.dense().double().T
    found = kernels.sums.weighted_sums(table, support.rows[order], offsets, support.values[order])
    close(found, dense @ table.double(), dense.abs() @ table.double().abs())


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 3e-6), (None, BF16)])
def test_a_bfloat16_table_is_added_in_float32(dtype, unit, kernels, random, codes, close) -> None:
    support, table = codes(7, 12, "full"), random(12, 5).bfloat16()
    found = kernels.sums.weighted_sums(table, support.indices, support.offsets, support.values, dtype)
    assert found.dtype == (dtype or torch.bfloat16)
    dense = support.dense().double()
    close(found, dense @ table.double(), dense.abs() @ table.double().abs(), unit)


def test_a_transposed_table_is_taken_as_it_is_meant(kernels, random, codes) -> None:
    support, table = codes(7, 12, "some"), random(5, 12).T
    bags = (support.indices, support.offsets, support.values)
    assert torch.equal(kernels.sums.weighted_sums(table, *bags), kernels.sums.weighted_sums(table.contiguous(), *bags))
