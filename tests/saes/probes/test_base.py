import pytest
import torch

from interp.types import Directions, Latents
from saes.probes.base import Probe, moments, times, transposed_times
from saes.probes.samples import gather


@pytest.fixture
def codes() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(50, 9, generator=generator) * (torch.rand(50, 9, generator=generator) < 0.3)
    codes[:, 4] = 0
    codes[7] = 0
    return codes


def test_sparse_products_and_moments_equal_dense_ones(codes):
    sparse = Latents.from_dense(codes)
    weight, rows = torch.randn(9, 3, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64)
    for given in (codes, sparse):
        assert torch.allclose(times(given, weight), codes.double() @ weight)
        assert torch.allclose(transposed_times(given, rows), codes.double().T @ rows)
        mean, std = moments(given)
        assert torch.allclose(mean, codes.double().mean(0))
        assert torch.allclose(std, codes.double().std(0, correction=0), atol=1e-12)
    none = Latents.from_dense(torch.zeros(4, 9))
    assert not times(none, weight).any()
    assert not transposed_times(none, rows[:4]).any()


def test_a_constant_feature_far_from_zero_has_no_spread():
    assert moments(torch.full((1000, 1), 1e3) / 3)[1].item() == 0


def test_a_probe_of_rows_is_directions(store):
    sample = gather(store, "kind")
    weight, bias = torch.randn(5, 3), torch.randn(3)
    probe = Probe(weight, bias, sample, {"probe": "by hand"})
    x = store.span(0, 20).values
    assert isinstance(probe, Directions)
    assert (probe.d_in, probe.d_sae, probe.signed, probe.trainable) == (5, 3, True, False)
    assert probe.labels == {0: "kind0", 1: "kind1", 2: "kind2"}
    assert str(probe.site) == "blocks.1"
    assert torch.allclose(probe.encode(x).dense(), x @ weight + bias, atol=1e-4)
    assert torch.allclose(probe.W_dec, torch.nn.functional.normalize(weight.T, dim=1))
    assert torch.equal(probe.W_enc, weight)
    latents = probe.encode(x)
    assert torch.allclose(probe.decode(latents), latents.dense() @ probe.W_dec, atol=1e-4)
    assert probe.provenance["probe"] == "by hand"
    assert probe.provenance["store"] == store.fingerprint


def test_a_probe_of_latents_encodes_rows_through_them(store, both_signs):
    directions = both_signs(5)
    sample = gather(store, "kind", directions=directions)
    weight, bias = torch.randn(10, 3), torch.randn(3)
    probe = Probe(weight, bias, sample)
    x = store.span(0, 20).values
    scores = torch.cat([x, -x], dim=1).relu() @ weight + bias
    assert torch.allclose(probe.encode(x).dense(), scores, atol=1e-4)
    assert torch.allclose(probe.scores(sample)[:20], scores, atol=1e-4)
    assert probe.d_in == 5
    assert probe.W_enc is None
    with pytest.raises(ValueError, match="the sample holds latents, but a dictionary reads rows"):
        sample.through(directions)
    assert torch.allclose(probe.W_dec, torch.nn.functional.normalize(weight[:5].T - weight[5:].T, dim=1), atol=1e-6)


def test_accuracy_is_of_the_test_rows_with_an_interval_over_examples(store):
    sample = gather(store, "kind")
    probe = Probe(torch.zeros(5, 3), torch.tensor([0.0, 1.0, 0.0]), sample)
    found = probe.accuracy(sample)
    test = sample.part == 2
    assert found.value == pytest.approx(float((sample.labels[test] == 1).float().mean()))
    half = 1.96 * (found.value * (1 - found.value) / int(test.sum() / 3)) ** 0.5  # All rows of an example are alike.
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
