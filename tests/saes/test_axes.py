"""The axes of a method, in all products with the selections: what is allowed works, what is refused says why."""

import itertools

import pytest
import torch

import saes
from interp.stores.memory import MemoryStore
from interp.stores.paired import paired
from interp.types import Activations
from saes.axes import DEFAULTS, parametrizations
from saes.base import SAE
from saes.loading import methods
from saes.penalties.base import reconstruction
from saes.states import TrainState
from saes.stepping import Moment, forward
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer, train

VALUES = {
    "target": [{}, {"d_out": 5}, {"d_out": 5, "skip": True}],
    "prefixes": [{}, {"prefixes": [8, 64]}],
    "parametrization": [{}, *({"parametrization": {"class": name}} for name in sorted(parametrizations()))],
}
PRODUCTS = [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*VALUES.values())]
# Every product with two selections; with the others each axis on its own, and all at once.
FEW = [product for product in PRODUCTS if len({"d_out", "prefixes", "parametrization"} & set(product)) in (1, 3)]
EVERY_PRODUCT = {"TopK", "JumpReLU"}
CASES = [
    pytest.param(method, product, id=f"{name}-{product}")
    for name, method in sorted(methods().items())
    for product in (PRODUCTS if name in EVERY_PRODUCT else [*FEW[:5], FEW[-1]])
]


def _store(rows, *, target: bool) -> MemoryStore:
    x = rows(600)
    store = MemoryStore.from_values(x, site="blocks.1", provenance={"model": "tiny"})
    if not target:
        return store
    y = torch.relu(x) @ torch.randn(6, 5, generator=torch.Generator().manual_seed(5)) + 7
    return paired(store, MemoryStore.from_values(y, site="blocks.2", provenance={"model": "tiny"}))


@pytest.mark.parametrize(("method", "product"), CASES)
def test_every_product_trains_or_is_refused(method: type[SAE], product: dict, rows, tmp_path) -> None:
    if refused := [name for name in product if name in method.refuses]:
        with pytest.raises(ValueError, match=rf"({'|'.join(refused)}) is .*, but {method.__name__} .*: leave .* out"):
            method(d_in=6, d_sae=64, **product)
        return
    sae = method(d_in=6, d_sae=64, **product)
    store = _store(rows, target=sae.axes["d_out"] is not None)
    started = {name: value.clone() for name, value in sae.named_parameters()}
    config = TrainConfig(tokens=10 * 64, batch_size=64, log_every=40)
    trainer = Trainer([Job(sae)], config, store, progress=False)
    first = trainer.step(next(iter(store.batches(64, seed=1))), log=True)[0]
    trained = trainer.run()[0]
    last = trainer.step(next(iter(store.batches(64, seed=1))), log=True)[0]
    assert last.fvu < first.fvu
    assert all(not torch.equal(value, started[name]) for name, value in sae.named_parameters()), "all parts learn"
    trained.save(tmp_path / "sae.safetensors")
    x = rows(50, seed=1)
    assert torch.equal(saes.load(tmp_path / "sae.safetensors")(x), trained(x))
    assert trained(x).shape == (50, sae.d_out)


@pytest.mark.parametrize("given", [{"d_out": 0}, {"skip": True}, {"prefixes": [8, 8, 64]}, {"prefixes": [8]}])
def test_impossible_axes_are_refused(given: dict) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(given))} is .*(give|leave)"):
        TopK(d_in=6, d_sae=64, **given)


def test_a_parametrization_is_named_with_its_own_arguments() -> None:
    with pytest.raises(ValueError, match="class 'Linear', but known are Archetypal, LinearBasis"):
        TopK(d_in=6, d_sae=64, parametrization={"class": "Linear"})
    with pytest.raises(ValueError, match="parametrization has width, but Archetypal takes points, delta"):
        TopK(d_in=6, d_sae=64, parametrization={"class": "Archetypal", "width": 3})
    with pytest.raises(TypeError, match="TopK takes no argument d_ouT"):
        TopK(d_in=6, d_sae=64, d_ouT=3)


# Targets ----------------------------------------------------------------------------------------------------------


