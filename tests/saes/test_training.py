import json
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.loading import methods
from saes.penalties.aux_k import AuxK
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, Metrics, TrainConfig, Trainer, train

CONFIG = TrainConfig(tokens=20 * 64, batch_size=64, dead_tokens=128, log_every=5)


def _jobs() -> list[Job]:
    return [
        Job(TopK(d_in=6, d_sae=32, k=4), name="first"),
        Job(TopK(d_in=6, d_sae=16, k=2, seed=1), name="second", lr=1e-3, penalties=()),
        Job(BatchTopK(d_in=6, d_sae=32, k=4)),
        Job(ReLU(d_in=6, d_sae=24), penalties=(L1(coefficient=0.1), AuxK())),
    ]


class FakeStore(MemoryStore):
    """A store whose shuffled batches of 64 rows are infinite at some steps."""

    infinite: tuple[int, ...] = ()

    def batches(
        self, size: int, *, seed: int | None, start_step: int = 0, epochs: int | None = None
    ) -> Iterator[Activations]:
        for step, batch in enumerate(
            super().batches(size, seed=seed, start_step=start_step, epochs=epochs), start_step
        ):
            if size == 64 and step in self.infinite:
                batch.values[3, 2] = math.inf
            yield batch


def _state(trainer: Trainer) -> list[Tensor]:
    return [tensor for job in trainer.jobs for tensor in job.sae.state_dict().values()]


def test_several_jobs_on_one_stream_equal_each_alone(store) -> None:
    together = train(_jobs(), store, CONFIG, progress=False)
    for job, sae in zip(_jobs(), together, strict=True):
        (alone,) = train(job, store, CONFIG, progress=False)
        for name, value in sae.state_dict().items():
            assert torch.equal(alone.state_dict()[name], value), (job.name, name)


def _textbook(sae: SAE, batches: list[Tensor], rates: list[float], clip: float) -> SAE:
    """Dense autograd in float64, Adam as in the paper (Kingma and Ba 2015), the decoder kept on the sphere."""
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in sae.named_parameters()}
    for t, (x, lr) in enumerate(zip(batches, rates, strict=True), start=1):
        pre_acts = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
        kept = torch.zeros_like(pre_acts).scatter(1, pre_acts.topk(sae.k, dim=1).indices, 1.0)
        recon = torch.relu(pre_acts * kept) @ sae.W_dec + sae.b_dec
        sae.zero_grad()
        (x - recon).square().sum(1).mean().backward()
        with torch.no_grad():
            sae.W_dec.grad -= (sae.W_dec.grad * sae.W_dec).sum(1, keepdim=True) * sae.W_dec
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in sae.parameters()))
            for name, p in sae.named_parameters():
                gradient = p.grad * min(1.0, clip / norm)
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * gradient)
                second.mul_(0.99).add_(0.01 * gradient**2)
                p -= lr * (first / (1 - 0.9**t)) / ((second / (1 - 0.99**t)).sqrt() + 1e-8)
            sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    return sae


@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_steps_are_those_of_a_textbook_loop(clip: float, store) -> None:
    config = TrainConfig(tokens=10 * 64, batch_size=64, clip=clip, warmup=0.3, decay=0.5, betas=(0.9, 0.99))
    sae = TopK(d_in=6, d_sae=16, k=3)
    trainer = Trainer([Job(sae, lr=3e-3, penalties=())], config, store)
    scale, mean = trainer.normaliser.scale, trainer.normaliser.mean
    slow = TopK(d_in=6, d_sae=16, k=3).double()
    with torch.no_grad():
        slow.b_dec.copy_(mean * scale)
    stream = [batch.values.double() * scale for _, batch in zip(range(10), store.batches(64, seed=0), strict=False)]
    _textbook(slow, stream, [3e-3 * config.lr_factor(step) for step in range(10)], clip)
    trainer.run()
    for name, value in slow.named_parameters():
        torch.testing.assert_close(sae.get_parameter(name).double(), value, rtol=0, atol=2e-4)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(16))


