from typing import Any

import pytest
import torch
from torch import nn

from analyses.attribution.full_grad import FullGrad
from analyses.attribution.input_x_gradient import InputXGradient
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from analyses.scores.class_logit import ClassLogit
from analyses.scores.embedding_norm import EmbeddingNorm
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site


def _sum(terms: dict[Site, torch.Tensor], rest: torch.Tensor) -> torch.Tensor:
    return sum((term.flatten(1).sum(1) for term in terms.values()), rest)


class Rectified(nn.Module):
    """Piecewise linear: convolutions with biases, batch norm, ReLU, a skip, max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(2, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 1, 1)
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)).relu()
        return self.head(self.pool((self.second(x) + x).relu()).mean((2, 3)))


def _rectified() -> Runner:
    torch.manual_seed(0)
    net = Rectified().double()
    nn.init.normal_(net.norm.running_mean)
    nn.init.normal_(net.norm.bias)
    grid = Geometry("grid", grid=(6, 8), stride=(1, 1), input_size=(6, 8))
    model = TorchModel(net, geometry={"first": grid, "norm": grid, "second": grid})
    return Runner(
        Scorer(model, ClassLogit(1)), Examples.all(Inputs({"x": torch.randn(3, 2, 6, 8).double()})), Site("input")
    )


def test_of_a_piecewise_linear_network_terms_are_gradient_times_each_bias() -> None:
    """The paper's own definition: the parameters' biases, and what batch norm subtracts as one more."""
    runner = _rectified()
    net, x = runner.scorer.model.module.eval(), runner.inputs.tensors["x"]
    terms, rest = FullGrad().terms(runner)
    norm = net.norm
    biases = {
        "first": net.first.bias,
        "norm": norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt(),
        "second": net.second.bias,
    }
    leaf, made = x.clone().requires_grad_(), {}
    handles = [
        getattr(net, name).register_forward_hook(lambda _m, _a, out, name=name: made.__setitem__(name, out))
        for name in biases
    ]
    logits = net(leaf)[:, 1]
    places = [leaf, *(made[name] for name in biases)]
    grads = dict(zip(["input", *biases], torch.autograd.grad(logits.sum(), places), strict=True))
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(terms[Site("input")], x * grads["input"])
    for name, bias in biases.items():
        torch.testing.assert_close(terms[Site(name)], grads[name] * bias.detach()[:, None, None])
    torch.testing.assert_close(rest, net.head.bias.detach()[1].expand(3))
    torch.testing.assert_close(_sum(terms, rest), logits.detach())


def test_whatever_layers_are_told_apart_terms_add_up(pictures: Any) -> None:
    """A network that bends everywhere; also a layer inside of a branch, and none at all."""
    for layers in ((), ("first",), ("second", "first"), None):
        runner = pictures()
        terms, rest = FullGrad(layers).terms(runner)
        torch.testing.assert_close(_sum(terms, rest), runner.scores())
    runner = _rectified()
    terms, rest = FullGrad(("second",)).terms(runner)
    torch.testing.assert_close(_sum(terms, rest), runner.scores())


@pytest.mark.parametrize("name", ["glyph-resnet", "glyph-vit"])
@pytest.mark.parametrize("score", [EmbeddingNorm(), lambda output: output.pooled[:, 3]])
def test_terms_add_up_on_a_resnet_and_on_a_vit(name: str, score: Any) -> None:
    model = load_model(name)
    model.module.double()
    inputs = Inputs({"pixel_values": torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).double()})
    runner = Runner(Scorer(model, score), Examples.all(inputs), Site("input"))
    terms, rest = FullGrad().terms(runner)
    assert [str(site) for site in terms][:2] == ["input", "blocks.0" if name == "glyph-vit" else "stages.0.blocks.0"]
    assert len(terms) > 4
    scores = runner.scores()
    assert float(((_sum(terms, rest) - scores) / scores).abs().max()) < 1e-4
    # The parameters' biases alone would not do: implicit ones carry a good part.
    assert float((terms[Site("input")].flatten(1).sum(1) - scores).abs().max()) > 1e-2 * float(scores.abs().max())


def test_maps_are_sizes_grown_to_the_input_and_say_what_they_add_up_to(pictures: Any) -> None:
    runner = pictures()
    maps, details = FullGrad(("first",)).measured(runner)
    terms, rest = FullGrad(("first",)).terms(runner)
    expected = sum(term.sum(1).abs() for term in terms.values())
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(details["score"], runner.scores())
    torch.testing.assert_close(details["rest"], rest)


def test_without_biases_it_is_input_times_gradient() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(2, 5, 3, bias=False), nn.Linear(5, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(x).relu().mean((2, 3)))

    torch.manual_seed(0)
    model = TorchModel(
        Plain().double(), geometry={"first": Geometry("grid", grid=(4, 4), stride=(1, 1), input_size=(6, 6))}
    )
    runner = Runner(
        Scorer(model, ClassLogit(0)), Examples.all(Inputs({"x": torch.randn(2, 2, 6, 6).double()})), Site("input")
    )
    maps, details = FullGrad().measured(runner)
    torch.testing.assert_close(maps, InputXGradient().measured(runner)[0].abs())
    assert details["rest"].abs().max() < 1e-12


def test_a_map_that_begins_inside_needs_layers_of_its_own_grid(pictures: Any) -> None:
    with pytest.raises(ValueError, match=r"first has a grid of \[6, 7\], but the map is to lie on second, of \[3, 4\]"):
        FullGrad(("first",)).measured(pictures(site="second"))
    maps, details = FullGrad(()).measured(pictures(site="second"))
    assert maps.shape == (4, 3, 4)
    torch.testing.assert_close(details["score"], pictures().scores())


def test_an_operation_that_cannot_be_carried_is_told() -> None:
    class Fused(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return _Once.apply(x).mean((2, 3))

    runner = Runner(
        Scorer(TorchModel(Fused()), ClassLogit(0)), Examples.all(Inputs({"x": torch.randn(1, 2, 3, 3)})), Site("input")
    )
    with pytest.raises(
        ValueError, match="runs an operation without forward-mode differentiation, which FullGrad needs"
    ):
        FullGrad().measured(runner)
    with torch.autograd.forward_ad.dual_level():  # nothing is left open
        pass


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2
