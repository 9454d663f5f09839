import pytest
import torch

from interp.stores.memory import MemoryStore
from saes.gated import Gated
from saes.matching_pursuit import MatchingPursuit
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.resampling import Resampling
from saes.training import Job, TrainConfig, Trainer


def _trainer(store, run=None, *, resume=False, every=20, sae=None) -> Trainer:
    job = Job(
        sae or ReLU(d_in=6, d_sae=64), penalties=(L1(3.0, warmup=0.0),), resampling=Resampling(every=every, until=0.5)
    )
    config = TrainConfig(tokens=120 * 64, batch_size=64, dead_tokens=600, log_every=1, checkpoint_every=15)
    return Trainer([job], config, store, run=run, resume=resume, progress=False)


def test_dead_latents_start_at_inputs_and_adam_forgets_them(rows) -> None:
    trainer = _trainer(MemoryStore.from_values(rows(2000)), every=40)
    (job,), (state,), (adam,) = trainer.jobs, trainer.states, trainer.optimizers
    sae = job.sae
    for batch in trainer._batches():
        long = state.silent.clone()
        trainer.step(batch, log=False)
        if trainer.steps == 40:
            break
    dead = ((long > 600 - 64) & (adam.state[sae.b_enc]["exp_avg"] == 0)).nonzero().squeeze(1)
    assert len(dead) > 0
    assert not state.silent[dead].any()
    x = trainer.normaliser(batch).values - sae.b_dec
    close = torch.nn.functional.normalize(x, dim=1) @ sae.W_dec[dead].T
    torch.testing.assert_close(close.amax(0), torch.ones(len(dead)), rtol=1e-5, atol=1e-5)
    alive = torch.ones(64, dtype=torch.bool).index_fill_(0, dead, False)
    size = 0.2 * sae.W_enc[:, alive].norm(dim=0).mean()
    torch.testing.assert_close(sae.W_enc[:, dead].norm(dim=0), size.expand(len(dead)))
    assert not sae.b_enc[dead].any()
    assert not adam.state[sae.W_dec]["exp_avg"][dead].any()
    assert not adam.state[sae.W_enc]["exp_avg_sq"][:, dead].any()


def test_badly_reconstructed_inputs_are_drawn_by_the_square_of_their_loss() -> None:
    sae = ReLU(d_in=6, d_sae=3000)
    trainer = _trainer(MemoryStore.from_values(torch.randn(100, 6)), sae=sae)
    x, residual = torch.eye(6)[:3] * 5, torch.diag(torch.tensor([1.0, 2.0**0.5, 0.0]))  # Losses 1, 2 and 0.
    residual = torch.cat([residual, torch.zeros(3, 3)], dim=1)
    with torch.no_grad():
        sae.b_dec.zero_()
    dead = torch.arange(3000)
    Resampling().apply(sae, trainer.optimizers[0], trainer.states[0].silent, dead, x, residual, key=7)
    counts = torch.bincount(sae.W_dec.argmax(dim=1), minlength=3)[:3]
    assert counts[2] == 0
    assert float(counts[1] / counts[0]) == pytest.approx(4, rel=0.15)


def test_it_revives(rows) -> None:
    store, left = MemoryStore.from_values(rows(2000)), {}
    for every in (20, 1000):
        trainer = _trainer(store, every=every)
        for batch in trainer._batches():
            trainer.step(batch, log=False)
            if trainer.steps == 60:
                break
        left[every] = float((trainer.states[0].silent > 600).float().mean())
    assert left[20] < 0.5 * left[1000]


def test_a_resumed_run_is_equal_to_the_bit(rows, tmp_path) -> None:
    store = MemoryStore.from_values(rows(2000))
    whole = _trainer(store).run()[0]
    started = _trainer(store, tmp_path / "run")
    for batch in started._batches():
        started.step(batch, log=False)
        if started.steps == 15:
            started.run_folder.checkpoint(started)
            break
    started.run_folder.close()
    resumed = _trainer(store, tmp_path / "run", resume=True).run()[0]
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_what_cannot_start_again_is_refused() -> None:
    with pytest.raises(ValueError, match="MatchingPursuit has no encoder and decoder rows of its own"):
        Job(MatchingPursuit(d_in=6, d_sae=64), resampling=Resampling())
    with pytest.raises(ValueError, match="every 0"):
        Resampling(every=0)
    assert Job(Gated(d_in=6, d_sae=64), resampling=Resampling()).to_json()["resampling"]["every"] == 250