def test_metrics_are_those_of_the_batch(store) -> None:
    sae = ReLU(d_in=6, d_sae=24)
    trainer = Trainer([Job(sae, lr=1e-3, penalties=(L1(coefficient=0.1, warmup=0.0),))], CONFIG, store)
    batch = next(store.batches(64, seed=5))
    x = batch.values * trainer.normaliser.scale
    latents, recon = sae.codes(x), sae(x)
    error = float((x - recon).square().sum().detach())
    (found,) = trainer.step(batch)
    assert (found.job, found.step, found.tokens, found.skipped) == ("relu", 1, 64, 0)
    assert found.terms["signal"] == pytest.approx(error / 64, rel=1e-5)
    assert found.terms["L1"] == pytest.approx(0.1 * float(latents.values.sum().detach()) / 64, rel=1e-5)
    assert found.loss == pytest.approx(sum(found.terms.values()), rel=1e-6)
    assert found.fvu == pytest.approx(error / float((x - x.mean(0)).square().sum()), rel=1e-5)
    assert found.l0 == pytest.approx(len(latents.values) / 64)
    assert found.lr == pytest.approx(1e-3 * CONFIG.lr_factor(0))
    assert trainer.step(batch, log=False) == []


def test_clipping_is_of_the_shared_configuration(store) -> None:
    trainer = Trainer(_jobs(), TrainConfig(tokens=640, batch_size=64, clip=1e-3, betas=(0.9, 0.99)), store)
    found = trainer.step(next(store.batches(64, seed=0)))
    for metrics, job, optimizer in zip(found, trainer.jobs, trainer.optimizers, strict=True):
        assert metrics.grad_norm > 1e-3  # What it was before clipping.
        averages = torch.cat([optimizer.state[p]["exp_avg"].flatten() for p in job.sae.parameters()])
        assert float(averages.norm()) == pytest.approx(1e-4, rel=1e-2)  # A tenth of the clipped gradients.


@pytest.mark.parametrize("method", methods().values(), ids=methods().keys())
@pytest.mark.parametrize("normalise", ["scale", "none"])
def test_what_is_exported_is_in_the_models_units(method: type[SAE], normalise, store, rows) -> None:
    config = TrainConfig(tokens=20 * 64, batch_size=64, normalise=normalise)
    trainer = Trainer([Job(method(d_in=6, d_sae=64))], config, store, progress=False)
    (exported,) = trainer.run()
    inside, scale, x = trainer.jobs[0].sae.eval(), trainer.normaliser.scale, rows(100, seed=9)
    torch.testing.assert_close(exported(x) * scale, inside(x * scale), rtol=1e-4, atol=1e-4)
    assert (scale == 1) == (normalise == "none")
    assert exported.site == store.site
    assert exported.provenance["store"] == store.fingerprint
    assert exported.provenance["shape"] == [1, 2]
    assert json.loads(json.dumps(exported.provenance)) == exported.provenance
    if method is BatchTopK:
        assert float(exported.threshold) == pytest.approx(float(inside.threshold) / scale)


@pytest.mark.parametrize("method", methods().values(), ids=methods().keys())
def test_a_trained_sae_can_be_trained_on(method: type[SAE], store, rows) -> None:
    (once,) = train(method(d_in=6, d_sae=64), store, CONFIG, progress=False)
    expected = once(rows(100))
    again = Trainer([Job(once)], CONFIG, store)
    torch.testing.assert_close(again.export()[0][1](rows(100)), expected, rtol=1e-4, atol=1e-4)


def test_master_weights_are_float32_whatever_comes_in(rows) -> None:
    sae = TopK(d_in=6, d_sae=32, k=4).bfloat16()
    (trained,) = train(sae, MemoryStore.from_values(rows(600).bfloat16()), CONFIG, progress=False)
    assert trained.W_dec.dtype == torch.float32


