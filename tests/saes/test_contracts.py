"""What every method and every penalty keeps, found by walking the package: a new file is tested with no edit here."""

import copy
import dataclasses
import importlib
import inspect
import json
import os
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import saes
import saes.penalties
from interp.types import Activations, Directions, Latents
from saes import axes, weights_file
from saes.base import SAE
from saes.engine.dense import DenseLatents
from saes.loading import methods
from saes.penalties.aux_k import AuxK
from saes.penalties.base import reconstruction
from saes.states import TrainState
from saes.stepping import Moment, forward
from saes.training import Job, TrainConfig, Trainer

METHODS = [pytest.param(method, id=name) for name, method in sorted(methods().items())]


def _penalties() -> list[type]:
    found = []
    for info in pkgutil.iter_modules(saes.penalties.__path__):
        module = importlib.import_module(f"saes.penalties.{info.name}")
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        found += [value for value in own if isinstance(value, type) and "__call__" in vars(value)]
    return [penalty for penalty in found if not getattr(penalty, "_is_protocol", False)]


PENALTIES = [pytest.param(penalty, id=penalty.__name__) for penalty in _penalties()]
TERMS = {"reconstruction": reconstruction} | {penalty.id: penalty.values[0]() for penalty in PENALTIES}
SIZES = ["usual", "one row", "seven rows", "ties", "negative", "none"]


def _leaves(method: type[SAE]) -> set[str]:
    """What the method's activation leaves for penalties."""
    return set(method(d_in=6, d_sae=64).train().encoded(torch.eye(6)).extras)


def _is_linear(method: type[SAE]) -> bool:
    """Whether codes are made of the pre-activations of one linear encoder; what is not has an oracle of its own."""
    return method.encoded is SAE.encoded


def _pairs(*, apply: bool) -> list[tuple[str, str]]:
    """Methods and terms that can be trained with them, by name, or those that cannot."""
    left = {name: _leaves(method) for name, method in methods().items()}
    return [
        (name, term)
        for name in sorted(left)
        for term, call in TERMS.items()
        if (getattr(call, "needs", None) in {None, *left[name]}) == apply
    ]


def _cases(sizes: list[str], *, all_pairs: bool) -> list[tuple[str, str, str]]:
    """Each method with its own terms and each term with one method; all pairs, if asked for, on the first batch."""
    found, seen = [], set()
    for name, term in _pairs(apply=True):
        if not _is_linear(methods()[name]):
            continue
        own = {"reconstruction"} | {type(p).__name__ for p in methods()[name](d_in=6, d_sae=64).default_penalties()}
        looked_at = sizes if term in own or term not in seen else sizes[:1] if all_pairs else []
        found += [(name, term, size) for size in looked_at]
        seen.add(term)
    return found


every_pair = pytest.mark.parametrize(("name", "term"), _pairs(apply=True))
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
every_method = pytest.mark.parametrize("method", METHODS)
every_linear_method = pytest.mark.parametrize("method", [m for m in METHODS if _is_linear(m.values[0])])


@pytest.fixture
def x() -> Tensor:
    return torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make(randomised):
    """Makes a method's SAE: default arguments, random weights, thresholds set, float64, in training."""
    return lambda method: randomised(method(d_in=6, d_sae=64).double()).train()


@pytest.fixture
def sae(method: type[SAE], make) -> SAE:
    return make(method)


@pytest.fixture(scope="module")
def trained(rows) -> dict[type[SAE], SAE]:
    """Each method after a short training with its default job."""
    from interp.stores.memory import MemoryStore

    store = MemoryStore.from_values(rows(2000), site="blocks.1@in", provenance={"model": "tiny", "shape": (1, 2)})
    jobs = [Job(method(d_in=6, d_sae=64)) for method in methods().values()]
    exported = Trainer(jobs, TrainConfig(tokens=60 * 128, batch_size=128), store, progress=False).run()
    return {type(sae): sae for sae in exported}


def _dense(sae: SAE, x: Tensor) -> tuple[Latents, Tensor, dict[str, Tensor]]:
    """The codes, the reconstruction and the extras by full matrices; the support alone is taken over."""
    support = sae.codes(x).detach()
    kept = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc)[support.rows, support.indices]
    values, extras = sae.activate(kept, support)
    latents = support.with_values(values)
    return latents, latents.dense() @ sae.W_dec + sae.b_dec, extras


# Methods ----------------------------------------------------------------------------------------------------------


