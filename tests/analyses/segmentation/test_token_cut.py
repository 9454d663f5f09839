from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage
from sklearn.cluster import SpectralClustering

from analyses.segmentation.token_cut import TokenCut, eigenvectors

Planted = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def _graph(acts: torch.Tensor, method: TokenCut) -> tuple[Any, Any]:
    """The affinity, pair by pair, and the degrees."""
    rows = acts.reshape(-1, acts.shape[-1]).numpy()
    affinity = np.empty((len(rows), len(rows)))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            affinity[i, j] = (cosine if method.weighted else 1.0) if cosine > method.tau else method.eps
    return affinity, np.diag(affinity.sum(axis=1))


def _slow(acts: torch.Tensor, method: TokenCut) -> tuple[Any, Any]:
    """As the paper has it: the generalised eigenproblem, the split at the mean, the side and the part of the seed."""
    affinity, degrees = _graph(acts, method)
    y = linalg.eigh(degrees - affinity, degrees)[1][:, 1]
    seed = np.argmax(np.abs(y))
    side = y > y.mean()
    if not side[seed]:
        side, y = ~side, -y
    labels, _ = ndimage.label(side.reshape(acts.shape[:-1]))
    return labels == labels.ravel()[seed], y.reshape(acts.shape[:-1])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_paper(planted: Planted, seed: int, weighted: bool) -> None:
    acts, _ = planted((2, 6, 3, 8), noise=1.5, seed=seed)
    method = TokenCut(weighted=weighted)
    found, (mask, y) = method(acts), _slow(acts[0], method)
    assert np.array_equal(found.masks[0, 0].numpy(), mask)
    np.testing.assert_allclose(found.saliency[0, 0].numpy(), y, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_a_planted_rectangle_is_found_whole(planted: Planted, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    top, left = torch.randint(0, 5, (2,), generator=draw).tolist()
    acts, masks = planted((top, top + 4, left, left + 5), seed=seed)
    found = TokenCut()(acts)
    assert torch.equal(found.masks, masks)
    assert found.boxes.tolist() == [[[left, top, left + 5, top + 4]]]
    assert float(found.details["eigengap"]) > 0.01


def test_solves_the_generalised_eigenproblem(planted: Planted) -> None:
    acts, _ = planted((2, 6, 3, 8), noise=1.5)
    method = TokenCut()
    affinity, degrees = _graph(acts[0], method)
    found = method(acts)
    y, eigenvalue = found.saliency.flatten().numpy(), float(found.details["eigenvalue"])
    assert np.abs((degrees - affinity) @ y - eigenvalue * degrees @ y).max() < 1e-8
    assert y @ degrees @ y == pytest.approx(1)
    values = linalg.eigh(degrees - affinity, degrees, eigvals_only=True)
    assert (eigenvalue, float(found.details["eigengap"])) == pytest.approx((values[1], values[2] - values[1]))


def test_splits_as_spectral_clustering_does(planted: Planted) -> None:
    acts, masks = planted((2, 6, 3, 8), seed=1)
    affinity, _ = _graph(acts[0], TokenCut())
    labels = SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(affinity).reshape(9, 11)
    found = TokenCut()(acts).masks[0, 0].numpy()
    assert np.array_equal(labels == labels[3, 4], found) and np.array_equal(found, masks[0, 0].numpy())


def test_moving_the_positions_moves_the_eigenvector(planted: Planted) -> None:
    acts, _ = planted((2, 6, 3, 8), noise=1.5)
    rows = acts.flatten(1, 2)
    order = torch.randperm(99, generator=torch.Generator().manual_seed(1))
    here, there = TokenCut()(rows), TokenCut()(rows[:, order])
    torch.testing.assert_close(there.saliency, here.saliency[..., order], rtol=1e-9, atol=1e-12)


def test_the_solver_has_no_say_in_the_sign(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    acts, masks = planted((2, 6, 3, 8))
    whole, solve = TokenCut()(acts), torch.linalg.eigh

    def flipped(matrix: torch.Tensor) -> Any:
        values, vectors = solve(matrix)
        return values, -vectors

    monkeypatch.setattr(torch.linalg, "eigh", flipped)
    turned = TokenCut()(acts)
    assert torch.equal(turned.masks, masks) and torch.equal(turned.saliency, whole.saliency)
    assert float(turned.saliency[turned.masks].min()) > float(turned.saliency[~turned.masks].max())


def test_only_the_part_with_the_seed_is_the_object(planted: Planted) -> None:
    acts, masks = planted((1, 3, 1, 3), (5, 8, 6, 10), noise=0.3)
    acts[0, 1:3, 1:3] = acts[0, 5:7, 6:8]  # two of one kind, apart
    found = TokenCut()(acts).masks[0, 0]
    assert any(torch.equal(found, mask) for mask in masks[0])


def test_two_objects_are_found_one_after_the_other(planted: Planted) -> None:
    acts, masks = planted((1, 4, 1, 5), (5, 8, 6, 10))
    found = TokenCut(objects=2)(acts)
    assert {tuple(mask.flatten().tolist()) for mask in found.masks[0]} == {
        tuple(mask.flatten().tolist()) for mask in masks[0]
    }
    first = found.masks[0, 0]
    assert float(found.saliency[0, 1][first].abs().max()) == 0
    torch.testing.assert_close(TokenCut()(acts).masks, found.masks[:, :1])
    # The second is that of the paper on the graph of what is left, which has lost its grid.
    _, y = _slow(acts[0][~first], TokenCut())
    np.testing.assert_allclose(found.saliency[0, 1][~first].numpy(), y, atol=1e-9)


def test_a_graph_of_positions_that_are_left_is_that_graph_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    affinity = torch.rand(1, 12, 12, generator=draw, dtype=torch.float64)
    affinity = affinity + affinity.mT
    left = torch.rand(1, 12, generator=draw) < 0.6
    values, y = eigenvectors(affinity, left)
    kept = left[0].nonzero()[:, 0]
    inner = affinity[:, kept][..., kept]
    alone, part = eigenvectors(inner, torch.ones(1, len(kept), dtype=torch.bool))
    torch.testing.assert_close(values, alone)
    torch.testing.assert_close(y[:, kept].abs(), part.abs())
    assert float(y[~left].abs().max()) == 0


def test_what_runs_out_is_absent() -> None:
    two = torch.eye(2, dtype=torch.float64)[None]
    found = TokenCut(objects=4)(two)
    assert found.found.tolist() == [[True, False, False, False]]
    assert found.details["eigenvalue"][0, 1:].isnan().all() and not found.details["eigengap"][0, 1:].any()


def test_equal_pieces_are_undetermined() -> None:
    """Three alike, of which no two make a better cut than others."""
    acts = torch.eye(3, dtype=torch.float64).repeat_interleave(4, dim=0)[None]
    found = TokenCut()(acts)
    assert not found.found.any() and float(found.details["eigengap"]) < 1e-9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 1.0}, "tau is 1.0, but is a cosine under 1"),
        ({"tau": -0.1, "weighted": True}, "tau is -0.1, but"),
        ({"eps": 0.0}, "eps is 0.0, but keeps the graph in one piece"),
        ({"objects": 0}, "objects is 0, but at least one"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenCut(**arguments)


def test_centred_vectors_are_cut_as_if_nothing_were_common() -> None:
    acts = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = TokenCut(center=True)(acts + 100)
    torch.testing.assert_close(moved.saliency, TokenCut(center=True)(acts).saliency, rtol=1e-6, atol=1e-8)
    assert not bool(TokenCut()(acts + 100).found.any())  # all cosines are 1
    rows = (acts - acts.flatten(1, 2).mean(1)[:, None, None]).flatten(1, 2)
    torch.testing.assert_close(TokenCut(center=True).affinity(acts.flatten(1, 2)), TokenCut().affinity(rows))
