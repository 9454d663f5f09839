import pytest
import torch
from sklearn import decomposition

from saes.baselines import reading
from saes.baselines.pca import PCA
from saes.evaluation import evaluate


@pytest.mark.parametrize("size", [4096, 50])
def test_components_are_those_of_scikit_learn(store, size: int, monkeypatch) -> None:
    monkeypatch.setattr(reading, "_SIZE", size)
    x = store.span(0, 600).values.double().numpy()
    other = decomposition.PCA(4, svd_solver="full").fit(x)
    pca = PCA.fit(store, d_sae=4)
    directions = torch.from_numpy(other.components_).float()
    assert torch.allclose((directions * pca.W_dec).sum(1).abs(), torch.ones(4), atol=1e-5)
    assert torch.allclose(pca.variances, torch.from_numpy(other.explained_variance_).float() * 599 / 600, rtol=1e-5)
    ratio = torch.from_numpy(other.explained_variance_ratio_).float()
    assert torch.allclose(pca.variances / pca.total_variance, ratio, rtol=1e-5)
    assert torch.allclose(pca.b_dec, torch.from_numpy(other.mean_).float(), atol=1e-5)
    assert torch.allclose(pca.W_dec @ pca.W_dec.T, torch.eye(4), atol=1e-5)


@pytest.mark.parametrize("d_sae", [1, 3, 6])
def test_what_is_left_is_the_variance_of_what_was_dropped(store, d_sae: int) -> None:
    pca = PCA.fit(store, d_sae=d_sae)
    dropped = PCA.fit(store).variances[d_sae:].sum()
    x = store.span(0, 600).values
    assert float((x - pca(x)).square().sum(1).mean()) == pytest.approx(float(dropped), rel=1e-4, abs=1e-10)
    fvu = evaluate(pca, store, resamples=0)["fvu"].value
    assert fvu == pytest.approx(float(dropped / pca.total_variance), rel=1e-4, abs=1e-10)


def test_signs_do_not_follow_the_solver(store) -> None:
    W_dec = PCA.fit(store).W_dec
    assert (W_dec.gather(1, W_dec.abs().argmax(1, keepdim=True)) > 0).all()


def test_more_components_than_channels_are_refused(store) -> None:
    with pytest.raises(ValueError, match="d_sae is 7, but 6 channels have 6 principal components: ask for fewer"):
        PCA.fit(store, d_sae=7)
