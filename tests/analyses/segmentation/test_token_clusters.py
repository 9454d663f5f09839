from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from analyses.segmentation.token_clusters import TokenClusters, farthest_first

Planted = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def _slow(acts: torch.Tensor, clusters: int) -> Any:
    """Spherical k-means from the farthest positions, one at a time."""
    unit = np.array([row / np.linalg.norm(row) for row in acts.reshape(-1, acts.shape[-1]).numpy()])
    chosen = [int(np.argmax(unit @ unit.mean(axis=0)))]
    while len(chosen) < clusters:
        chosen.append(int(np.argmin([max(row @ unit[c] for c in chosen) for row in unit])))
    centres = [unit[c] for c in chosen]
    before = None
    while True:
        of = [int(np.argmax([row @ centre for centre in centres])) for row in unit]
        if of == before:
            return np.array(of)
        before = of
        for k in range(clusters):
            total = sum(row for row, own in zip(unit, of, strict=True) if own == k)
            centres[k] = total / np.linalg.norm(total)


@pytest.mark.parametrize("clusters", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_equals_a_slow_loop(planted: Planted, seed: int, clusters: int) -> None:
    acts, _ = planted((1, 4, 1, 5), (5, 8, 6, 10), noise=2.0, seed=seed)
    found, of = TokenClusters(clusters)(acts), _slow(acts[0], clusters)
    sizes = np.bincount(of, minlength=clusters)
    for place, cluster in enumerate(np.argsort(-sizes, kind="stable")):
        assert np.array_equal(found.masks[0, place].flatten().numpy(), of == cluster)


def test_equals_scikit_learn_where_clusters_are_clear(planted: Planted) -> None:
    acts, masks = planted((1, 4, 1, 5), (5, 8, 6, 10), noise=0.3)
    unit = torch.nn.functional.normalize(acts.flatten(1, 2), dim=-1)
    start = farthest_first(unit, 3)[0].numpy()
    labels = KMeans(3, init=start, n_init=1).fit(unit[0].numpy()).labels_.reshape(9, 11)
    found = TokenClusters(3)(acts)
    assert {mask.numpy().tobytes() for mask in found.masks[0]} == {(labels == k).tobytes() for k in range(3)}
    assert {mask.numpy().tobytes() for mask in found.masks[0, 1:]} == {mask.numpy().tobytes() for mask in masks[0]}


def test_each_position_is_in_one_cluster_where_its_margin_is_positive(planted: Planted) -> None:
    acts, _ = planted((1, 4, 1, 5), noise=2.0)
    found = TokenClusters(4)(acts)
    assert bool((found.masks.sum(dim=1) == 1).all())
    assert torch.equal(found.saliency > 0, found.masks)
    sizes = found.masks.flatten(2).sum(dim=-1)[0].tolist()
    assert sizes == sorted(sizes, reverse=True)
    tight, own = found.details["tightness"][0, 0], torch.nn.functional.normalize(acts[0][found.masks[0, 0]], dim=-1)
    torch.testing.assert_close(tight, own.mean(dim=0).norm())


def test_lengths_do_not_matter(planted: Planted) -> None:
    acts, _ = planted((1, 4, 1, 5), noise=2.0)
    lengths = torch.rand(9, 11, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    here, there = TokenClusters(3)(acts), TokenClusters(3)(acts * lengths)
    assert torch.equal(here.masks, there.masks)
    torch.testing.assert_close(here.saliency, there.saliency)


def test_fewer_directions_than_clusters_leave_the_last_empty() -> None:
    acts = torch.eye(2, dtype=torch.float64).repeat_interleave(torch.tensor([5, 3]), dim=0)[None]
    found = TokenClusters(4)(acts)
    assert found.found.tolist() == [[True, True, False, False]]
    assert found.masks[0, 0].tolist() == [True] * 5 + [False] * 3
    assert float(found.saliency[0, 2:].abs().max()) == 0 and bool(found.details["tightness"][0, 2:].isnan().all())


@pytest.mark.parametrize("arguments", [{"clusters": 1}, {"steps": 0}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="two clusters and one step are the fewest"):
        TokenClusters(**arguments)
