import torch

from analyses.cam.grad_cam_plus_plus import GradCAMPlusPlus


def test_equals_the_papers_derivatives_of_the_exponential() -> None:
    """Eq. 10 of the paper for Y = exp(S), its second and third derivatives taken by autograd."""
    draw = torch.Generator().manual_seed(0)
    acts, weights = (torch.randn(3, 4, 2, generator=draw, dtype=torch.float64) for _ in range(2))

    def second_and_third(i: int, j: int, c: int) -> tuple[torch.Tensor, torch.Tensor]:
        entry = acts[i, j, c].clone().requires_grad_()
        y = ((acts * weights).sum() + weights[i, j, c] * (entry - entry.detach())).exp()
        (one,) = torch.autograd.grad(y, entry, create_graph=True)
        (two,) = torch.autograd.grad(one, entry, create_graph=True)
        (three,) = torch.autograd.grad(two, entry)
        return two.detach(), three

    y, expected = (acts * weights).sum().exp(), torch.zeros(3, 4, dtype=torch.float64)
    for c in range(2):
        weight = torch.zeros((), dtype=torch.float64)
        for i, j in [(i, j) for i in range(3) for j in range(4)]:
            two, three = second_and_third(i, j, c)
            alpha = two / (2 * two + acts[:, :, c].sum() * three)
            weight += alpha * (y * weights[i, j, c]).relu()
        expected += weight * acts[:, :, c]
    maps = GradCAMPlusPlus(eps=0.0)(acts[None], weights[None])[0]
    torch.testing.assert_close(maps * y, expected)  # the reference drops the factor Y, which is one an image


def test_a_gradient_of_zero_has_no_part() -> None:
    acts, grads = torch.rand(1, 3, 3, 2, dtype=torch.float64), torch.zeros(1, 3, 3, 2, dtype=torch.float64)
    grads[0, 1, 1, 0] = 2.0
    maps = GradCAMPlusPlus(eps=0.0)(acts, grads)
    weight = 2 * 4 / (2 * 4 + acts[0, :, :, 0].sum() * 8)
    torch.testing.assert_close(maps[0], weight * acts[0, :, :, 0])
