import pytest
import torch

from analyses.cam.eigen_grad_cam import EigenGradCAM


@pytest.mark.parametrize("center", [False, True])
def test_equals_a_decomposition_that_points_along_gradient_times_activation(center: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    acts, grads = (torch.randn(4, 5, 4, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    maps = EigenGradCAM(center=center)(acts, grads)
    for b, map_ in enumerate(maps):
        rows = (acts[b] * grads[b]).flatten(0, 1)
        rows = rows - rows.mean(dim=0) if center else rows
        _, _, v = torch.linalg.svd(rows, full_matrices=False)
        expected = rows @ v[0]
        expected = expected if expected @ rows.sum(dim=1) > 0 else -expected
        torch.testing.assert_close(map_.flatten(), expected, rtol=1e-9, atol=1e-9)
