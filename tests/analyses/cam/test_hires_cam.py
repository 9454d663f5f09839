import torch

from analyses.cam.grad_cam import GradCAM
from analyses.cam.hires_cam import HiResCAM


def _acts() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 5, 6, generator=draw, dtype=torch.float64).requires_grad_()


def test_is_grad_cam_before_pooling_and_a_linear_layer() -> None:
    acts = _acts()
    score = (acts.mean(dim=(1, 2)) @ torch.linspace(-1, 1, 6, dtype=torch.float64)).sum()
    (grads,) = torch.autograd.grad(score, acts)
    torch.testing.assert_close(HiResCAM()(acts, grads), GradCAM()(acts, grads))


def test_adds_up_to_a_linear_score_and_grad_cam_does_not() -> None:
    acts = _acts()
    weights = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = (acts * weights).sum(dim=(1, 2, 3))
    (grads,) = torch.autograd.grad(scores.sum(), acts)
    torch.testing.assert_close(HiResCAM()(acts, grads).sum(dim=(1, 2)), scores)
    assert (GradCAM()(acts, grads).sum(dim=(1, 2)) - scores).abs().min() > 0.1
