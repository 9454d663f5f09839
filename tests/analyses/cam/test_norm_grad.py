import itertools

import pytest
import torch
from torch.nn import functional

from analyses.cam.norm_grad import NormGrad

IDENTITIES = ("bias", "scaling", "conv1x1", "conv3x3", "depthwise3x3")
AGGREGATES = {
    "norm": lambda term: term.square().sum(dim=-1).sqrt(),
    "filter_norm": lambda term: term.relu().square().sum(dim=-1).sqrt(),
    "sum": lambda term: term.sum(dim=-1),
    "max": lambda term: term.amax(dim=-1),
}


def _layer(grid: tuple[int, ...] = (4, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, *grid, 6, generator=draw, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def _windows(acts: torch.Tensor) -> torch.Tensor:
    """`[b, h, w, d, 9]`: what a 3x3 convolution with zero padding sees at each position."""
    b, h, w, d = acts.shape
    seen = functional.unfold(acts.movedim(-1, 1), 3, padding=1)
    return seen.reshape(b, d, 9, h, w).permute(0, 3, 4, 1, 2)


def _term(identity: str, acts: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    """The paper's phase 1, written out: every entry of a position's part in the gradient of the weights."""
    if identity == "bias":
        return grads
    if identity == "scaling":
        return grads * acts
    if identity == "conv1x1":
        return torch.einsum("...o,...i->...oi", grads, acts).flatten(-2)
    if identity == "conv3x3":
        return torch.einsum("...o,...ik->...oik", grads, _windows(acts)).flatten(-3)
    return (grads[..., None] * _windows(acts)).flatten(-2)


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("sign", [0, 1, -1])
def test_closed_forms_equal_the_materialised_terms(identity: str, aggregate: str, sign: int) -> None:
    acts, grads = _layer()
    if sign:  # where all are of one sign the largest product is at another corner
        acts, grads = sign * acts.abs() - 0.1 * sign, grads.abs()
    maps = NormGrad(identity=identity, aggregate=aggregate)(acts, grads)
    torch.testing.assert_close(maps, AGGREGATES[aggregate](_term(identity, acts, grads)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("corner", range(4))
def test_each_corner_can_be_the_largest(corner: int) -> None:
    x, g = torch.tensor([[-1.0, 1.0]]).double(), torch.tensor([[-1.0, 1.0]]).double()
    x[0, corner % 2], g[0, corner // 2] = 5 * x[0, corner % 2], 7 * g[0, corner // 2]
    largest = max(a * b for a, b in itertools.product(x[0].tolist(), g[0].tolist()))
    assert float(NormGrad(aggregate="max")(x[:, None], g[:, None])) == largest


def _identity_layer(identity: str, d: int) -> torch.Tensor:
    if identity == "conv1x1":
        return torch.eye(d, dtype=torch.float64)[:, :, None, None]
    middle = torch.zeros(3, 3, dtype=torch.float64)
    middle[1, 1] = 1
    if identity == "depthwise3x3":
        return middle.expand(d, 1, 3, 3).clone()
    return torch.eye(d, dtype=torch.float64)[:, :, None, None] * middle


@pytest.mark.parametrize("identity", ["conv1x1", "conv3x3", "depthwise3x3"])
def test_terms_are_the_weight_gradient_of_a_real_identity_convolution(identity: str) -> None:
    """A real layer in the graph; its weight gradient with the output's gradient kept at one position alone."""
    acts, _ = _layer()
    weight = _identity_layer(identity, 6).requires_grad_()
    groups = 6 if identity == "depthwise3x3" else 1
    out = functional.conv2d(acts.movedim(-1, 1), weight, padding=weight.shape[-1] // 2, groups=groups)
    torch.testing.assert_close(out.movedim(1, -1), acts)  # it does nothing
    mixing = torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (grads,) = torch.autograd.grad((out * mixing).sin().sum(), out, retain_graph=True)
    for aggregate, of in AGGREGATES.items():
        maps = NormGrad(identity=identity, aggregate=aggregate)(acts, grads.movedim(1, -1))
        for b, i, j in itertools.product(range(2), range(4), range(5)):
            here = torch.zeros_like(grads)
            here[b, :, i, j] = grads[b, :, i, j]
            (term,) = torch.autograd.grad(out, weight, here, retain_graph=True)
            torch.testing.assert_close(maps[b, i, j], of(term.flatten()), rtol=1e-12, atol=1e-12)


def test_scaling_and_sum_is_gradient_times_activation() -> None:
    acts, grads = _layer()
    torch.testing.assert_close(NormGrad(identity="scaling", aggregate="sum")(acts, grads), (acts * grads).sum(dim=-1))


@pytest.mark.parametrize("identity", ["conv3x3", "depthwise3x3"])
def test_windows_follow_the_grid_whatever_its_rank(identity: str) -> None:
    """A line is a grid of height 1, and a volume of depth 1 is a grid."""
    acts, grads = _layer((7,))
    maps = NormGrad(identity=identity, aggregate="norm")(acts, grads)
    torch.testing.assert_close(maps, NormGrad(identity=identity)(acts[:, None], grads[:, None])[:, 0])
    acts, grads = _layer((4, 5))
    volume = NormGrad(identity=identity, aggregate="max")(acts[:, None], grads[:, None])[:, 0]
    largest = NormGrad(identity=identity, aggregate="max")(acts, grads)
    torch.testing.assert_close(volume, torch.maximum(largest, torch.zeros_like(largest)))  # zeros lie above and below


@pytest.mark.parametrize(("name", "known"), [("identity", "bias, scaling"), ("aggregate", "norm, filter_norm")])
def test_unknown_names_are_refused(name: str, known: str) -> None:
    method = NormGrad()
    object.__setattr__(method, name, "mean")  # past the types, which the tests check and users' calls do not
    with pytest.raises(ValueError, match=f"{name} is 'mean', but NormGrad knows {known}"):
        method.__post_init__()
