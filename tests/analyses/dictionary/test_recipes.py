import pytest
import torch

from analyses.dictionary.recipes import Recipe, directions_fingerprint, firings_within, identity_of
from saes.topk import TopK


def test_a_fingerprint_names_weights_and_arguments(planted):
    first = directions_fingerprint(planted())
    assert first == directions_fingerprint(planted())
    assert first != directions_fingerprint(planted(seed=1))
    assert first != directions_fingerprint(planted(threshold=8.0))
    sae = TopK(d_in=6, d_sae=64, k=4)
    before = directions_fingerprint(sae)
    assert before != directions_fingerprint(TopK(d_in=6, d_sae=64, k=5))
    with torch.no_grad():
        sae.b_enc[3] = 1.0
    assert directions_fingerprint(sae) != before


def test_an_identity_tells_builds_apart(planted, store, make_store):
    identity = identity_of(planted(), store, Recipe(), None)
    others = [
        identity_of(planted(seed=1), store, Recipe(), None),
        identity_of(planted(), make_store(seed=2), Recipe(), None),
        identity_of(planted(), store, Recipe(seed=1), None),
        identity_of(planted(), store, Recipe(), [["a"]]),
    ]
    assert identity == identity_of(planted(), store, Recipe(), None)
    assert all(identity != other for other in others)


def test_memory_bounds_the_sampled_firings():
    assert firings_within(2 << 30, 6144, 128) == 64
    assert 8 <= firings_within(120 << 20, 6144, 128) < 64
    with pytest.raises(ValueError, match=r"max_memory is 1048576 bytes, but .* of 6144 features .*: allow more"):
        firings_within(1 << 20, 6144, 128)


@pytest.mark.parametrize("wrong", [{"window": (1, -1)}, {"quantiles": (-5, 4)}])
def test_pairs_are_checked(wrong):
    with pytest.raises(ValueError, match="but it takes two numbers from 0 on"):
        Recipe(**wrong)