def test_methods_are_found() -> None:
    assert {"TopK", "BatchTopK", "ReLU", "JumpReLU"} <= set(methods())
    assert SAE not in methods().values()


@every_method
def test_the_source_is_named(method: type[SAE]) -> None:
    assert re.search(r"\(.*\d{4}.*https://\S+\)", inspect.getmodule(method).__doc__.splitlines()[0])


@every_method
def test_the_constructor_is_the_configuration(method: type[SAE]) -> None:
    parameters = inspect.signature(method).parameters.values()
    own = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert [(p.name, p.kind) for p in parameters if p not in own] == [("axes", inspect.Parameter.VAR_KEYWORD)]
    assert [p.name for p in own if p.default is p.empty] == ["d_in", "d_sae"]
    sae = method(d_in=6, d_sae=64)
    assert set(sae.arguments) == {p.name for p in own}
    assert sae.axes == axes.DEFAULTS
    assert json.loads(json.dumps(sae.arguments)) == sae.arguments
    assert all(getattr(sae, p.name) == sae.arguments[p.name] for p in own if p.name != "seed")
    assert isinstance(sae, Directions)
    assert torch.equal(sae.W_dec, method(d_in=6, d_sae=64).W_dec)
    assert not torch.equal(sae.W_dec, method(d_in=6, d_sae=64, seed=1).W_dec)


@every_method
@pytest.mark.parametrize("width", [{"d_in": 0}, {"d_sae": -1}])
def test_impossible_widths_are_refused(method: type[SAE], width: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"d_(in|sae)"):
        method(**({"d_in": 6, "d_sae": 64} | width))


@every_method
@both_modes
def test_signs_of_latents(sae: SAE, x: Tensor, training: bool) -> None:
    values = sae.train(training).encode(x).values
    assert len(values)
    assert (values != 0).all()
    assert sae.signed or (values > 0).all()


@every_linear_method
@both_modes
def test_sparse_equals_dense(sae: SAE, x: Tensor, training: bool) -> None:
    latents, recon, _ = _dense(sae.train(training), x)
    torch.testing.assert_close(sae.encode(x).values, latents.without_zeros().values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sae(x), recon, rtol=1e-12, atol=1e-12)


