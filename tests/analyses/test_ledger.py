from typing import Any

import pytest
import torch
from torch import nn

from analyses.ledger import Ledger, attribute_latents
from analyses.scores.class_logit import ClassLogit
from interp.capturing import edited
from interp.editing import scale_latent
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site
from saes.topk import TopK

SITE = Site("embed")


class Patches(nn.Module):
    """Patches behind a class token; the head reads their mean, through a bend or straight."""

    def __init__(self, *, bent: bool) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.bent = bent

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mix(self.embed(x))
        return self.head((x.tanh() if self.bent else x).mean(1))


def _model(*, bent: bool) -> TorchModel:
    torch.manual_seed(0)
    return TorchModel(Patches(bent=bent).double(), geometry={"embed": Geometry("grid", grid=(2, 2), prefix=1)})


@pytest.fixture
def inputs() -> Inputs:
    return Inputs({"x": torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)})


@pytest.fixture
def other() -> Inputs:
    return Inputs({"x": torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)})


@pytest.fixture
def sae() -> TopK:
    torch.manual_seed(1)
    sae = TopK(d_in=6, d_sae=20, k=3).double().eval()
    nn.init.normal_(sae.b_dec)
    nn.init.normal_(sae.b_enc, std=0.1)
    sae.site = SITE
    return sae


def _adds_up(found: Ledger) -> torch.Tensor:
    return found.by_feature().sum(1) + found.error.sum(1) + found.bias.sum(1)


@pytest.mark.parametrize("baseline", ["zero", "vector", "inputs"])
def test_of_a_linear_score_it_is_exact(inputs: Inputs, other: Inputs, sae: TopK, baseline: str) -> None:
    to: Any = {"zero": None, "vector": torch.linspace(-1, 1, 6, dtype=torch.float64), "inputs": other}[baseline]
    found = attribute_latents(_model(bent=False), inputs, sae, score=ClassLogit(1), baseline=to)
    torch.testing.assert_close(_adds_up(found), found.change)
    assert found.residual.abs().max() < 1e-12
    assert found.change.abs().min() > 1e-3
    assert bool(found.bias.any()) == (baseline == "zero")


def test_each_effect_is_what_patching_the_latent_alone_does_to_a_linear_score(inputs: Inputs, sae: TopK) -> None:
    model = _model(bent=False)
    found = attribute_latents(model, inputs, sae, score=ClassLogit(1))
    with torch.no_grad():
        base = model.forward(inputs)[:, 1]
        for feature in range(20):
            with edited(model, {SITE: scale_latent(sae, feature, 0.0)}):
                torch.testing.assert_close(found.by_feature()[:, feature], model.forward(inputs)[:, 1] - base)
            for position in range(5):
                with edited(model, {SITE: scale_latent(sae, feature, 0.0, positions=position)}):
                    torch.testing.assert_close(found.at(feature)[:, position], model.forward(inputs)[:, 1] - base)


def test_the_error_and_the_bias_are_nodes_of_their_own(inputs: Inputs, other: Inputs, sae: TopK) -> None:
    """Each patched alone, with what the dictionary says they are."""
    model = _model(bent=False)
    values = model.module.embed(inputs.tensors["x"]).detach()
    lost = values - sae(values.flatten(0, 1)).detach().view_as(values)
    found = attribute_latents(model, inputs, sae, score=ClassLogit(1))
    with torch.no_grad():
        base = model.forward(inputs)[:, 1]
        for node, step in ((found.error, lost), (found.bias, sae.b_dec.expand_as(values))):
            for position in range(5):
                less = values.clone()
                less[:, position] -= step[:, position]
                with edited(model, {SITE: lambda _, less=less: less}):
                    torch.testing.assert_close(node[:, position], model.forward(inputs)[:, 1] - base)
    instead = model.module.embed(other.tensors["x"]).detach()
    gained = instead - sae(instead.flatten(0, 1)).detach().view_as(instead)
    found = attribute_latents(model, inputs, sae, score=ClassLogit(1), baseline=other)
    with torch.no_grad(), edited(model, {SITE: lambda x: x + gained - lost}):
        torch.testing.assert_close(found.error.sum(1), model.forward(inputs)[:, 1] - base)


