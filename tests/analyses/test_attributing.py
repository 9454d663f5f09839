import warnings
from typing import Any

import pytest
import torch
from torch import nn

from analyses.attributing import NoGradient, attribute
from analyses.attribution.integrated_gradients import IntegratedGradients
from analyses.attribution.meta_saliency import MetaSaliency
from analyses.attribution.occlusion import Occlusion
from analyses.cam.eigen_cam import EigenCAM
from analyses.cam.grad_cam import GradCAM
from analyses.cam.hires_cam import HiResCAM
from analyses.cam.norm_grad import NormGrad
from analyses.methods import methods
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from analyses.scores.class_logit import ClassLogit
from analyses.scores.latent import Latent
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site
from saes.topk import TopK


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.relu, self.dropout, self.head = nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.head(self.dropout(x.mean((2, 3))))


class Sequences(nn.Module):
    """Each position sees those before it; padding is masked at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(20, 8), nn.Linear(8, 8)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.mix(self.embed(input_ids).cumsum(1).tanh())
        weights = attention_mask[..., None].to(x)
        return (x * weights).sum(1) / weights.sum(1)


@pytest.fixture
def model() -> TorchModel:
    torch.manual_seed(0)
    grids = {"first": (8, 8), "second": (4, 4), "relu": (8, 8)}
    geometry = {
        name: Geometry("grid", grid=grid, stride=(16 // grid[0],) * 2, input_size=(16, 16))
        for name, grid in grids.items()
    }
    return TorchModel(Convolutions().double(), geometry=geometry)


@pytest.fixture
def inputs() -> Inputs:
    draw = torch.Generator().manual_seed(1)
    return Inputs({"x": torch.randn(7, 3, 16, 16, generator=draw, dtype=torch.float64)})


@pytest.fixture
def text() -> tuple[TorchModel, Inputs, list[int]]:
    torch.manual_seed(0)
    lengths = [5, 3, 5, 1, 4]
    ids = torch.randint(0, 20, (5, 5))
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    return TorchModel(Sequences().double()), Inputs({"input_ids": ids, "attention_mask": mask}, mask), lengths


def _every() -> list[Any]:
    """The methods that a small model of any kind is enough for: not those that are made of attention patterns."""
    known = {name: kind for name, kind in methods().items() if not getattr(kind, "attends", False)}
    # Nor those that ask for a certain layer, for pixels, or for a module for each activation.
    without = ("CAM", "DeepLIFT", "FullGrad", "NormGradConv", "RISE", "ScoreCAM")
    small: dict[str, Any] = {"KernelSHAP": {"samples": 40, "cells": 3}, "IntegratedGradients": {"steps": 5}}
    return [kind(**small.get(name, {})) for name, kind in known.items() if name not in without]


def _everything(model: TorchModel) -> Any:
    flags = [(part.training, len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.module.modules()]
    return flags, [(p.requires_grad, p.grad, p._version) for p in model.module.parameters()], model.fingerprint


def test_equals_each_method_on_what_autograd_gives(model: TorchModel, inputs: Inputs) -> None:
    maps = attribute(model, inputs, ["first", "second"], score=ClassLogit(2), methods=["GradCAM", "norm-grad"])
    net = model.module.eval()
    first = net.first(inputs.tensors["x"])
    second = net.second(first.relu())
    logits = net.head(second.relu().mean((2, 3)))[:, 2]
    torch.testing.assert_close(maps.scores, logits.detach())
    slopes = torch.autograd.grad(logits.sum(), (first, second))
    for site, *pair in zip(("first", "second"), (first, second), slopes, strict=True):
        acts, grads = (part.detach().movedim(1, -1) for part in pair)
        torch.testing.assert_close(maps[site, "GradCAM"], GradCAM()(acts, grads))
        torch.testing.assert_close(maps[site, "NormGrad"], NormGrad()(acts, grads))


def test_every_method_does_not_depend_on_the_batch_size(model: TorchModel, inputs: Inputs) -> None:
    every = _every()
    whole, alone = (
        attribute(model, inputs, "second", score=ClassLogit(1), methods=every, batch_size=n) for n in (7, 1)
    )
    for key in whole.values:
        torch.testing.assert_close(whole.values[key], alone.values[key], rtol=1e-12, atol=1e-12)
        for name, numbers in whole.details[key].items():
            torch.testing.assert_close(numbers, alone.details[key][name])
    torch.testing.assert_close(whole.scores, alone.scores)


def test_padding_changes_no_map(text: tuple[TorchModel, Inputs, list[int]]) -> None:
    model, inputs, lengths = text
    every = _every()
    maps = attribute(model, inputs, "embed", methods=every, batch_size=3)
    for i, length in enumerate(lengths):
        cut = Inputs({name: value[i : i + 1, :length] for name, value in inputs.tensors.items()}, None)
        alone = attribute(model, cut, "embed", methods=every)
        for key, values in maps.values.items():
            torch.testing.assert_close(values[i, :length], alone.values[key][0], rtol=1e-12, atol=1e-12)
            assert not values[i, length:].any()


def test_what_is_given_for_each_example_follows_it_into_any_chunk(model: TorchModel, inputs: Inputs) -> None:
    classes = [3, 0, 1, 2, 0, 3, 1]
    asked = ["GradCAM", IntegratedGradients(steps=3), Occlusion(2, 2)]
    whole = attribute(model, inputs, "second", score=ClassLogit(classes), methods=asked)
    chunked = attribute(model, inputs, "second", score=ClassLogit(classes), methods=asked, batch_size=3)
    for i, own in enumerate(classes):
        one = Inputs({"x": inputs.tensors["x"][i : i + 1]})
        alone = attribute(model, one, "second", score=ClassLogit(own), methods=asked)
        for key, values in alone.values.items():
            torch.testing.assert_close(whole.values[key][i], values[0], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(chunked.values[key][i], values[0], rtol=1e-12, atol=1e-12)


def test_a_prefix_token_has_no_place_on_a_map(tiny_vision: Any) -> None:
    inputs = Inputs({"pixel_values": torch.randn(2, 1, 12, 20)})
    maps = attribute(tiny_vision, inputs, "blocks.0", score=ClassLogit(0), methods=["HiResCAM"])
    assert maps["HiResCAM"].shape == (2, 3, 5)
    assert maps.upsampled()["HiResCAM"].shape == (2, 12, 20)
    moved = inputs.tensors["pixel_values"].clone()
    moved[:, :, 4:8, 12:16] += 5  # patch (1, 3), whose own map changes most
    change = attribute(
        tiny_vision, Inputs({"pixel_values": moved}), "blocks.0", score=ClassLogit(0), methods=["EigenCAM"]
    )
    base = attribute(tiny_vision, inputs, "blocks.0", score=ClassLogit(0), methods=["EigenCAM"])
    assert (change["EigenCAM"] - base["EigenCAM"]).abs().flatten(1).argmax(1).tolist() == [8, 8]


def test_the_model_is_left_as_found_also_after_an_exception(model: TorchModel, inputs: Inputs) -> None:
    model.module.train()
    next(iter(model.module.parameters())).requires_grad_(False)
    before = _everything(model)
    attribute(model, inputs, "second", score=ClassLogit(0), through=None)
    assert _everything(model) == before

    def broken(output: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no score")

    with pytest.raises(RuntimeError, match="no score"):
        attribute(model, inputs, "second", score=broken)
    assert _everything(model) == before


def test_a_method_without_a_gradient_asks_for_no_score(model: TorchModel, inputs: Inputs) -> None:
    ran = []
    model.module.head.register_forward_hook(lambda *_: ran.append(1))
    maps = attribute(model, inputs, "second", methods=[EigenCAM()])
    assert maps.scores is None and not ran
    assert maps.details["second", "EigenCAM"]["gap"].shape == (7,)


@pytest.fixture
def dictionary() -> TopK:
    torch.manual_seed(0)
    sae = TopK(d_in=8, d_sae=32, k=4).double().eval()
    torch.nn.init.normal_(sae.b_dec)
    sae.site = Site("second")
    return sae


def test_maps_of_features_follow_the_chain_rule(model: TorchModel, inputs: Inputs, dictionary: TopK) -> None:
    """Autograd through the spliced reconstruction, its error held fixed, gives the codes' gradients."""
    chosen = [3, 17, 31]
    maps = attribute(
        model, inputs, score=ClassLogit(2), methods=["HiResCAM", "GradCAM"], through=dictionary, features=chosen
    )
    assert maps.features == (3, 17, 31) and maps["second", "HiResCAM"].shape == (7, 3, 4, 4)
    net = model.module.eval()
    acts = net.second(net.first(inputs.tensors["x"]).relu()).detach()
    codes = dictionary.encode(acts.movedim(1, -1).flatten(0, 2)).dense().detach().requires_grad_()
    recon = codes @ dictionary.W_dec.detach() + dictionary.b_dec.detach()
    x = recon.view(7, 4, 4, 8).movedim(-1, 1)
    x = x + (acts - x.detach())
    (along,) = torch.autograd.grad(net.head(x.relu().mean((2, 3)))[:, 2].sum(), codes)
    along = along * (codes != 0)  # the support is held fixed: a silent feature has no gradient
    layer, slopes = (part.detach().view(7, 4, 4, 32)[..., chosen].movedim(-1, 1) for part in (codes, along))
    torch.testing.assert_close(maps["HiResCAM"], layer * slopes)
    torch.testing.assert_close(maps["GradCAM"], layer * slopes.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("batch_size", [2, 7])
def test_a_number_chooses_the_features_that_matter_most(
    model: TorchModel, inputs: Inputs, dictionary: TopK, batch_size: int
) -> None:
    every = attribute(model, inputs, score=ClassLogit(2), methods=["HiResCAM"], through=dictionary, features=range(32))
    expected = every["HiResCAM"].abs().sum(dim=(0, 2, 3)).topk(5).indices.tolist()
    maps = attribute(
        model, inputs, score=ClassLogit(2), methods=["HiResCAM"], through=dictionary, features=5, batch_size=batch_size
    )
    assert list(maps.features or ()) == expected
    torch.testing.assert_close(maps["HiResCAM"], every["HiResCAM"][:, expected])
    assert len(maps.scores) == 7  # two passes were made; scores are of one


def test_a_feature_is_a_score_at_its_site(model: TorchModel, inputs: Inputs, dictionary: TopK) -> None:
    net = model.module.eval()
    first = net.first(inputs.tensors["x"])
    codes = dictionary.encode(net.second(first.relu()).movedim(1, -1).flatten(0, 2)).dense()
    feature = int((codes > 0).sum(0).argmax())
    scores = codes[:, feature].view(7, 16).sum(1)
    (grads,) = torch.autograd.grad(scores.sum(), first)
    maps = attribute(model, inputs, "first", score=Latent(dictionary, feature, over="sum"), methods=["HiResCAM"])
    torch.testing.assert_close(maps.scores, scores.detach())
    torch.testing.assert_close(maps["HiResCAM"], (grads * first.detach()).sum(1))
    assert maps["HiResCAM"].any()


def test_examples_without_a_gradient_are_counted_and_a_site_without_any_is_refused(
    model: TorchModel, inputs: Inputs
) -> None:
    def of_some(output: torch.Tensor) -> torch.Tensor:
        return output[:, 0] * torch.tensor([1, 0, 1, 0, 0, 1, 1])

    with pytest.warns(NoGradient, match="the scores of 3 of 7 examples have no gradient at second"):
        maps = attribute(model, inputs, "second", score=of_some)
    assert not maps["GradCAM"][[1, 3, 4]].any() and maps["GradCAM"][0].any()
    with pytest.raises(
        ValueError, match="no gradient at second in any example.*Choose an earlier site or another score"
    ):
        attribute(model, inputs, "second", score=lambda output: (1000 + output[:, 0]).sigmoid())


def test_patches_behind_a_class_token_that_alone_is_read_are_refused(tiny_vision: Any) -> None:
    inputs = Inputs({"pixel_values": torch.randn(2, 1, 12, 20)})
    with pytest.raises(ValueError, match="no gradient at blocks.1 in any example.*only the class token is read"):
        attribute(tiny_vision, inputs, "blocks.1", score=ClassLogit(0))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda output: output[:, 0].sum(), r"score gave \[\] for 7 examples, but maps need one number an example"),
        (lambda output: output, r"score gave \[7, 4\] for 7 examples"),
        (lambda output: output[:3, 0], r"score gave \[3\] for 7 examples"),
        (lambda output: 1.0, "score gave float for 7 examples"),
        (ClassLogit(4), "index is 4, but there are 4 classes: choose 0..3"),
        (ClassLogit([0, 1]), "index has 2 entries, but there are 7 examples: give one class an example"),
    ],
)
def test_scores_that_are_not_one_an_example_are_refused(
    model: TorchModel, inputs: Inputs, score: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attribute(model, inputs, "second", score=score)


def test_both_kinds_of_methods_stand_side_by_side_in_the_order_asked(model: TorchModel, inputs: Inputs) -> None:
    asked = [Occlusion(2, 2), "GradCAM", IntegratedGradients(steps=4), "Gradient", MetaSaliency(HiResCAM())]
    maps = attribute(model, inputs, ["second", "first"], score=ClassLogit(1), methods=asked, batch_size=3)
    names = (
        "Occlusion(window=2)",
        "GradCAM",
        "IntegratedGradients(steps=4)",
        "Gradient",
        "MetaSaliency(method=HiResCAM)",
    )
    assert maps.sites == ("second", "first") and maps.methods == names
    assert [len(part) for part in (maps.scores, maps["second", "Gradient"])] == [7, 7]
    runner = Runner(Scorer(model, ClassLogit(1)), Examples.all(inputs), model.site("second"))
    expected, details = IntegratedGradients(steps=4).measured(runner)
    torch.testing.assert_close(maps["second", names[2]], expected)
    torch.testing.assert_close(maps.details["second", names[2]]["gap"], details["gap"])
    only = attribute(model, inputs, "input", score=ClassLogit(1), methods=["Gradient"], batch_size=3)
    assert only["Gradient"].shape == (7, 16, 16) and only.upsampled((8, 8))["Gradient"].shape == (7, 8, 8)
    torch.testing.assert_close(only.scores, maps.scores)


def test_without_a_score_each_examples_highest_logit_is_explained(model: TorchModel, inputs: Inputs) -> None:
    maps = attribute(model, inputs, "second")
    torch.testing.assert_close(maps.scores, model.module.eval()(inputs.tensors["x"]).amax(1).detach())
    vit = load_model("glyph-vit")
    with pytest.raises(ValueError, match="glyph-vit has no logits.*Similarity"):
        attribute(vit, Inputs({"pixel_values": torch.zeros(1, 1, 32, 32)}), "blocks.0")


def test_wrong_names_are_refused(model: TorchModel, inputs: Inputs, dictionary: TopK) -> None:
    with pytest.raises(ValueError, match="methods names 'ScoreKAM', but known are AblationCAM, .*CAM, .*EigenCAM"):
        attribute(model, inputs, "second", methods=["ScoreKAM"])
    with pytest.raises(ValueError, match="GradCAM is there twice: ask for each once"):
        attribute(model, inputs, "second", methods=["GradCAM", GradCAM()])
    with pytest.raises(ValueError, match="methods is empty"):
        attribute(model, inputs, "second", methods=[])
    with pytest.raises(ValueError, match="sites is None, but maps are made somewhere"):
        attribute(model, inputs)
    with pytest.raises(ValueError, match="a dictionary is of one site: name that"):
        attribute(model, inputs, ["first", "second"], through=dictionary)
    with pytest.raises(ValueError, match="first holds vectors of width 6, but the directions have 8"):
        attribute(model, inputs, "first", score=ClassLogit(0), through=dictionary)
    with pytest.raises(ValueError, match="EigenCAM compares channels.*leave through= out"):
        attribute(model, inputs, score=ClassLogit(0), methods=["EigenCAM"], through=dictionary)
    with pytest.raises(ValueError, match=r"Occlusion runs the model.*score=Latent"):
        attribute(model, inputs, score=ClassLogit(0), methods=[Occlusion()], through=dictionary)
    with pytest.raises(ValueError, match=r"features is \[32\], but the dictionary has 32"):
        attribute(model, inputs, score=ClassLogit(0), through=dictionary, features=[32])
    with pytest.raises(ValueError, match="batch_size is 0 for 7 examples"):
        attribute(model, inputs, "second", batch_size=0)


def test_nothing_is_left_over_after_many_calls(model: TorchModel, inputs: Inputs, dictionary: TopK) -> None:
    import gc

    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    def once() -> None:
        attribute(model, inputs, ["first", "second"], score=ClassLogit(0), methods=[HiResCAM(), NormGrad()])
        attribute(model, inputs, score=ClassLogit(0), methods=["HiResCAM"], through=dictionary, features=3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        once()
        before = alive()
        for _ in range(20):
            once()
        assert alive() == before


def test_two_baselines_of_one_shape_are_told_apart(model: TorchModel, inputs: Inputs) -> None:
    kinds = [IntegratedGradients(2, torch.full((3,), value, dtype=torch.float64)) for value in (0.0, 1.0)]
    maps = attribute(model, inputs, "input", score=ClassLogit(1), methods=kinds)
    names = ("IntegratedGradients(steps=2, baseline=tensor[3])", "IntegratedGradients(steps=2, baseline=tensor[3])#2")
    assert maps.methods == names
    assert not torch.equal(maps[names[0]], maps[names[1]])
