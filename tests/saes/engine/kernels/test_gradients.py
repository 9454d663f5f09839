import pytest
import torch
from torch import Tensor

from interp.types import Latents


def _inputs(support: Latents, d: int, random) -> dict[str, Tensor]:
    order, offsets = support.by_feature.order, support.by_feature.offsets
    n, nnz = len(support), len(support.values)
    return {
        "grad": random(n, d, seed=3),
        "x": random(n, d, seed=4),
        "values": support.values,
        "grad_pre_acts": random(nnz, seed=5),
        "rows": support.rows,
        "order": order,
        "offsets": offsets,
    }


def _check(found: tuple[Tensor, Tensor, Tensor], given: dict[str, Tensor], support: Latents, close) -> None:
    """Against full matrices in float64."""
    codes = support.dense().double().T
    slopes = support.with_values(given["grad_pre_acts"]).dense().double().T
    grad, x = given["grad"].double(), given["x"].double()
    x = x.repeat(len(grad) // max(len(x), 1), 1)
    close(found[0], codes @ grad, codes.abs() @ grad.abs())
    close(found[1], slopes @ x, slopes.abs() @ x.abs())
    close(found[2], slopes.sum(1), slopes.abs().sum(1))


@pytest.mark.parametrize("kind", ["some", "all", "none", "full"])
@pytest.mark.parametrize(("n", "d", "m"), [(1, 1, 1), (7, 5, 9), (4, 130, 7)])
def test_gradients_are_the_twins(n, d, m, kind, kernels, random, codes, close) -> None:
    support = codes(n, m, kind)
    given = _inputs(support, d, random)
    found = kernels.gradients.weight_gradients(**given)
    _check(found, given, support, close)
    for ours, theirs in zip(found, kernels.twins.weight_gradients(**given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocks", [2, 3])
def test_stacked_saes_share_the_rows_of_x(blocks, kernels, random, codes, close) -> None:
    support = codes(4 * blocks, 9, "some")
    given = _inputs(support, 5, random)
    given["x"] = given["x"][:4]
    found = kernels.gradients.weight_gradients(**given)
    _check(found, given, support, close)
    for ours, theirs in zip(found, kernels.twins.weight_gradients(**given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "d", "chunk"), [(40, 130, 4), (600, 3, 256)])
def test_a_feature_in_every_row_is_summed_in_chunks(n, d, chunk, kernels, random, codes, close, monkeypatch) -> None:
    monkeypatch.setattr(kernels.tiles, "CHUNK", chunk)
    support = codes(n, 5, "all")
    given = _inputs(support, d, random)
    _check(kernels.gradients.weight_gradients(**given), given, support, close)


def test_bfloat16_rows_give_float32_gradients(kernels, random, codes, close) -> None:
    support = codes(7, 9, "some")
    given = _inputs(support, 5, random)
    given["grad"], given["x"] = given["grad"].bfloat16(), given["x"].bfloat16()
    found = kernels.gradients.weight_gradients(**given)
    assert {part.dtype for part in found} == {torch.float32}
    _check(found, given, support, close)
