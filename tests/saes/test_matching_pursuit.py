"""Matching pursuit against versions that go row by row, and what the papers claim of it."""

import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from interp.models.synthetic import SyntheticWorld
from saes.engine.products import low_precision
from saes.matching_pursuit import MatchingPursuit
from saes.penalties.base import reconstruction

DOUBLE = {"dtype": torch.float64}


def _sae(randomised, **about) -> MatchingPursuit:
    sae = randomised(MatchingPursuit(**({"d_in": 6, "d_sae": 20, "k": 4} | about)).double())
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    return sae


def _x(n: int = 30, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1), **DOUBLE)


def _not_negative(W: Tensor, row: Tensor, picks: list[int]) -> list[int]:
    """Those of the picks that a non-negative least squares fit of all of them uses."""
    codes, _ = nnls(W[picks].T.numpy(), row.numpy())
    return [pick for pick, code in zip(picks, codes, strict=True) if code > 1e-9]


def _by_row(sae: MatchingPursuit, x: Tensor, *, refit: bool, enough: float = 0.0) -> Tensor:
    """Codes as the algorithm is written, with autograd: picks by hand, one row at a time."""
    found = []
    for row in x - sae.b_dec:
        codes, picks, residual = torch.zeros(sae.d_sae, **DOUBLE), [], row
        for _ in range(sae.k):
            if float(residual.detach().square().sum()) <= enough:
                break
            closeness = sae.W_dec @ residual
            if refit and picks:
                closeness = closeness.clone().index_fill(0, torch.tensor(picks), -torch.inf)
            best = int(closeness.argmax())
            if float(closeness[best]) <= 0:
                break
            picks.append(best)
            if refit:
                picks = _not_negative(sae.W_dec.detach(), row.detach(), picks)
                fit = torch.linalg.lstsq(sae.W_dec[picks].T, row[:, None]).solution[:, 0]
                codes = torch.zeros(sae.d_sae, **DOUBLE).index_put((torch.tensor(picks),), fit)
            else:
                codes = codes.index_add(0, torch.tensor([best]), closeness[best][None])
            residual = row - codes @ sae.W_dec
        found.append(codes)
    return torch.stack(found)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("tolerance", [0.0, 0.2])
def test_codes_and_gradients_equal_the_algorithm_row_by_row(refit, tolerance, randomised, step_of) -> None:
    sae, x = _sae(randomised, refit=refit, tolerance=tolerance), _x()
    codes = _by_row(sae, x, refit=refit, enough=tolerance * 6)
    counts = (codes > 0).sum(1)
    assert len(set(counts.tolist())) > 1 or not tolerance, "some rows stop early"
    # The ridge of a millionth is in ours only.
    close = {"rtol": 1e-4, "atol": 2e-5} if refit else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(sae.encode(x).dense(), codes, **close)
    recon = codes @ sae.W_dec + sae.b_dec
    parameters = list(sae.parameters())
    expected = torch.autograd.grad((x - recon).square().sum() / len(x), parameters)
    found = torch.autograd.grad(reconstruction(step_of(sae, x)), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, **(close | {"atol": 1e-4} if refit else close))


def test_products_of_bfloat16_choose_and_codes_are_fitted_exactly(randomised) -> None:
    sae, x = _sae(randomised, d_in=32, d_sae=300, k=6), _x(200, 32)
    with low_precision(True):
        codes = sae.encode(x).dense()
    exact = sae.encode(x).dense()
    assert float(((codes > 0) != (exact > 0)).any(dim=1).double().mean()) > 0.01, "some rows chose otherwise"
    for row, code in zip(x - sae.b_dec, codes, strict=True):
        picks = code.nonzero()[:, 0]
        fit = torch.linalg.lstsq(sae.W_dec[picks].T, row[:, None]).solution[:, 0]
        torch.testing.assert_close(code[picks], fit, rtol=1e-4, atol=2e-5)
    left, least = ((x - sae.b_dec - found @ sae.W_dec).square().sum() for found in (codes, exact))
    assert float(left) < 1.01 * float(least)


