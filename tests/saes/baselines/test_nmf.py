import pytest
import torch
from scipy.optimize import nnls
from sklearn import decomposition

from interp.stores.memory import MemoryStore
from saes.baselines.nmf import NMF, _non_negative, _split
from saes.evaluation import evaluate

pytestmark = pytest.mark.filterwarnings("ignore:Maximum number of iterations")


def _planted(signed: bool) -> tuple[torch.Tensor, MemoryStore]:
    draw = torch.Generator().manual_seed(0)
    parts = torch.rand(4, 8, generator=draw) * (torch.rand(4, 8, generator=draw) < 0.5)
    if signed:
        parts *= torch.tensor([1.0, -1.0]).repeat(4)
    codes = torch.rand(500, 4, generator=draw) * (torch.rand(500, 4, generator=draw) < 0.5)
    return torch.nn.functional.normalize(parts, dim=1), MemoryStore.from_values(codes @ parts)


@pytest.mark.parametrize("signed", [False, True])
def test_parts_are_found(signed: bool) -> None:
    """Each channel has one sign, so that the split loses nothing and the parts are unique up to order and scale."""
    parts, store = _planted(signed)
    nmf = NMF.fit(store, d_sae=4, rows=None, iterations=1000)
    assert evaluate(nmf, store, resamples=0)["fvu"].value < 1e-4
    assert float((parts @ nmf.W_dec.T).amax(1).min()) > 0.99
    assert torch.allclose(nmf.W_dec.norm(dim=1), torch.ones(4), atol=1e-3)


def test_without_negative_activations_it_is_nmf(rows) -> None:
    x = rows(400).abs()
    nmf = NMF.fit(MemoryStore.from_values(x), d_sae=3, rows=None, iterations=300)
    own = decomposition.NMF(3, init="nndsvda", max_iter=300, random_state=0).fit(x.double().numpy())
    expected = torch.nn.functional.normalize(torch.from_numpy(own.components_), dim=1).float()
    assert torch.allclose((nmf.W_dec @ expected.T).amax(1), torch.ones(3), atol=1e-3)
    error = float((x - nmf(x)).square().sum().sqrt())
    assert error == pytest.approx(own.reconstruction_err_, rel=1e-3)


@pytest.mark.parametrize("dense", [False, True])
def test_codes_solve_non_negative_least_squares(store, rows, dense: bool) -> None:
    x = _split(rows(60, seed=5).double())
    parts = NMF.fit(store, d_sae=5).parts.double()
    if dense:
        parts = torch.rand(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codes = _non_negative(x, parts)
    exact = torch.stack([torch.from_numpy(nnls(parts.T.numpy(), row.numpy())[0]) for row in x])
    error, least = ((x - c @ parts).square().sum() for c in (codes, exact))
    assert (codes >= 0).all()
    assert float(error - least) < 1e-4 * float(x.square().sum())
    if not dense:
        assert torch.allclose(codes, exact, atol=1e-5)


def test_fewer_rows_than_parts_are_refused(store) -> None:
    with pytest.raises(ValueError, match="there are 4 rows, but NMF with 5 parts takes at least 5"):
        NMF.fit(store, d_sae=5, rows=4)