def _gradients(loss: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the parameters that a loss reaches: what cancels leaves less than rounding does."""
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    grads = {name: grad for name, grad in zip(parameters, found, strict=True) if grad is not None}
    return {name: grad for name, grad in grads.items() if grad.abs().max() > 1e-13}


def _batch(x: Tensor, sae: SAE, size: str) -> Tensor:
    """Rows of one kind; of `negative` rows hardly an entry is positive, of `none` not one."""
    if size in ("negative", "none"):
        with torch.no_grad():
            sae.b_enc.sub_(1.5 if size == "negative" else 1e6)
    return {"one row": x[:1], "seven rows": x[:7], "ties": x[:5].repeat(8, 1)}.get(size, x)


@pytest.mark.parametrize(("name", "term", "size"), _cases(SIZES, all_pairs=True))
def test_every_gradient_of_every_term_equals_autograd_and_is_not_zero(name, term, size, make, x: Tensor, step_of):
    # Features that this batch never fires count as dead, and some others with them.
    sae, call = make(methods()[name]), TERMS[term]
    parameters, x = dict(sae.named_parameters()), _batch(x, sae, size)
    latents, recon, extras = _dense(sae, x)
    found = _gradients(call(step_of(sae, x)), parameters)
    expected = _gradients(call(step_of(sae, x, latents, recon, extras=extras)), parameters)
    assert found.keys() == expected.keys()
    if size == "usual":
        assert found
        assert "W_enc" in found or getattr(call, "needs", None)
    for name, ours in found.items():
        torch.testing.assert_close(
            ours, expected[name], rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


@every_method
def test_every_parameter_is_trained_by_the_default_job(sae: SAE, x: Tensor, step_of) -> None:
    parameters, reached = dict(sae.named_parameters()), set()
    for term in (reconstruction, *sae.default_penalties()):
        reached |= _gradients(term(step_of(sae, x)), parameters).keys()
    assert reached == set(parameters)


@pytest.mark.parametrize(("name", "term"), _pairs(apply=False))
def test_a_term_that_cannot_be_trained_says_so(name: str, term: str, make, x: Tensor, step_of) -> None:
    sae, call = make(methods()[name]), TERMS[term]
    with pytest.raises(
        ValueError, match=rf"{term}, which needs '{call.needs}' .* but {name} leaves none .* or train a"
    ):
        call(step_of(sae, x))


@pytest.mark.parametrize(("name", "term", "size"), _cases(["usual", "one row", "ties", "none"], all_pairs=False))
def test_the_dense_engine_agrees_with_the_sparse_one(name: str, term: str, size: str, make, x: Tensor) -> None:
    """Losses and gradients as the trainer makes them, dead latents along with the codes."""
    sae, call = make(methods()[name]), TERMS[term]
    parameters, x = dict(sae.named_parameters()), _batch(x, sae, size)
    found = {}
    for path in ("sparse", "dense"):
        state = TrainState.start(sae)
        state.silent[::2] = 1000
        state.review(dead_after=10, path=path)
        config = TrainConfig(tokens=640, batch_size=64, dead_tokens=10, path=path)
        rows = Activations(x, torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long))
        step = forward(Job(sae, penalties=(AuxK(),)), state, rows, Moment(config, 5, 1.0))
        assert isinstance(step.latents, DenseLatents) == (path == "dense")
        loss = call(step)
        found[path] = (loss.detach(), step.latents.dense().detach(), _gradients(loss, parameters))
    for ours, theirs in zip(found["sparse"][:2], found["dense"][:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert torch.equal(found["sparse"][1] != 0, found["dense"][1] != 0)
    assert found["sparse"][2].keys() == found["dense"][2].keys()
    for name, grad in found["sparse"][2].items():
        torch.testing.assert_close(grad, found["dense"][2][name], rtol=1e-11, atol=1e-12)


@every_linear_method
def test_gradients_reach_the_input(sae: SAE, x: Tensor) -> None:
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    sae(ours).sin().sum().backward()
    _dense(sae, theirs)[1].sin().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@every_pair
def test_the_loss_does_not_depend_on_the_batch_size(name: str, term: str, make, x: Tensor, step_of) -> None:
    sae, call = make(methods()[name]), TERMS[term]
    once, twice = call(step_of(sae, x)), call(step_of(sae, torch.cat([x, x])))
    assert float(once.detach()) == pytest.approx(float(twice.detach()), rel=1e-12)


@every_method
def test_evaluation_sees_one_row_at_a_time(sae: SAE, x: Tensor) -> None:
    x = x[:12]
    whole = sae.eval().encode(x)
    apart = torch.cat([sae.encode(row[None]).dense() for row in x])
    torch.testing.assert_close(apart, whole.dense(), rtol=1e-12, atol=1e-12)
    assert torch.equal(apart != 0, whole.dense() != 0)
    with_giants = sae.encode(torch.cat([x, 1e3 * x]))
    assert torch.equal(with_giants[: len(x)].indices, whole.indices)


@every_method
def test_forward_is_pure_and_modes_can_be_changed(sae: SAE, x: Tensor) -> None:
    state, kept = copy.deepcopy(sae.state_dict()), x.clone()
    before = sae.train()(x)
    sae.eval()(x)
    assert torch.equal(sae.train()(x), before)
    assert torch.equal(x, kept)
    assert all(torch.equal(state[name], value) for name, value in sae.state_dict().items())


@every_method
def test_bfloat16_is_close_to_float32(method: type[SAE], trained: dict[type[SAE], SAE], rows) -> None:
    x, sae = rows(500, seed=1), trained[method]
    rough = copy.deepcopy(sae).bfloat16()(x).float()  # `encode` takes rows of any precision.

    def fvu(recon: Tensor) -> float:
        return float((x - recon.detach()).square().sum() / (x - x.mean(0)).square().sum())

    assert fvu(sae(x)) < 0.5
    assert abs(fvu(rough) - fvu(sae(x))) < 0.01


@every_method
def test_a_wrong_width_is_refused(method: type[SAE], trained: dict[type[SAE], SAE]) -> None:
    with pytest.raises(ValueError, match=r"x has shape \[2, 7\], but this SAE takes \[n, 6\]: harvest"):
        method(d_in=6, d_sae=64).encode(torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r"harvest blocks\.1@in again"):
        trained[method].encode(torch.zeros(2, 5))


# Files ------------------------------------------------------------------------------------------------------------


@every_method
def test_a_saved_sae_comes_back_the_same(method: type[SAE], trained: dict[type[SAE], SAE], rows, tmp_path) -> None:
    sae, x = trained[method], rows(50, seed=2)
    sae.labels = {3: "three", 60: "sixty"}
    sae.save(tmp_path / "sae.safetensors")
    loaded = saes.load(tmp_path / "sae.safetensors")
    assert type(loaded) is method
    assert not loaded.training
    for name, value in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    about = ("arguments", "site", "labels", "provenance", "d_in", "d_sae")
    assert all(getattr(loaded, name) == getattr(sae, name) for name in about)
    assert loaded.provenance["model"] == "tiny"
    assert loaded.provenance["training"]["tokens"] == 60 * 128
    assert sae.W_enc is None or loaded.W_enc.stride() == sae.W_enc.stride() == (1, 6)
    assert torch.equal(loaded(x), sae(x))
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "sae.safetensors").read_bytes()


@every_method
def test_precision_survives_a_file(method: type[SAE], randomised, tmp_path) -> None:
    sae = randomised(method(d_in=6, d_sae=64).double())
    sae.save(tmp_path / "sae.safetensors")
    loaded = saes.load(tmp_path / "sae.safetensors")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in sae.state_dict().items())


def _crafted(path: Path, name: str, arguments: object) -> Path:
    sae = next(iter(methods().values()))(d_in=6, d_sae=64)
    weights_file.write(path, sae.state_dict(), {"class": name, "arguments": arguments})
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "builtins.exec", "torch.load", "torch.nn.modules.linear.Linear", "", "TopK", "topk.TopK"),
        *("saes.base.load", "saes.base.SAE", "saes.training.train", "saes.training.Trainer", "saes.weights_file.write"),
        *("saes.topk.check_k", "saes.topk.AuxK", "saes.topk.SAE", "saes.topk.__name__", "saes.nothing.Nothing"),
    ],
)
def test_a_file_that_names_no_method_is_refused_before_anything_is_called(name, tmp_path, monkeypatch) -> None:
    path = _crafted(tmp_path / "sae.safetensors", name, {"path": str(tmp_path / "made"), "d_in": 6, "d_sae": 64})
    called = []
    targets = [(os, "system"), (torch, "load"), (SAE, "__init__"), (weights_file, "write")]
    for target, attribute in [*targets, (importlib.import_module("saes.training"), "train")]:
        monkeypatch.setattr(target, attribute, lambda *args, **kwargs: called.append((args, kwargs)))
    with pytest.raises(ValueError, match=r"names the class .*, which is no method of saes: known are saes\."):
        saes.load(path)
    assert not called
    assert [p.name for p in tmp_path.iterdir()] == ["sae.safetensors"]


@every_method
@pytest.mark.parametrize(
    "arguments",
    [
        {"d_in": 6},
        {"d_in": 6, "d_sae": 64, "nonsense": 1},
        {"d_in": 6, "d_sae": -64},
        {"d_in": 7, "d_sae": 64},
        {"d_in": "6", "d_sae": 64},
        ["d_in", "d_sae"],
        None,
    ],
)
def test_wrong_arguments_are_refused(method: type[SAE], arguments: object, tmp_path) -> None:
    path = _crafted(tmp_path / "sae.safetensors", f"{method.__module__}.{method.__name__}", arguments)
    with pytest.raises(ValueError, match=r"(?s)sae\.safetensors does not fit saes\..* damaged or from another version"):
        saes.load(path)


# Penalties --------------------------------------------------------------------------------------------------------


def test_penalties_are_found() -> None:
    assert {"AuxK", "L1", "L0"} <= {penalty.id for penalty in PENALTIES}


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_is_a_sourced_record_of_plain_values(penalty: type) -> None:
    assert re.search(r"\(.*\d{4}.*https://\S+\)", inspect.getmodule(penalty).__doc__.splitlines()[0])
    values = dataclasses.asdict(penalty())
    assert json.loads(json.dumps(values)) == values
    assert penalty.__dataclass_params__.frozen
    with pytest.raises(ValueError, match="coefficient -1"):
        penalty(coefficient=-1.0)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_is_pure_and_linear_in_its_coefficient(penalty: type, x: Tensor, step_of, make) -> None:
    needs = getattr(penalty, "needs", None)
    sae = make(next(method for method in methods().values() if needs in {None, *_leaves(method)}))
    step = step_of(sae, x)
    tensors = (*sae.state_dict().values(), step.latents.values, step.recon, step.dead, step.density, step.x)
    kept = [tensor.detach().clone() for tensor in tensors]
    once, twice, none = (float(penalty(coefficient=c)(step).detach()) for c in (0.5, 1.0, 0.0))
    assert twice == pytest.approx(2 * once)
    assert once > 0
    assert none == 0
    assert all(torch.equal(now, then) for now, then in zip(tensors, kept, strict=True))