def _batch(store) -> Activations:
    batch = next(iter(store.batches(64, seed=0)))
    return batch.to("cpu", torch.float64)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_predicts_the_target_as_written_row_by_row(skip: bool, rows, randomised) -> None:
    sae = randomised(TopK(d_in=6, d_sae=64, k=3, d_out=5, skip=skip).double())
    batch = _batch(_store(rows, target=True))
    loss = 0.0
    for x, y in zip(batch.values, batch.target, strict=True):
        z = (x - sae.b_in) @ sae.W_enc + sae.b_enc
        code = torch.zeros_like(z)
        best = z.topk(3).indices
        code[best] = z[best].relu()
        recon = code @ sae.W_dec + sae.b_dec + (x @ sae.W_skip if skip else 0)
        loss = loss + (y - recon).square().sum() / len(batch.values)
    parameters = list(sae.parameters())
    expected = torch.autograd.grad(loss, parameters)
    step = forward(Job(sae), TrainState.start(sae), batch, Moment(TrainConfig(), 1, 1.0))
    found = torch.autograd.grad(reconstruction(step), parameters)
    for (name, _), ours, theirs in zip(sae.named_parameters(), found, expected, strict=True):
        assert theirs.any(), name
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def test_without_latents_the_best_skip_is_least_squares(rows) -> None:
    sae = TopK(d_in=6, d_sae=64, d_out=5, skip=True).double()
    batch = _batch(_store(rows, target=True))
    with torch.no_grad():
        sae.b_enc.fill_(-1e9)
        ones = torch.cat([batch.values, torch.ones(64, 1, dtype=torch.float64)], dim=1)
        solution = torch.linalg.lstsq(ones, batch.target).solution
        sae.W_skip.copy_(solution[:-1])
        sae.b_dec.copy_(solution[-1])
    step = forward(Job(sae), TrainState.start(sae), batch, Moment(TrainConfig(), 1, 1.0))
    reconstruction(step).backward()
    assert step.latents.without_zeros().values.numel() == 0
    assert float(sae.W_skip.grad.abs().max()) < 1e-10
    assert float(sae.b_dec.grad.abs().max()) < 1e-10


def test_units_of_both_sites_are_folded_back(rows, tmp_path) -> None:
    """Sites in other units give the same transcoder in those units."""
    x, y = (lambda store: (store.values, store.target))(_store(rows, target=True).rows(torch.arange(600)))
    found = []
    for a, b in ((1.0, 1.0), (64.0, 0.125)):  # Powers of two: not a bit is lost.
        stores = [MemoryStore.from_values(part * c, site=s) for part, c, s in ((x, a, "in"), (y, b, "out"))]
        sae = TopK(d_in=6, d_sae=64, k=3, d_out=5, skip=True)
        run = {"run": tmp_path / f"{a}", "progress": False}
        found.append(train(sae, paired(*stores), TrainConfig(tokens=40 * 64, batch_size=64), **run)[0])
    plain, scaled = found
    torch.testing.assert_close(scaled(x * 64) * 8, plain(x), rtol=1e-4, atol=1e-4)
    assert saes.evaluate(plain, _store(rows, target=True), resamples=0)["fvu"].value < 0.3


def test_a_store_and_a_job_must_agree_on_targets(rows) -> None:
    with pytest.raises(ValueError, match=r"job 'topk' has d_out None, but blocks.1 has targets of width 5: build it"):
        Trainer([Job(TopK(d_in=6, d_sae=64))], TrainConfig(), _store(rows, target=True))
    with pytest.raises(ValueError, match=r"has d_out 5, but blocks.1 has no targets"):
        Trainer([Job(TopK(d_in=6, d_sae=64, d_out=5))], TrainConfig(), _store(rows, target=False))


def test_defaults_are_no_axis_at_all() -> None:
    plain, named = TopK(d_in=6, d_sae=64), TopK(d_in=6, d_sae=64, **DEFAULTS)
    assert plain.arguments == named.arguments
    assert [name for name, _ in plain.named_parameters()] == ["W_enc", "W_dec", "b_enc", "b_dec"]
