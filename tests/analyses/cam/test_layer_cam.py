import torch

from analyses.cam.layer_cam import LayerCAM


def test_equals_the_loop_over_channels_and_positions() -> None:
    draw = torch.Generator().manual_seed(0)
    acts, grads = (torch.randn(2, 3, 4, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    maps = LayerCAM()(acts, grads)
    for b, i, j in [(b, i, j) for b in range(2) for i in range(3) for j in range(4)]:
        expected = sum(max(float(grads[b, i, j, c]), 0.0) * float(acts[b, i, j, c]) for c in range(5))
        assert abs(float(maps[b, i, j]) - expected) < 1e-12