def test_a_step_without_a_finite_loss_is_skipped_and_counted(rows) -> None:
    store = FakeStore.from_values(rows(600))
    trainer = Trainer(_jobs(), CONFIG, store, progress=False)
    batches = [batch for _, batch in zip(range(4), store.batches(64, seed=0), strict=False)]
    trainer.step(batches[0])
    before = [tensor.clone() for tensor in _state(trainer)]
    moments = [v.clone() for o in trainer.optimizers for s in o.state.values() for v in s.values()]
    batches[1].values[3, 2] = math.inf
    metrics = trainer.step(batches[1])
    assert all(torch.equal(now, then) for now, then in zip(_state(trainer), before, strict=True))
    after = [v for o in trainer.optimizers for s in o.state.values() for v in s.values()]
    assert all(torch.equal(now, then) for now, then in zip(after, moments, strict=True))
    assert all(m.skipped == 1 and not math.isfinite(m.loss) for m in metrics)
    assert all(m.skipped == 1 and math.isfinite(m.loss) for m in trainer.step(batches[2]))
    assert all(state.steps == 3 and state.skipped_in_a_row == 0 for state in trainer.states)


def test_too_many_skipped_steps_stop_the_run_with_advice(rows, tmp_path) -> None:
    store = FakeStore.from_values(rows(600))
    store.infinite = (2, 10, 11, 12, 13, 14)
    config = TrainConfig(tokens=20 * 64, batch_size=64, checkpoint_every=4, log_every=1)
    trainer = Trainer(_jobs()[:1], config, store, run=tmp_path / "run", progress=False)
    with pytest.raises(FloatingPointError, match=r"'first' had no finite loss in 5 steps in a row .* lower lr"):
        trainer.run()
    text = (tmp_path / "run/metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, *[1] * 8, 2, 3, 4, 5]
    assert lines[2]["loss"] is None
    assert (tmp_path / "run/checkpoints/step-8").is_dir()
    assert not (tmp_path / "run/DONE").exists()


def test_wrong_jobs_are_refused(store) -> None:
    sae = TopK(d_in=6, d_sae=32)
    with pytest.raises(ValueError, match="jobs are named .* one or more jobs of different names"):
        Trainer([], CONFIG, store)
    with pytest.raises(ValueError, match=r"jobs are named \['topk', 'topk'\].* give each a name="):
        train([sae, TopK(d_in=6, d_sae=64)], store, CONFIG)
    with pytest.raises(ValueError, match=r"'topk' takes activations of width 7, but blocks\.1@in has 6: build it"):
        train(TopK(d_in=7, d_sae=32), store, CONFIG)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stack", [False, True])
def test_a_gpu_trains_as_a_cpu_does(precision: str, stack: bool, store) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        about = {"precision": precision, "stack": stack, "device": device, "path": "sparse", "log_every": 1}
        config = TrainConfig(tokens=60 * 200, batch_size=200, dead_tokens=1000, **about)
        found: list[list[Metrics]] = []
        Trainer(_jobs(), config, store, progress=False, observers=[found.append]).run()
        ends.append([sum(metrics[job].fvu for metrics in found[-20:]) / 20 for job in range(4)])
    assert ends[1] == pytest.approx(ends[0], rel=0.02 if precision == "float32" else 0.1)


def test_by_default_the_store_is_read_once(store) -> None:
    (sae,) = train(TopK(d_in=6, d_sae=32), store, progress=False)
    assert sae.provenance["training"]["tokens"] == 2048  # One batch; smaller stores go round.
    assert not sae.training


def test_penalties_see_where_the_run_is_and_what_has_fired(store) -> None:
    seen = []

    def look(step) -> Tensor:
        seen.append((step.progress, step.scale, step.dead.clone(), step.density.clone(), step.latents.detach()))
        return step.recon.new_zeros(())

    trainer = Trainer([Job(TopK(d_in=6, d_sae=64, k=1), penalties=(look,))], CONFIG, store, progress=False)
    trainer.run()
    assert [part[0] for part in seen] == pytest.approx([step / 20 for step in range(20)])
    assert {part[1] for part in seen} == {trainer.normaliser.scale}
    density = torch.zeros(64)
    for i, (_, _, dead, running, latents) in enumerate(seen):
        recent = torch.cat([before[4].indices for before in seen[max(0, i - 3) : i]] or [latents.indices])
        expected = ~torch.isin(torch.arange(64), recent) if i > 2 else torch.zeros(64, dtype=torch.bool)
        assert torch.equal(dead, expected)  # Silent for more than 128 tokens: for three batches.
        torch.testing.assert_close(running, density)
        density = 0.98 * density + 0.02 * (latents.dense() > 0).float().mean(0)
