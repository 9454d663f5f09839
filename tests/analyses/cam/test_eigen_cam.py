import warnings

import pytest
import torch

from analyses.cam import principal
from analyses.cam.eigen_cam import EigenCAM
from analyses.cam.eigen_grad_cam import EigenGradCAM
from analyses.cam.principal import UndeterminedSign, _all_of, _leading


def _acts(shape: tuple[int, ...] = (6, 5, 4, 8), seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    spot = torch.rand(*shape[:-1], 1, generator=draw, dtype=torch.float64)
    channel = torch.rand(shape[0], *[1] * (len(shape) - 2), shape[-1], generator=draw, dtype=torch.float64)
    return 3 * spot * channel + 0.3 * torch.randn(*shape, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3, 5, 4, 8), (3, 5, 4, 50)])
@pytest.mark.parametrize("center", [False, True])
def test_equals_a_singular_value_decomposition_up_to_sign(shape: tuple[int, ...], center: bool) -> None:
    acts = _acts(shape)
    maps, details = EigenCAM(center=center).measured(acts)
    for b, map_ in enumerate(maps):
        rows = acts[b].flatten(0, 1)
        rows = rows - rows.mean(dim=0) if center else rows
        _, sizes, v = torch.linalg.svd(rows, full_matrices=False)
        torch.testing.assert_close(map_.flatten().abs(), (rows @ v[0]).abs(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(details["gap"][b], (sizes[0] / sizes[1]).square())


@pytest.mark.parametrize("gap", [1.0, 1.0001, 1.05, 1.5, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_close_eigenvalues_are_told_apart_as_all_eigenvectors_would(gap: float, dtype: torch.dtype) -> None:
    """Matrices of known spectrum, too large for the direct way; whatever the gap, the residual is rounding."""
    draw = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(4, 60, 60, generator=draw, dtype=torch.float64))
    sizes = torch.cat([torch.tensor([gap]), torch.linspace(1, 0.01, 59)]).double()
    sizes[0] = gap
    gram = ((basis * sizes) @ basis.mT).to(dtype)
    first, second, leading = _leading((gram + gram.mT) / 2)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(first, torch.full_like(first, gap), rtol=100 * eps, atol=0)
    torch.testing.assert_close(second, torch.full_like(first, 1.0), rtol=0.05, atol=0)
    off = ((gram @ leading[..., None])[..., 0] - first[:, None] * leading).norm(dim=1)
    assert (off <= 300 * eps * gap).all()
    if gap > 1:
        aligned = (leading.double() * basis[..., 0]).sum(1).abs()
        assert (1 - aligned <= (200 * eps / (gap - 1)) ** 2 + 10 * eps).all()


def test_the_fast_way_is_taken_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(principal, "_all_of", lambda gram: taken.append(len(gram)) or _all_of(gram))
    EigenCAM()(_acts((8, 7, 7, 64)).float())
    assert not taken
    EigenCAM()(torch.randn(3, 7, 7, 64))  # noise alone has no direction that leads
    assert taken == [3]


def test_rank_one_gives_back_the_spot() -> None:
    spot, channel = torch.rand(2, 5, 4, 1, dtype=torch.float64), torch.rand(2, 1, 1, 8, dtype=torch.float64)
    expected = spot[..., 0] * channel.norm(dim=-1)
    maps, details = EigenCAM().measured(spot * channel)
    torch.testing.assert_close(maps, expected)
    assert (details["gap"] > 1e10).all()
    torch.testing.assert_close(
        EigenCAM(center=True)(spot * channel), expected - expected.mean(dim=(1, 2), keepdim=True)
    )


@pytest.mark.parametrize("center", [False, True])
def test_rotating_the_channels_changes_nothing_not_even_the_sign(center: bool) -> None:
    acts = _acts()
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=draw, dtype=torch.float64))
        torch.testing.assert_close(EigenCAM(center=center)(acts @ rotation), EigenCAM(center=center)(acts))


def test_maps_of_non_negative_activations_are_never_inverted() -> None:
    draw = torch.Generator().manual_seed(0)
    acts = torch.randn(200, 7, 7, 32, generator=draw).relu()
    acts += torch.rand(200, 7, 7, 1, generator=draw)
    maps = EigenCAM()(acts)
    assert (maps > -1e-4).all()
    centred = EigenCAM(center=True)(acts)
    sizes = acts.norm(dim=-1).flatten(1)
    together = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(centred.flatten(1), sizes, strict=True)]
    )
    assert (together[EigenCAM(center=True).measured(acts)[1]["gap"] > 1.5] > 0).all()


def test_a_sign_that_nothing_decides_is_called_undetermined() -> None:
    acts = torch.zeros(2, 4, 3, dtype=torch.float64)
    acts[0, :, 0] = torch.tensor([1.0, -1.0, 2.0, -2.0])  # its sum is 0
    acts[1, :, 0] = torch.tensor([1.0, -1.0, 2.0, 2.0])
    with pytest.warns(UndeterminedSign, match="the sign of 1 of 2 maps is undetermined"):
        _, details = EigenCAM().measured(acts)
    assert details["determined"].tolist() == [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = EigenCAM(sign="gradient")(acts, torch.ones_like(acts))
    torch.testing.assert_close(maps, acts[..., 0])


def test_the_gradients_sign_turns_with_the_gradient() -> None:
    acts = _acts()
    grads = torch.randn(acts.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for method in (EigenCAM(sign="gradient"), EigenCAM(center=True, sign="gradient")):
        torch.testing.assert_close(method(acts, grads), -method(acts, -grads))
    torch.testing.assert_close(EigenGradCAM()(acts, grads), -EigenGradCAM()(acts, -grads))
