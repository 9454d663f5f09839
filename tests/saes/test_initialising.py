import pytest
import torch

from interp.stores.memory import MemoryStore
from interp.stores.paired import paired
from saes.initialising import geometric_median
from saes.jumprelu import JumpReLU
from saes.matching_pursuit import MatchingPursuit
from saes.normalising import estimate
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer, train


def test_latents_start_at_rows_less_the_centre(rows) -> None:
    x = rows(300)
    sae = TopK(d_in=6, d_sae=64, k=4)
    sae.initialise(MemoryStore.from_values(x), centre="mean")
    torch.testing.assert_close(sae.b_dec, x.mean(0))
    units = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    torch.testing.assert_close((units @ sae.W_dec.T).amax(dim=0), torch.ones(64))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert sae.W_enc.stride() == (1, 6)


def test_the_geometric_median_minimises_the_sum_of_distances(rows) -> None:
    x = torch.cat([rows(200), torch.full((20, 6), 1e4)]).double()  # One in eleven is far out.
    found = geometric_median(x)
    point = found.clone().requires_grad_()
    (x - point).norm(dim=1).sum().backward()
    assert float(point.grad.norm()) < 1e-3 * len(x)
    assert float((found - x[:200].mean(0)).norm()) < 2
    on_a_row = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(geometric_median(on_a_row), torch.zeros(2), atol=1e-3, rtol=0)


def test_choices(rows) -> None:
    store = MemoryStore.from_values(rows(300))
    fresh, sae = TopK(d_in=6, d_sae=64), TopK(d_in=6, d_sae=64)
    sae.initialise(store, centre="zero", decoder="random", encoder="kaiming")
    assert torch.equal(sae.W_dec, fresh.W_dec)
    assert not sae.b_dec.any()
    assert float(sae.W_enc.abs().max()) <= 6**-0.5
    assert float(sae.W_enc.var()) == pytest.approx(1 / 18, rel=0.2)
    with pytest.raises(ValueError, match="store has 40 rows, but 64 latents start at as many"):
        TopK(d_in=6, d_sae=64).initialise(MemoryStore.from_values(rows(40)))


def test_thresholds_mean_in_training_what_the_constructor_says(rows) -> None:
    store = MemoryStore.from_values(rows(600))
    sae = JumpReLU(d_in=6, d_sae=64, threshold=0.7)
    sae.initialise(store)
    Trainer([Job(sae)], TrainConfig(tokens=64, batch_size=64), store, progress=False)
    torch.testing.assert_close(sae.log_threshold.exp(), torch.full((64,), 0.7))


def test_a_transcoder_starts_at_both_sites(rows) -> None:
    x, y = rows(300), rows(300, seed=1)[:, :5]
    sae = TopK(d_in=6, d_sae=64, d_out=5)
    stores = [MemoryStore.from_values(part, site=site) for part, site in ((x, "a"), (y, "b"))]
    sae.initialise(paired(*stores), centre="mean")
    torch.testing.assert_close(sae.b_in, x.mean(0))
    torch.testing.assert_close(sae.b_dec, y.mean(0))
    at = (torch.nn.functional.normalize(x - x.mean(0), dim=1) @ sae.W_enc).argmax(dim=0)
    outputs = torch.nn.functional.normalize(y - y.mean(0), dim=1)[at]
    torch.testing.assert_close((outputs * sae.W_dec).sum(dim=1), torch.ones(64))


def test_a_loaded_sae_goes_on_where_it_was(rows, tmp_path) -> None:
    """Trained on and exported without a step taken, it is what it was."""
    import saes

    store, x = MemoryStore.from_values(rows(600)), rows(50, seed=2)
    sae = train(JumpReLU(d_in=6, d_sae=64), store, TrainConfig(tokens=20 * 64, batch_size=64), progress=False)[0]
    sae.save(tmp_path / "sae.safetensors")
    trainer = Trainer([Job(saes.load(tmp_path / "sae.safetensors"))], TrainConfig(), store, progress=False)
    assert trainer.normaliser.scale == estimate(store, "scale", seed=0).scale != 1
    torch.testing.assert_close(trainer.export()[0][1](x), sae(x), rtol=1e-5, atol=1e-5)


def test_pursuit_of_a_trained_dictionary_reads_it_better(rows) -> None:
    store, x = MemoryStore.from_values(rows(2000)), rows(200, seed=2)
    sae = train(TopK(d_in=6, d_sae=32, k=3), store, TrainConfig(tokens=200 * 64, batch_size=64), progress=False)[0]
    pursuit = MatchingPursuit.of(sae, store, k=3)
    assert torch.equal(pursuit.b_dec, sae.b_dec)
    left = [float((x - one(x)).square().sum()) for one in (sae, pursuit)]
    assert left[1] < 0.8 * left[0]
    with pytest.raises(ValueError, match="store has width 5 at .*, but the decoder has 6"):
        MatchingPursuit.of(sae, MemoryStore.from_values(rows(50)[:, :5]))


def test_a_parametrization_of_short_rows_is_read_in_units_of_these(rows) -> None:
    sae = TopK(d_in=6, d_sae=16, k=1, parametrization={"class": "Archetypal", "delta": 0.0})
    torch.nn.init.normal_(sae.parametrization.logits)  # Mixtures of all points.
    sae.initialise(MemoryStore.from_values(5 * rows(300)))
    directions = sae.W_dec.detach()
    assert directions.norm(dim=1).max() < 0.7
    # A row of the decoder itself has the code 1.
    torch.testing.assert_close((directions * sae.W_enc.T).sum(1), torch.ones(16))
