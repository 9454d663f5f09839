import pytest
import torch

from analyses.cam.cam import CAM


def _head() -> tuple[torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 3).double()
    return head, torch.randn(4, 5, 5, 6, dtype=torch.float64, requires_grad=True)


def test_is_the_weighted_sum_of_channels_whose_mean_is_the_logit() -> None:
    head, acts = _head()
    logits = head(acts.mean(dim=(1, 2)))[:, 1]
    (grads,) = torch.autograd.grad(logits.sum(), acts)
    maps = CAM()(acts, grads)
    torch.testing.assert_close(maps, acts @ head.weight[1])
    torch.testing.assert_close(maps.mean(dim=(1, 2)) + head.bias[1], logits)


def test_another_layer_is_refused_whatever_else_is_in_the_batch() -> None:
    head, acts = _head()
    squashed = head(acts.tanh().mean(dim=(1, 2)))[:, 1]
    (grads,) = torch.autograd.grad(squashed.sum(), acts)
    with pytest.raises(ValueError, match="CAM is for the layer before average pooling.*GradCAM or HiResCAM"):
        CAM()(acts, grads)
    huge = torch.full_like(grads, 1e9)  # its size must not hide that the other's gradient moves
    with pytest.raises(ValueError, match="before average pooling"):
        CAM()(torch.cat([acts, acts]), torch.cat([grads, huge]))