@pytest.mark.parametrize("refit", [False, True])
def test_what_is_left_never_grows_with_a_pick(refit: bool, randomised) -> None:
    x, left = _x(), []
    for k in range(1, 9):
        sae = _sae(randomised, k=k, refit=refit)
        left.append((x - sae(x)).detach().norm(dim=1))
    differences = torch.stack(left).diff(dim=0)
    assert float(differences.max()) < 2e-5  # The ridge of a millionth.
    assert float(differences[0].max()) < 0


@pytest.mark.parametrize("refit", [False, True])
def test_orthonormal_rows_give_the_projection_on_the_k_closest(refit: bool) -> None:
    sae, x = MatchingPursuit(d_in=6, d_sae=6, k=3, refit=refit).double(), _x()
    with torch.no_grad():
        sae.W_dec.copy_(torch.linalg.qr(_x(6)).Q)
    closeness = (x @ sae.W_dec.T).detach()
    best = closeness.topk(3)
    expected = torch.zeros_like(closeness).scatter(1, best.indices, best.values.relu())
    torch.testing.assert_close(sae.encode(x).dense(), expected, rtol=1e-5, atol=1e-9)


def test_a_row_stops_as_soon_as_little_is_left(randomised) -> None:
    sae, x = _sae(randomised, k=6, tolerance=0.1), _x(60)
    latents = sae.encode(x)
    left = (x - sae.decode(latents)).square().sum(dim=1)
    picks = latents.offsets.diff()
    assert set(picks.tolist()) > {2, 3}
    few = MatchingPursuit(d_in=6, d_sae=20, k=6, tolerance=0.1).double()
    few.load_state_dict(sae.state_dict())
    for k in range(1, 6):
        few.k = k
        before = (x - few(x)).square().sum(dim=1)
        assert (before[picks > k] > 0.1 * 6).all(), "one pick fewer is not enough"
    assert (left[picks < 5] <= 0.1 * 6 + 1e-9).all()


def test_the_unit_of_a_tolerance_is_folded(randomised) -> None:
    sae, x = _sae(randomised, tolerance=0.1), _x()
    inside = sae.encode(x)
    sae.rescale(4.0)
    outside = sae.encode(x / 4)
    assert torch.equal(outside.indices, inside.indices)
    torch.testing.assert_close(outside.values * 4, inside.values)


def test_true_features_are_read_better_than_by_any_linear_encoder() -> None:
    """On the true dictionary: .005 of the variance at L0 5, where a linear encoder with 5 leaves .147."""
    world = SyntheticWorld(seed=0)
    rows, truth = world.sample(2048)
    x = rows.values
    sae = MatchingPursuit(d_in=64, d_sae=256, k=16, tolerance=0.007)
    with torch.no_grad():
        sae.W_dec.copy_(world.features)
        sae.unit.fill_(float(x.square().mean().sqrt()))
        latents = sae.encode(x)
        left = (x - sae.decode(latents)).square().sum() / (x - x.mean(0)).square().sum()
    assert 4.5 < latents.values.numel() / len(x) < 6
    assert float(left) < 0.01
    hits = (latents.dense() > 0) & (truth.dense() > 0)
    assert float(hits.sum()) > 0.9 * truth.values.numel()


def test_two_latents_that_have_become_one_keep_their_codes_bounded() -> None:
    sae = MatchingPursuit(d_in=6, d_sae=20, k=4)
    with torch.no_grad():
        sae.W_dec[1] = sae.W_dec[0]
    codes = sae.encode(3 * sae.W_dec[:1].detach()).values
    assert float(codes.sum()) == pytest.approx(3, rel=1e-3)
    assert bool((codes.abs() < 3.1).all())


@pytest.mark.parametrize("wrong", [{"k": 0}, {"tolerance": 1.0}, {"tolerance": -0.1}])
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} is .*(choose|leaves)"):
        MatchingPursuit(**({"d_in": 6, "d_sae": 20, "k": 4} | wrong))
