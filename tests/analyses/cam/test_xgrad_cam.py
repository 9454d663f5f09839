import torch

from analyses.cam.xgrad_cam import XGradCAM


def _layer() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    acts = torch.rand(2, 3, 4, 5, generator=draw, dtype=torch.float64)
    return acts, torch.randn(2, 3, 4, 5, generator=draw, dtype=torch.float64)


def test_equals_the_papers_weights() -> None:
    acts, grads = _layer()
    maps = XGradCAM()(acts, grads)
    for b in range(2):
        expected = torch.zeros(3, 4, dtype=torch.float64)
        for c in range(5):
            total = acts[b, :, :, c].sum()
            alpha = sum(acts[b, i, j, c] / total * grads[b, i, j, c] for i in range(3) for j in range(4))
            expected += alpha * acts[b, :, :, c]
        torch.testing.assert_close(maps[b], expected)


def test_conserves_gradient_times_activation() -> None:
    acts, grads = _layer()
    torch.testing.assert_close(XGradCAM()(acts, grads).sum(dim=(1, 2)), (acts * grads).sum(dim=(1, 2, 3)))


def test_a_channel_that_cancels_takes_its_plain_mean() -> None:
    acts, grads = _layer()
    acts[..., 0] -= acts[..., 0].mean(dim=(1, 2), keepdim=True)  # as a LayerNorm may leave it
    others = XGradCAM()(acts[..., 1:], grads[..., 1:])
    own = grads[..., 0].mean(dim=(1, 2), keepdim=True) * acts[..., 0]
    torch.testing.assert_close(XGradCAM()(acts, grads), others + own)
