import torch

from analyses.cam.grad_cam import GradCAM


def test_equals_the_papers_two_sums() -> None:
    draw = torch.Generator().manual_seed(0)
    acts, grads = (torch.randn(3, 4, 5, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    maps = GradCAM()(acts, grads)
    for b in range(3):
        expected = torch.zeros(4, 5, dtype=torch.float64)
        for c in range(6):
            alpha = sum(grads[b, i, j, c] for i in range(4) for j in range(5)) / 20
            expected += alpha * acts[b, :, :, c]
        torch.testing.assert_close(maps[b], expected)
