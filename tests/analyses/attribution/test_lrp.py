import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from analyses.attribution.lrp import LRP
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from analyses.scores.class_logit import ClassLogit
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site

GOLDENS = Path(__file__).parents[2] / "goldens"
RULES = ["epsilon", "plus", "gamma", "alpha_beta"]
PIXELS = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _plain(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(2, 4, 3, 1, 1, bias=bias), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(4, 5, 3, 2, 1, bias=bias), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*first, *second, nn.Linear(20, 7, bias=bias), nn.ReLU(), nn.Linear(7, 3, bias=bias)).double()


def _runner(net: nn.Module, site: str = "input", x: torch.Tensor = PIXELS, score: Any = None) -> Runner:
    model = TorchModel(net, geometry={"3": Geometry("grid", grid=(2, 2), channels="first")} if site == "3" else None)
    return Runner(Scorer(model, score or ClassLogit([0, 2, 1])), Examples.all(Inputs({"x": x})), Site(site))


def _shared(added: torch.Tensor, bias: torch.Tensor, relevance: torch.Tensor, rule: str, method: LRP) -> torch.Tensor:
    """The papers' rules for one layer: `added[j, i]` is what input i adds to output j."""

    def away(z: torch.Tensor, epsilon: float) -> torch.Tensor:
        return z + epsilon * torch.where(z < 0, -1.0, 1.0)

    def among(parts: torch.Tensor, whole: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
        return (parts * (relevance / away(whole, epsilon))[:, None]).sum(0)

    up, down, z = added.clamp(min=0), added.clamp(max=0), added.sum(1) + bias
    raised, lowered = up.sum(1) + bias.clamp(min=0), down.sum(1) + bias.clamp(max=0)
    if rule == "epsilon":
        return among(added, z, method.epsilon)
    if rule == "plus":
        return among(up, raised)
    if rule == "alpha_beta":
        return method.alpha * among(up, raised) - (method.alpha - 1) * among(down, lowered)
    positive = z > 0
    parts = added + method.gamma * torch.where(positive[:, None], up, down)
    return among(parts, z + method.gamma * torch.where(positive, raised, lowered))


def _reference(net: nn.Sequential, x: torch.Tensor, target: int, method: LRP) -> torch.Tensor:
    """One example, from the top: each linear layer as a matrix, everything else passes on what it gets."""
    values = [x[None]]
    for layer in net:
        values.append(layer(values[-1]).detach())
    relevance = values[-1][0] * (torch.arange(3) == target)
    for layer, value in zip(reversed(net), reversed(values[:-1]), strict=True):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            rule = method.linear if isinstance(layer, nn.Linear) else method.convolutions
            out = layer(value)
            bias = torch.zeros_like(out) if layer.bias is None else (layer(torch.zeros_like(value))).expand_as(out)
            matrix = torch.autograd.functional.jacobian(layer, value).reshape(out.numel(), value.numel())
            added = matrix * value.flatten()
            relevance = _shared(added, bias.detach().flatten(), relevance.flatten(), rule, method).view(value.shape[1:])
        elif isinstance(layer, nn.MaxPool2d):
            where = nn.functional.max_pool2d(value, 2, return_indices=True)[1]
            relevance = nn.functional.max_unpool2d(relevance[None], where, 2, output_size=value.shape)[0]
        elif isinstance(layer, nn.Flatten):
            relevance = relevance.view(value.shape[1:])
    return relevance


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_rules_written_with_what_each_input_adds(rule: Any, bias: bool) -> None:
    net = _plain(bias)
    for method in (LRP(convolutions=rule), LRP(convolutions="epsilon", linear=rule, epsilon=0.03, alpha=1.5)):
        found = method.attributions(_runner(net))
        for i, target in enumerate([0, 2, 1]):
            torch.testing.assert_close(found[i], _reference(net, PIXELS[i], target, method), rtol=1e-8, atol=1e-10)


def _networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("networks", GOLDENS / "networks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rule", RULES)
def test_equals_zennits_composites(rule: Any) -> None:
    networks = _networks()
    method = LRP(convolutions=rule, epsilon=0.01 if rule == "gamma" else 1e-6)
    runner = _runner(networks.plain(), x=networks.pixels(), score=ClassLogit(networks.CLASSES))
    theirs = load_file(GOLDENS / "relevance.safetensors")[rule].double()
    found = method.attributions(runner)
    assert float((found - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())
    assert json.loads((GOLDENS / "relevance.json").read_text())["zennit"] == "0.5.1"


@pytest.mark.parametrize("site", ["input", "0", "3", "6"])
@pytest.mark.parametrize("rule", RULES)
def test_without_biases_relevance_adds_up_to_the_score_everywhere(rule: Any, site: str) -> None:
    net = _plain(bias=False)
    runner = _runner(net, site)
    found = LRP(convolutions=rule, epsilon=0.0).attributions(runner)
    torch.testing.assert_close(found.flatten(1).sum(1), runner.scores(), rtol=1e-4, atol=1e-6)


def test_gap_is_what_biases_take() -> None:
    maps, details = LRP(epsilon=0.0, convolutions="epsilon").measured(_runner(_plain()))
    scores = _runner(_plain()).scores()
    assert maps.shape == (3, 6, 6) and float(details["gap"].abs().min()) > 1e-3
    torch.testing.assert_close(maps.sum((1, 2)) - details["gap"], scores)
    # With the epsilon rule alone, and ReLU, it is gradient times input.
    runner = _runner(_plain())
    torch.testing.assert_close(maps, (runner.values * runner.gradients()[1]).sum(1))


class Skips(nn.Module):
    def __init__(self, modules: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.Conv2d(4, 4, 3, 1, 1, bias=False)
        self.head = nn.Linear(4, 3, bias=False)
        self.relu = nn.ReLU(inplace=True) if modules else torch.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.second(x) + x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("rule", RULES)
def test_skips_means_and_functions_keep_relevance(rule: Any) -> None:
    found = [LRP(convolutions=rule, epsilon=0.0).attributions(_runner(Skips(kind).double())) for kind in (True, False)]
    torch.testing.assert_close(found[0], found[1])
    if rule == "alpha_beta":  # some units have a side to which nothing was added
        return
    scores = _runner(Skips(True).double()).scores()
    torch.testing.assert_close(found[0].flatten(1).sum(1), scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("inplace", [True, False])
def test_batch_normalisation_is_merged_into_the_layer_before(rule: Any, inplace: bool) -> None:
    torch.manual_seed(5)
    conv, norm = nn.Conv2d(2, 4, 3, 1, 1), nn.BatchNorm2d(4)
    for part in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(part)  # slopes of both signs
    nn.init.uniform_(norm.running_var, 0.5, 2)
    top = [nn.ReLU(inplace), nn.Flatten(), nn.Linear(144, 3)]
    net = nn.Sequential(conv, norm, *top).double().eval()
    fused = nn.Sequential(fuse_conv_bn_eval(conv, norm), *top)
    method = LRP(convolutions=rule)
    theirs = method.attributions(_runner(fused))
    torch.testing.assert_close(method.attributions(_runner(net)), theirs, rtol=1e-8, atol=1e-10)


def test_smooth_activations_pass_on_what_they_get() -> None:
    torch.manual_seed(6)
    layers = [nn.Flatten(), nn.Linear(72, 6, bias=False), nn.SiLU(inplace=True), nn.Linear(6, 3, bias=False)]
    net = nn.Sequential(*layers).double()
    runner = _runner(net)
    maps, details = LRP(epsilon=0.0).measured(runner)
    torch.testing.assert_close(maps.sum((1, 2)), runner.scores())
    assert float(details["gap"].abs().max()) < 1e-10 and net[2].inplace
    # Called as a function it has no rule, which the gap shows.
    bare = nn.Sequential(net[1], net[3])
    bare.forward = lambda x: net[3](nn.functional.silu(net[1](x.flatten(1))))  # type: ignore[method-assign]
    assert float(LRP(epsilon=0.0).measured(_runner(bare))[1]["gap"].abs().min()) > 1e-3


def test_relevance_at_a_layer_is_that_of_the_network_above_it() -> None:
    net = _plain()
    above = net[4:]
    inner = net[:4](PIXELS).detach()
    found = LRP(linear="plus").attributions(_runner(net, "3"))
    torch.testing.assert_close(found, LRP(linear="plus").attributions(_runner(above, x=inner)))


def test_the_model_is_left_as_found_when_a_score_fails() -> None:
    def fails(output: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")

    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.SiLU(inplace=True), nn.Flatten()).double()
    with pytest.raises(RuntimeError, match="no"):
        LRP().measured(_runner(net, score=fails))
    assert all(not part._forward_hooks and not part._forward_pre_hooks and part.training for part in net.modules())
    assert net[2].inplace


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="linear is 'zplus', but rules are epsilon, plus, gamma, alpha_beta"):
        # Past the shape checks of the tests, which refuse it first.
        LRP.__post_init__(SimpleNamespace(convolutions="plus", linear="zplus"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"alpha 0.5, but they are at least 0, 0 and 1"):
        LRP(alpha=0.5)


class _Between(nn.Module):
    """A convolution and a batch normalisation with something in place between them, or beside them."""

    def __init__(self, kind: str, *, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.Linear(144, 3)
        self.other, self.kind, self.inplace = nn.Conv2d(2, 4, 1, bias=False), kind, inplace
        self.norm.running_var.uniform_(0.2, 2)
        self.norm.weight.data = torch.tensor([1.0, -0.5, 2.0, 0.7])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.conv(x)
        if self.kind == "relu":
            made = made.relu_() if self.inplace else made.relu()
        else:
            added = self.other(x)
            made = made.add_(added) if self.inplace else made + added
        return self.head(self.norm(made).flatten(1))


@pytest.mark.parametrize("kind", ["relu", "add"])
def test_a_batch_norm_is_merged_into_no_layer_that_something_stands_behind(kind: str) -> None:
    found = [
        LRP(convolutions="epsilon").attributions(_runner(_Between(kind, inplace=inplace).double().eval()))
        for inplace in (False, True)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


class _Forked(nn.Module):
    """A convolution whose output goes through a batch normalisation and past it; or two convolutions alike."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.Linear(144, 3)
        self.second = nn.Conv2d(2, 4, 3, 1, 1, bias=False)
        self.second.load_state_dict(self.conv.state_dict())
        self.norm.weight.data, self.twice = torch.tensor([1.0, -0.5, 2.0, 0.7]), twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.conv(x)
        past = self.second(x) if self.twice else made
        return self.head((self.norm(made).relu() + past).flatten(1))


@pytest.mark.parametrize("rule", RULES)
def test_what_passes_a_batch_norm_by_has_a_share_of_its_own(rule: Any) -> None:
    found = [
        LRP(convolutions=rule).attributions(_runner(_Forked(twice=twice).double().eval())) for twice in (False, True)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_the_activations_of_transformers_pass_on_what_they_get() -> None:
    from transformers.activations import GELUActivation

    torch.manual_seed(0)
    linear = [nn.Linear(4, 8, bias=False), nn.Linear(8, 3, bias=False)]
    x = torch.randn(3, 4, dtype=torch.float64)
    found = []
    for activation in (nn.GELU(), GELUActivation()):
        net = nn.Sequential(linear[0], activation, linear[1]).double()
        found.append(LRP(epsilon=0.0).attributions(_runner(net, x=x)))
    torch.testing.assert_close(found[0], found[1])