def test_of_a_bent_score_the_residual_is_shown_and_shrinks_with_steps(inputs: Inputs, other: Inputs, sae: TopK) -> None:
    model = _model(bent=True)
    sizes = []
    for steps in (1, 4, 64):
        found = attribute_latents(model, inputs, sae, score=ClassLogit(1), baseline=other, steps=steps)
        torch.testing.assert_close(_adds_up(found) + found.residual, found.change)
        assert f"{float(found.residual.mean()):+.6g}" in str(found)
        sizes.append(float(found.residual.abs().max()))
    assert sizes[0] > 1e-3 and sizes[1] < sizes[0] and sizes[2] < 1e-3 * sizes[0]


def test_the_change_is_the_models_own(inputs: Inputs, other: Inputs, sae: TopK) -> None:
    model = _model(bent=True)
    found = attribute_latents(model, inputs, sae, score=ClassLogit(2), baseline=other, batch_size=2)
    with torch.no_grad():
        expected = model.forward(other)[:, 2] - model.forward(inputs)[:, 2]
    torch.testing.assert_close(found.change, expected)


def test_a_batch_equals_one_by_one(inputs: Inputs, other: Inputs, sae: TopK) -> None:
    model = _model(bent=True)
    whole = attribute_latents(model, inputs, sae, score=ClassLogit(1), baseline=other)
    for i in range(3):
        one, to = (Inputs({"x": part.tensors["x"][i : i + 1]}) for part in (inputs, other))
        alone = attribute_latents(model, one, sae, score=ClassLogit(1), baseline=to)
        torch.testing.assert_close(alone.by_feature()[0], whole.by_feature()[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.error[0], whole.error[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.residual[0], whole.residual[i], rtol=1e-12, atol=1e-12)


def test_the_features_of_the_largest_effects_come_first(inputs: Inputs, sae: TopK) -> None:
    found = attribute_latents(_model(bent=False), inputs, sae, score=ClassLogit(1))
    mean = found.by_feature().mean(0)
    assert [feature for feature, _ in found.top(4)] == mean.abs().argsort(descending=True)[:4].tolist()
    assert found.top(1)[0][1] == pytest.approx(float(mean[found.top(1)[0][0]]))
    assert [line.split()[0] for line in str(found).splitlines()[-4:]] == ["bias", "residual", "size", "change"]


def test_padding_has_no_effect(sae: TopK) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 3)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.head((self.embed(ids) * mask[..., None]).sum(1).tanh())

    torch.manual_seed(0)
    model, mask = TorchModel(Words().double()), torch.arange(4) < torch.tensor([[4], [2]])
    inputs = Inputs({"ids": torch.randint(0, 9, (2, 4)), "mask": mask}, mask)
    found = attribute_latents(model, inputs, sae, score=ClassLogit(1))
    assert not found.error[1, 2:].any() and not found.bias[1, 2:].any()
    assert found.error[1, :2].all()


def test_what_does_not_fit_is_refused(inputs: Inputs, sae: TopK) -> None:
    model = _model(bent=False)
    with pytest.raises(ValueError, match="steps is 0, but a gradient is taken somewhere"):
        attribute_latents(model, inputs, sae, score=ClassLogit(1), steps=0)
    with pytest.raises(ValueError, match=r"baseline has shape \[5\], but activations at embed are vectors of width 6"):
        attribute_latents(model, inputs, sae, score=ClassLogit(1), baseline=torch.zeros(5))
    fewer = Inputs({"x": inputs.tensors["x"][:2]})
    with pytest.raises(
        ValueError, match=r"baseline gives activations of shape \[2, 5, 6\] at embed, but inputs \[3, 5, 6\]"
    ):
        attribute_latents(model, inputs, sae, score=ClassLogit(1), baseline=fewer)
    with pytest.raises(ValueError, match="head holds vectors of width 3, but the directions have 6"):
        attribute_latents(model, inputs, sae, score=ClassLogit(1), site="head")
    transcoder = TopK(d_in=6, d_out=6, d_sae=20, k=3).double()
    with pytest.raises(ValueError, match="the directions are a transcoder's, which reads embed and writes elsewhere"):
        attribute_latents(model, inputs, transcoder, score=ClassLogit(1), site="embed")
    sae.site = None
    with pytest.raises(ValueError, match="site is None, and the directions do not know theirs"):
        attribute_latents(model, inputs, sae)
