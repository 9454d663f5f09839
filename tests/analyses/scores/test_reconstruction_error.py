import pytest
import torch
from torch import nn

from analyses.attributing import attribute
from analyses.passes import Examples, Scorer
from analyses.scores.reconstruction_error import ReconstructionError
from interp.models.torch_module import TorchModel
from interp.pretrain.simmim import masked_l1, random_mask
from interp.types import Inputs

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(4, 1, 6, 6, generator=DRAW, dtype=torch.float64)
MASK = random_mask(4, 6, 0.5, DRAW)
HIDDEN = Inputs({"x": IMAGES.where(~MASK, 0)})


def _model() -> TorchModel:
    torch.manual_seed(0)
    return TorchModel(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)).double())


def _scores(score: ReconstructionError) -> torch.Tensor:
    return Scorer(_model(), score).run(Examples.all(HIDDEN), grads=False).scores


def test_the_mean_is_the_loss_that_simmim_trains() -> None:
    painted = _model().module(HIDDEN.tensors["x"]).detach()
    found = _scores(ReconstructionError(IMAGES, MASK))
    torch.testing.assert_close(found.mean(), masked_l1(painted, IMAGES, MASK))  # as many values are masked in each
    for i in range(4):
        torch.testing.assert_close(found[i], (painted[i] - IMAGES[i])[MASK[i]].abs().mean())
    torch.testing.assert_close(_scores(ReconstructionError(IMAGES)), (painted - IMAGES).abs().mean((1, 2, 3)))


def test_a_batch_equals_one_by_one() -> None:
    score, model = ReconstructionError(IMAGES, MASK), _model()
    found = [attribute(model, HIDDEN, "input", score=score, methods=["Gradient"], batch_size=n) for n in (1, 3, 9)]
    for maps in found:
        torch.testing.assert_close(maps.scores, found[0].scores, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(maps["input"], found[0]["input"], rtol=1e-12, atol=1e-12)
    assert found[0]["input"].amax((1, 2)).min() > 1e-6


def test_training_lessens_the_loss_itself() -> None:
    model = _model()
    slopes = Scorer(model, ReconstructionError(IMAGES, MASK)).weight_gradients(Examples.all(HIDDEN))
    loss = 4 * masked_l1(model.module(HIDDEN.tensors["x"]), IMAGES, MASK)
    for slope, other in zip(slopes.values(), torch.autograd.grad(loss, list(slopes)), strict=True):
        torch.testing.assert_close(slope, other)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask has shape \[4, 1, 6, 5\] for targets of shape \[4, 1, 6, 6\]"):
        ReconstructionError(IMAGES, MASK[..., :5])
    with pytest.raises(ValueError, match="each example has values that count: give such a mask"):
        ReconstructionError(IMAGES, MASK & (torch.arange(4) > 0)[:, None, None, None])
    with pytest.raises(ValueError, match="targets has 3 entries, but there are 4 examples: give one target an example"):
        _scores(ReconstructionError(IMAGES[:3]))
    with pytest.raises(
        ValueError, match=r"targets have shape \[1, 6, 5\] an example, but Sequential gives \[1, 6, 6\]"
    ):
        _scores(ReconstructionError(IMAGES[..., :5]))
