import itertools
from typing import Any

import pytest
import torch
from torch import nn

from analyses.attributing import attribute
from analyses.attribution.meta_saliency import MetaSaliency
from analyses.attribution.norm_grad_conv import NormGradConv
from analyses.cam.norm_grad import NormGrad
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site

AGGREGATES = {
    "norm": lambda part: part.norm(),
    "filter_norm": lambda part: part.relu().norm(),
    "sum": lambda part: part.sum(),
    "max": lambda part: part.max(),
}
LAYERS = {
    "strided": (nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2), (9, 8)),
    "grouped": (nn.Conv2d(4, 6, (3, 2), padding=(1, 0), groups=2), (5, 6)),
    "depthwise": (nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False), (5, 4)),
    "same": (nn.Conv2d(2, 3, (4, 3), padding="same", dilation=(1, 2)), (6, 7)),
    "valid": (nn.Conv2d(2, 3, 2, padding="valid"), (4, 4)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (5, 6)),
    "wide padding": (nn.Conv2d(2, 3, 3, padding=3), (4, 4)),
    "line": (nn.Conv1d(4, 6, 5, stride=3, padding=2, groups=2), (11,)),
    "volume": (nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=(0, 1, 0)), (3, 4, 3)),
}


class After(nn.Module):
    """A layer, and a bend behind it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.layer(x)
        draw = torch.Generator().manual_seed(1)
        mixing = torch.randn(made.shape[1:], generator=draw, dtype=made.dtype)
        return (made * mixing).sin().flatten(1).sum(1)


def _runner(layer: nn.Module, grid: tuple[int, ...], b: int = 2, shift: float = 0.0) -> Runner:
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    layer.double()
    channels = layer.in_channels
    x = torch.randn(b, channels, *grid, dtype=torch.float64) + shift
    out = tuple(layer(x).shape[2:])
    model = TorchModel(After(layer), geometry={"layer": Geometry("grid", grid=out, channels="first")})
    return Runner(Scorer(model, lambda output: output), Examples.all(Inputs({"x": x})), Site("layer"))


def _parts(runner: Runner) -> tuple[torch.Tensor, dict[tuple[int, ...], torch.Tensor]]:
    """The weights' gradient at one output position after the other, by autograd of the real layer."""
    layer, x = runner.scorer.model.module.layer, runner.inputs.tensors["x"]
    made = layer(x)
    (grads,) = torch.autograd.grad(runner.scorer.model.module(x).sum(), layer.weight, retain_graph=True)
    leaf = made.detach().requires_grad_()
    draw = torch.Generator().manual_seed(1)
    mixing = torch.randn(made.shape[1:], generator=draw, dtype=made.dtype)
    (slopes,) = torch.autograd.grad((leaf * mixing).sin().sum(), leaf)
    found = {}
    for place in itertools.product(range(len(x)), *map(range, made.shape[2:])):
        here = torch.zeros_like(slopes)
        at = (place[0], slice(None), *place[1:])
        here[at] = slopes[at]
        (found[place],) = torch.autograd.grad(made, layer.weight, here, retain_graph=True)
    return grads, found


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shift", [0.0, 9.0])
def test_equals_the_real_weight_gradient_of_each_position(name: str, shift: float) -> None:
    """Shifted activations are all of one sign: the largest product lies at another corner, and padding counts."""
    runner = _runner(*LAYERS[name], shift=shift)
    whole, parts = _parts(runner)
    torch.testing.assert_close(sum(parts.values()), whole, rtol=1e-12, atol=1e-12)
    for aggregate, of in AGGREGATES.items():
        maps, _ = NormGradConv(aggregate).measured(runner)
        assert maps.shape[1:] == runner.geometry.grid
        # A depthwise weight has no entry for the other channels, so neither has a part.
        for place, part in parts.items():
            torch.testing.assert_close(maps[place], of(part), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_of_a_linear_layer_on_tokens(texts: Any, aggregate: str) -> None:
    runner = texts()
    net, ids = runner.scorer.model.module, runner.inputs.tensors["input_ids"]
    at = Runner(runner.scorer, runner.examples, Site("mix"))
    maps, _ = NormGradConv(aggregate).measured(at)
    given = net.embed(ids).detach()
    slopes = at.gradients()[1]
    for b, p in itertools.product(range(4), range(5)):
        part = torch.autograd.grad(net.mix(given[b, p]), net.mix.weight, slopes[b, p])[0]
        torch.testing.assert_close(maps[b, p], AGGREGATES[aggregate](part), rtol=1e-12, atol=1e-12)
    found = attribute(
        runner.scorer.model, runner.inputs, "mix", score=runner.scorer.score, methods=[NormGradConv(aggregate)]
    )
    (drawn,) = found.values.values()
    torch.testing.assert_close(drawn, maps * runner.inputs.mask)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_of_a_convolution_that_does_nothing_it_is_norm_grad(aggregate: str) -> None:
    """The paper's identity layer, put in for real."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Conv2d(5, 5, 3, padding=1, bias=False), nn.Tanh(), nn.Flatten())
    nn.init.dirac_(net[1].weight)
    grid = Geometry("grid", grid=(4, 5), channels="first")
    scorer = Scorer(TorchModel(net.double(), geometry={"0": grid, "1": grid}), lambda output: output.sum(1))
    examples = Examples.all(Inputs({"x": torch.randn(3, 2, 6, 7, dtype=torch.float64)}))
    real, virtual = (Runner(scorer, examples, Site(site)) for site in ("1", "0"))
    acts, grads = virtual.vectors(virtual.values), real.vectors(real.gradients()[1])
    expected = NormGrad(identity="conv3x3", aggregate=aggregate)(acts, grads)
    torch.testing.assert_close(NormGradConv(aggregate).measured(real)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear])
def test_layers_of_a_real_encoder(kind: type[nn.Module]) -> None:
    model = load_model("glyph-vit")
    name = next(name for name, part in model.module.named_modules() if isinstance(part, kind))
    inputs = Inputs({"pixel_values": torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))})
    maps = attribute(model, inputs, name, score=lambda output: output.pooled[:, 3], methods=["norm-grad-conv"])
    (found,) = maps.values.values()
    assert found.ndim == 3 and found.isfinite().all() and (found > 0).any()


def test_a_step_of_training_moves_it(pictures: Any) -> None:
    runner = pictures(site="second")
    plain = NormGradConv().measured(runner)[0]
    torch.testing.assert_close(MetaSaliency(NormGradConv(), eta=0.0).measured(runner)[0], plain)
    assert (MetaSaliency(NormGradConv(), eta=0.5).measured(runner)[0] - plain).abs().max() > 1e-4


def test_other_sites_are_refused(pictures: Any, texts: Any) -> None:
    with pytest.raises(ValueError, match=r"input is the input of a Convolutions, but NormGradConv is made from the"):
        NormGradConv().measured(pictures())
    with pytest.raises(ValueError, match=r"embed is the output of a Embedding, but NormGradConv is made from the"):
        NormGradConv().measured(texts())
    with pytest.raises(ValueError, match=r"first@in is the input of a Conv2d"):
        at = pictures()
        NormGradConv().measured(Runner(at.scorer, at.examples, Site("first", "in")))
    method = NormGradConv()
    object.__setattr__(method, "aggregate", "mean")  # past the types, which the tests check and users' calls do not
    with pytest.raises(ValueError, match="aggregate is 'mean', but NormGradConv knows norm, filter_norm, sum, max"):
        method.__post_init__()


def test_a_layer_that_does_more_than_its_kernel_says_is_refused() -> None:
    class Padded(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))

    with pytest.raises(
        ValueError, match=r"layer has positions \[5, 5\], but its kernel, stride and padding make \[3, 3"
    ):
        NormGradConv().measured(_runner(Padded(2, 3, 3), (5, 5)))
