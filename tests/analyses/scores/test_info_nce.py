import math
from typing import Any

import pytest
import torch
from torch import nn

from analyses.attributing import attribute
from analyses.embeddings import embedding_of
from analyses.passes import Examples, Scorer
from analyses.scores.base import Pass
from analyses.scores.info_nce import InfoNCE
from interp.models.torch_module import TorchModel
from interp.pretrain.simclr import nt_xent
from interp.types import Geometry, Inputs

DRAW = torch.Generator().manual_seed(0)
IMAGES, VIEWS = (torch.randn(6, 1, 5, 5, generator=DRAW, dtype=torch.float64) for _ in range(2))


def _model() -> TorchModel:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4, 3)).double()
    return TorchModel(net, geometry={"0": Geometry("grid", grid=(3, 3), channels="first")})


def _of(model: TorchModel, images: torch.Tensor) -> torch.Tensor:
    return embedding_of(model, Inputs({"x": images}), batch_size=4)


def _scores(model: TorchModel, score: InfoNCE, batch_size: int = 32) -> torch.Tensor:
    chunks = Examples.all(Inputs({"x": IMAGES})).chunks(batch_size)
    return torch.cat([Scorer(model, score).run(chunk, grads=False).scores for chunk in chunks])


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_mean_over_both_views_is_the_loss_that_simclr_trains(temperature: float) -> None:
    model = _model()
    first, second = _of(model, IMAGES), _of(model, VIEWS)
    ours = _scores(model, InfoNCE(second, first, temperature=temperature))
    swapped = Scorer(model, InfoNCE(first, second, temperature=temperature))
    theirs = swapped.run(Examples.all(Inputs({"x": VIEWS})), grads=False).scores
    torch.testing.assert_close((ours + theirs).mean() / 2, nt_xent(first, second, temperature))


def test_each_loss_equals_the_formula_written_out() -> None:
    model = _model()
    first, second = _of(model, IMAGES), _of(model, VIEWS)

    def near(one: torch.Tensor, other: torch.Tensor) -> float:
        return math.exp(float(one @ other / one.norm() / other.norm()) / 0.5)

    alone, both = (_scores(model, InfoNCE(second, rest, temperature=0.5)) for rest in (None, first))
    for i in range(6):
        views = sum(near(first[i], second[k]) for k in range(6))
        others = sum(near(first[i], first[k]) for k in range(6) if k != i)
        assert abs(float(alone[i]) + math.log(near(first[i], second[i]) / views)) < 1e-12
        assert abs(float(both[i]) + math.log(near(first[i], second[i]) / (views + others))) < 1e-12


def test_gradients_are_of_the_example_alone_and_all_else_is_held_fixed() -> None:
    model = _model()
    first, second = _of(model, IMAGES), _of(model, VIEWS)
    score = InfoNCE(second.requires_grad_(), first.requires_grad_())
    for i in range(6):
        leaf = first[i].detach().clone().requires_grad_()
        rest = torch.cat([second, first[:i], first[i + 1 :]]).detach()
        logits = torch.cosine_similarity(leaf[None], rest, dim=1) / 0.2
        (expected,) = torch.autograd.grad(-logits.log_softmax(0)[i], leaf)
        given = first.detach().clone().requires_grad_()
        run = Pass(TorchModel(nn.Identity()), Inputs({"x": given}), given)
        (grads,) = torch.autograd.grad(score(run)[i], given)
        torch.testing.assert_close(grads[i], expected)
        assert grads[i].any() and not grads[torch.arange(6) != i].any()


def test_a_batch_equals_one_by_one() -> None:
    model = _model()
    score = InfoNCE(_of(model, VIEWS), _of(model, IMAGES))
    inputs = Inputs({"x": IMAGES})
    found = [attribute(model, inputs, "0", score=score, methods=["HiResCAM"], batch_size=n) for n in (1, 4, 9)]
    for maps in found:
        torch.testing.assert_close(maps.scores, found[0].scores, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(maps["0"], found[0]["0"], rtol=1e-12, atol=1e-12)
    assert found[0]["0"].abs().amax((1, 2)).min() > 1e-6


def test_training_lessens_the_loss_itself() -> None:
    model = _model()
    score = InfoNCE(_of(model, VIEWS))
    before, examples = _scores(model, score).sum(), Examples.all(Inputs({"x": IMAGES}))
    slopes = Scorer(model, score).weight_gradients(examples)
    with torch.no_grad():
        for weight, slope in slopes.items():
            weight -= 1e-4 * slope
    fallen = before - _scores(model, score).sum()
    expected = 1e-4 * sum(slope.square().sum() for slope in slopes.values())
    torch.testing.assert_close(fallen, expected, rtol=1e-2, atol=0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"views": torch.ones(6, 3), "temperature": 0.0}, "temperature is 0.0, but it divides cosines"),
        (
            {"views": torch.ones(6, 3), "embeddings": torch.ones(5, 3)},
            r"embeddings have shape \[5, 3\], but views \[6, 3",
        ),
        ({"views": torch.ones(6, 4)}, "views have width 4, but Sequential embeds in 3: make them with the same model"),
        ({"views": torch.ones(5, 3)}, "views has 5 entries, but there are 6 examples: give the embedding of one view"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _scores(_model(), InfoNCE(**given))
