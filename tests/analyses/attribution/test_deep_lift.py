import builtins
from typing import Any

import pytest
import torch
from torch import nn

from analyses.attribution.deep_lift import DeepLIFT
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from analyses.scores.class_logit import ClassLogit
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site

PIXELS = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = [0, 2, 1, 1]


@pytest.fixture(autouse=True)
def _captum(needs: Any) -> None:
    needs("captum")


def _plain(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(2, 4, 3, 1, 1), nn.ReLU(inplace=True), *middle]
    layers = [*first, nn.Conv2d(4, 5, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)]
    net = nn.Sequential(*layers)
    net(PIXELS.float())
    return net.double()


def _runner(net: nn.Module, site: str = "input", batch_size: int = 32, score: Any = None) -> Runner:
    sides = {"0": 6, "2": 3}
    grid = {site: Geometry("grid", grid=(sides[site],) * 2, channels="first")} if site in sides else None
    scorer = Scorer(TorchModel(net, geometry=grid), score or ClassLogit(TARGETS))
    return Runner(scorer, Examples.all(Inputs({"x": PIXELS})), Site(site), batch_size=batch_size)


def _rescaled(net: nn.Sequential, x: torch.Tensor, baseline: torch.Tensor, target: int) -> torch.Tensor:
    """The paper's rescale rule for one example, layer by layer from the top: linear layers multiply by their matrix,
    activations by the change of the output over that of the input."""
    values = [(x[None], baseline[None])]
    for layer in net:
        values.append(tuple(layer(value.clone()).detach() for value in values[-1]))  # type: ignore[arg-type]
    multipliers = (torch.arange(3) == target).double()[None]
    for layer, ins, outs in zip(reversed(net), reversed(values[:-1]), reversed(values[1:]), strict=True):
        if isinstance(layer, nn.ReLU | nn.Tanh):
            multipliers = multipliers * (outs[0] - outs[1]) / (ins[0] - ins[1])
        else:
            matrix = torch.autograd.functional.jacobian(layer, ins[0]).reshape(multipliers.numel(), -1)
            multipliers = (multipliers.flatten() @ matrix).view(ins[0].shape)
    return (multipliers * (x - baseline))[0]


def test_equals_the_rescale_rule_written_out() -> None:
    net = _plain()
    found = DeepLIFT(baseline=0.1).attributions(_runner(net))
    for i, target in enumerate(TARGETS):
        expected = _rescaled(net, PIXELS[i], torch.full_like(PIXELS[i], 0.1), target)
        torch.testing.assert_close(found[i], expected, rtol=1e-9, atol=1e-12)


def test_equals_captum_called_plainly_and_adds_up() -> None:
    from captum.attr import DeepLift

    net = _plain()
    with pytest.warns(UserWarning, match="hooks"):
        theirs = DeepLift(net).attribute(PIXELS.clone(), torch.zeros_like(PIXELS), target=torch.tensor(TARGETS))
    for size in (1, 3, 32):
        maps, details = DeepLIFT().measured(_runner(net, batch_size=size))
        torch.testing.assert_close(maps, theirs.sum(1).detach(), rtol=1e-12, atol=1e-12)
        assert float(details["gap"].abs().max()) < 1e-12


@pytest.mark.parametrize("layer", [0, 2])
def test_at_a_layer_it_adds_up_too_and_is_that_of_the_network_above_it(layer: int) -> None:
    net = _plain()
    runner = _runner(net, str(layer))
    found = DeepLIFT().attributions(runner)
    change = runner.scores() - runner.scores(torch.zeros_like(runner.values))
    torch.testing.assert_close(found.flatten(1).sum(1), change)
    for i, target in enumerate(TARGETS):
        inner = runner.values[i]
        expected = _rescaled(net[layer + 1 :], inner, torch.zeros_like(inner), target)
        torch.testing.assert_close(found[i], torch.nan_to_num(expected), rtol=1e-9, atol=1e-12)


def test_examples_are_not_mixed_by_pooling() -> None:
    net = _plain(nn.MaxPool2d(2))
    together, details = DeepLIFT().measured(_runner(net))
    for i in range(4):
        alone = Runner(Scorer(TorchModel(net), ClassLogit(TARGETS[i])), _one(i), Site("input"))
        torch.testing.assert_close(DeepLIFT().measured(alone)[0][0], together[i], rtol=1e-12, atol=1e-12)
    assert float(details["gap"].abs().max()) < 1e-10


def _one(i: int) -> Examples:
    return Examples.all(Inputs({"x": PIXELS[i : i + 1]}))


def test_an_activation_that_is_called_as_a_function_shows_in_the_gap() -> None:
    net = _plain()
    hidden = nn.Sequential(net[0], net[2], net[5])
    hidden.forward = lambda x: net[5](net[2](net[0](x).relu()).tanh().flatten(1))  # type: ignore[method-assign]
    _, details = DeepLIFT().measured(_runner(hidden))
    assert float(details["gap"].abs().min()) > 1e-3


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(72, 5), nn.Linear(5, 3), nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.second(self.act(self.first(x.flatten(1)))))


def test_one_module_at_two_places_is_refused_and_left_as_found() -> None:
    net = Twice().double()
    before = {name: set(vars(part)) for name, part in net.named_modules()}
    with pytest.raises(ValueError, match="Twice uses one module of an activation at several places"):
        DeepLIFT().measured(_runner(net))
    assert {name: set(vars(part)) for name, part in net.named_modules()} == before
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_one_module_on_both_sides_of_the_site_is_refused() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), relu, nn.Conv2d(4, 5, 3, 2, 1), relu, nn.Flatten(), nn.Linear(45, 3))
    with pytest.raises(ValueError, match="uses one module of an activation at several places"):
        DeepLIFT().attributions(_runner(net.double(), "2"))


def test_what_has_no_gradient_is_refused(texts: Any) -> None:
    tokens = texts()
    with pytest.raises(ValueError, match=r"input holds torch.int64, which has no gradient: choose a site after it"):
        DeepLIFT().measured(Runner(tokens.scorer, tokens.examples, Site("input")))
    with pytest.raises(ValueError, match="the score does not depend on input: choose an earlier site"):
        DeepLIFT().measured(_runner(_plain(), score=lambda output: torch.ones(len(output), dtype=torch.float64)))


def test_a_missing_library_is_named(monkeypatch: Any) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("captum"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r'which is not installed: pip install "unweave\[attribution\]"'):
        DeepLIFT().measured(_runner(_plain()))
