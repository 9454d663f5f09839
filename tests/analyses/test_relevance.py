"""Each rule against its formula, by autograd on what is written out with the constant parts held."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from analyses.relevance import relevance_rules

CURVED: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu, tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "silu in place": lambda x: functional.silu(x.clone(), inplace=True),
    "mish": nn.Mish(),
    "tanh": torch.tanh,
    "tanh_": lambda x: x.clone().tanh_(),
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "special erf": torch.special.erf,
    "special expit": torch.special.expit,
    "softshrink": nn.Softshrink(0.3),
    "float power": lambda x: torch.float_power(x, 2),
    "softplus": nn.Softplus(beta=2),
    "elu": nn.ELU(0.5),
    "celu": nn.CELU(),
    "selu": nn.SELU(inplace=False),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
    "relu6": lambda x: nn.ReLU6()(8 * x),
    "logsigmoid": functional.logsigmoid,
    "softsign": nn.Softsign(),
    "tanhshrink": nn.Tanhshrink(),
    "square": torch.square,
    "cube": lambda x: x**3,
    "relu": nn.ReLU(),
    "leaky relu in place": lambda x: functional.leaky_relu(x.clone(), 0.2, inplace=True),
    "keyword": lambda x: torch.tanh(input=x),
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _ruled(function: Callable[..., Tensor], *given: Tensor, modules: Any = ()) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What a function gives under the rules, and the gradient of a weighted sum of it."""
    leaves = [value.clone().requires_grad_() for value in given]
    with relevance_rules(modules):
        values = function(*leaves)
        grads = torch.autograd.grad((values * _normal(*values.shape, seed=9)).sum(), leaves)
    return values.detach(), grads


def _plain(function: Callable[..., Tensor], *given: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [value.clone().requires_grad_() for value in given]
    values = function(*leaves)
    return values.detach(), torch.autograd.grad((values * _normal(*values.shape, seed=9)).sum(), leaves)


@pytest.mark.parametrize("name", CURVED)
def test_an_activation_is_a_multiple_of_what_it_is_given(name: str) -> None:
    x, function = _normal(40), CURVED[name]
    values, (grad,) = _ruled(function, x)
    weights, start = _normal(40, seed=9), function(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(values, function(x))
    torch.testing.assert_close(x * grad, (values - start) * weights)
    # At 0, where that says nothing, the limit.
    none = torch.zeros(40, dtype=torch.float64)
    torch.testing.assert_close(_ruled(function, none)[1][0], _plain(function, none)[1][0])
    small = torch.full((40,), 1e-12, dtype=torch.float64)
    torch.testing.assert_close(_ruled(function, small)[1][0], _plain(function, small)[1][0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["gelu_new", "gelu_python", "quick_gelu", "gelu_fast", "relu2", "silu", "laplace"])
def test_an_activation_of_transformers_is_one_however_it_is_written(name: str) -> None:
    from transformers.activations import ACT2FN

    module, x = ACT2FN[name], _normal(30)
    net = nn.Sequential(nn.Identity(), module)
    values, (grad,) = _ruled(net, x, modules=net.modules())
    start = module(torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(values, module(x))
    torch.testing.assert_close(x * grad, (values - start) * _normal(30, seed=9))
    assert not module._forward_hooks


def test_roots_keep_the_whole_and_have_no_gradient_at_0() -> None:
    x = torch.tensor([0.0, 0.5, 4.0], dtype=torch.float64)
    values, (grad,) = _ruled(torch.sqrt, x)
    torch.testing.assert_close(x * grad, values * _normal(3, seed=9))
    assert grad[0] == 0


A, B = _normal(2, 3, 3, seed=1), _normal(2, 3, 3, seed=2)
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "*": lambda a, b: a * b,
    "*=": lambda a, b: a.clone().mul_(b),
    "named": lambda a, b: torch.mul(input=a, other=b),
    "@": lambda a, b: a @ b,
    "matmul": lambda a, b: torch.matmul(a, other=b),
    "bmm": torch.bmm,
    "mm": lambda a, b: torch.mm(a[0], b[0]),
    "dot": lambda a, b: torch.dot(a[0, 0], b[1, 0]),
    "outer": lambda a, b: torch.outer(a[0, 0], b[1, 0]),
    "einsum": lambda a, b: torch.einsum("bij,bkj->bik", a, b),
    "einsum of a list": lambda a, b: torch.einsum("bij,bkj->bik", [a, b]),
    "linear": lambda a, b: functional.linear(a, b[0]),
    "conv": lambda a, b: functional.conv1d(a, b, padding=1),
    "addmm": lambda a, b: torch.addmm(torch.ones(3, 3).double(), a[0], b[1]),
    "baddbmm": lambda a, b: torch.baddbmm(torch.ones(2, 3, 3).double(), a, b),
    "addcmul": lambda a, b: torch.addcmul(torch.ones(2, 3, 3).double(), a, b, value=2),
    "tensordot": lambda a, b: torch.tensordot(a, b, 2) if a.shape[0] == 3 else torch.tensordot(a[0], b[0], 1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_factors_of_a_product_share_alike(name: str) -> None:
    function = PRODUCTS[name]
    values, grads = _ruled(function, A, B)
    plain, slopes = _plain(function, A, B)
    torch.testing.assert_close(values, plain)
    for grad, slope in zip(grads, slopes, strict=True):
        torch.testing.assert_close(grad, slope / 2)
    # One that depends on nothing is a weight.
    torch.testing.assert_close(_ruled(lambda a: function(a, B), A)[1], _plain(lambda a: function(a, B), A)[1])
    torch.testing.assert_close(_ruled(lambda b: function(A, b), B)[1], _plain(lambda b: function(A, b), B)[1])


def test_three_factors_get_a_third_and_a_square_its_own() -> None:
    function = lambda a, b, c: torch.einsum("bij,bjk,bkl->bil", a, b, c)  # noqa: E731
    grads, slopes = (way(function, A, B, A + B)[1] for way in (_ruled, _plain))
    for grad, slope in zip(grads, slopes, strict=True):
        torch.testing.assert_close(grad, slope / 3)
    values, (grad,) = _ruled(lambda a: a * a, A)
    torch.testing.assert_close(A * grad, values * _normal(2, 3, 3, seed=9))


def test_denominators_are_constant() -> None:
    weights = _normal(2, 3, 3, seed=9)
    for function in (lambda a, b: a / b, lambda a, b: a.clone().div_(b), lambda a, b: torch.divide(a, other=b)):
        values, (grad, none) = _ruled(lambda a, b, function=function: function(a, b) + 0 * b, A, B)
        torch.testing.assert_close(values, A / B)
        torch.testing.assert_close(grad, weights / B)
        assert not none.any()
    size = A.abs() + 1
    for function in (torch.rsqrt, torch.reciprocal, lambda a: a**-0.5, lambda a: 1 / a):
        values, (grad,) = _ruled(lambda a, function=function: 2 * a * function(a), size)
        torch.testing.assert_close(grad, 2 * function(size) * weights)
    values, (grad,) = _ruled(lambda a: functional.normalize(a, dim=-1), A)
    torch.testing.assert_close(A * grad, values * weights)


def _held(x: Tensor, axes: tuple[int, ...], eps: float, like: Tensor, *, centre: bool = True) -> Tensor:
    """Normalised by the spread of another tensor."""
    mean = (lambda y: y.mean(axes, keepdim=True)) if centre else (lambda y: 0 * y)
    return (x - mean(x)) / ((like - mean(like)).square().mean(axes, keepdim=True) + eps).sqrt()


def test_norms_divide_by_a_constant() -> None:
    x, w, b = _normal(2, 4, 3, 5), _normal(5, seed=3), _normal(5, seed=4)
    c, d = _normal(4, seed=5)[:, None, None], _normal(4, seed=6)[:, None, None]
    flat = lambda y: y.reshape(2, 2, -1)  # noqa: E731
    cases: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
        (lambda y: functional.layer_norm(y, (5,), w, b, 1e-3), lambda y: _held(y, (-1,), 1e-3, x) * w + b),
        (lambda y: torch.layer_norm(input=y, normalized_shape=(3, 5)), lambda y: _held(y, (-2, -1), 1e-5, x)),
        (lambda y: functional.rms_norm(y, (5,), w, 1e-3), lambda y: _held(y, (-1,), 1e-3, x, centre=False) * w),
        (
            lambda y: functional.group_norm(y, 2, c.flatten(), d.flatten(), 1e-3),
            lambda y: _held(flat(y), (-1,), 1e-3, flat(x)).view_as(y) * c + d,
        ),
        (
            lambda y: functional.instance_norm(y, weight=c.flatten(), bias=d.flatten(), eps=1e-3),
            lambda y: _held(y, (-2, -1), 1e-3, x) * c + d,
        ),
        (
            lambda y: functional.instance_norm(y, d.flatten(), c.flatten().exp(), use_input_stats=False, eps=1e-3),
            lambda y: (y - d) / (c.exp() + 1e-3).sqrt(),
        ),
        (
            lambda y: y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1),
            lambda y: _held(y, (-1,), 1.0, x, centre=False),
        ),
        (
            lambda y: (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 1e-3).sqrt(),
            lambda y: _held(y, (-1,), 1e-3, x),
        ),
    ]
    for function, written in cases:
        values, (grad,) = _ruled(function, x)
        torch.testing.assert_close(values, function(x))
        torch.testing.assert_close(values, written(x))
        torch.testing.assert_close(grad, _plain(written, x)[1][0])


def test_softmax_sums_and_linear_layers_keep_their_gradient() -> None:
    layer, conv = nn.Linear(3, 4).double().requires_grad_(False), nn.Conv1d(3, 4, 2).double().requires_grad_(False)
    pool = nn.MaxPool1d(2)
    for function in (
        lambda a: functional.softmax(a, -1),
        lambda a: a.log_softmax(-1) - a.mean() + torch.cat([a, 2 * a]).sum(),
        lambda a: functional.dropout(layer(a) + pool(conv(a)).sum(), training=False),
    ):
        torch.testing.assert_close(_ruled(function, A), _plain(function, A))


@pytest.mark.parametrize("kind", ["plain", "allowed", "added", "causal", "scaled", "grouped", "nothing seen"])
def test_fused_attention_is_its_products_and_its_softmax(kind: str) -> None:
    q, k, v = _normal(2, 4, 3, 6), _normal(2, 4, 5, 6, seed=1), _normal(2, 4, 5, 7, seed=2)
    mask = _normal(2, 1, 3, 5, seed=3)
    options: dict[str, Any] = {}
    if kind == "allowed":
        options, mask = {"attn_mask": mask > -0.5}, torch.where(mask > -0.5, 0, -torch.inf).double()
    elif kind == "added":
        options = {"attn_mask": mask}
    elif kind == "nothing seen":
        options = {"attn_mask": torch.tensor([True, False, True])[:, None].expand(3, 5)}
    elif kind == "causal":
        options, mask = {"is_causal": True}, torch.full((3, 5), -torch.inf).double().triu(1)
    if kind not in ("allowed", "added", "causal"):
        mask = torch.zeros(3, 5).double()
    options |= {"scale": 0.7} if kind == "scaled" else {}
    if kind == "grouped":
        k, v, options = k[:, :2], v[:, :2], {"enable_gqa": True}

    def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if kind == "grouped":
            k, v = (part[:, [0, 0, 1, 1]] for part in (k, v))
        pattern = torch.softmax(q @ k.mT * (0.7 if kind == "scaled" else 6**-0.5) + mask, -1)
        seen = torch.tensor([1.0, 0.0, 1.0])[:, None] if kind == "nothing seen" else 1.0
        return pattern * seen @ v

    values, grads = _ruled(lambda *given: functional.scaled_dot_product_attention(*given, **options), q, k, v)
    torch.testing.assert_close(values, functional.scaled_dot_product_attention(q, k, v, **options))
    torch.testing.assert_close((values, grads), _ruled(written, q, k, v))
    _, slopes = _plain(written, q, k, v)
    torch.testing.assert_close(grads[2], slopes[2] / 2)
    torch.testing.assert_close(grads[0], slopes[0] / 4)


def test_gates_and_cosines_are_taken_apart() -> None:
    x, y = _normal(3, 8), _normal(3, 8, seed=1)
    torch.testing.assert_close(
        _ruled(functional.glu, x), _ruled(lambda a: a.chunk(2, -1)[0] * a.chunk(2, -1)[1].sigmoid(), x)
    )
    torch.testing.assert_close(_ruled(nn.GLU(), x)[0], functional.glu(x))
    values, (grad,) = _ruled(lambda a: torch.cosine_similarity(a, y, dim=1), x)
    torch.testing.assert_close(values, torch.cosine_similarity(x, y, dim=1))
    torch.testing.assert_close((x * grad).sum(1), values * _normal(3, seed=9))


@pytest.mark.parametrize("weights", [True, False])
def test_torchs_own_attention_goes_by_the_rules(weights: bool) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(6, 2, batch_first=True).double().eval().requires_grad_(False)
    nn.init.normal_(module.in_proj_bias)
    x = _normal(2, 4, 6)

    def written(x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (2, 3)).transpose(1, 2)
            for part in functional.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
        )
        z = (q @ k.mT / 3**0.5).softmax(-1) @ v
        return module.out_proj(z.transpose(1, 2).flatten(2))

    found = _ruled(lambda x: module(x, x, x, need_weights=weights)[0], x)
    torch.testing.assert_close(found[0], module(x, x, x)[0])
    torch.testing.assert_close(found, _ruled(written, x))


def test_rules_end_with_the_block_also_after_an_exception() -> None:
    with pytest.raises(KeyError), relevance_rules():
        raise KeyError
    torch.testing.assert_close(_plain(torch.tanh, A)[1][0], (1 - A.tanh().square()) * _normal(2, 3, 3, seed=9))
    with relevance_rules(), torch.no_grad():
        torch.testing.assert_close(functional.gelu(A), nn.GELU()(A))


def test_half_precision_stays_near() -> None:
    x = _normal(50).to(torch.bfloat16)
    leaf = x.clone().requires_grad_()
    with relevance_rules():
        (grad,) = torch.autograd.grad(functional.layer_norm(functional.gelu(leaf), (50,)).square().sum(), leaf)
    _, (exact,) = _ruled(lambda a: functional.layer_norm(functional.gelu(a), (50,)).square(), x.double())
    assert grad.dtype == torch.bfloat16 and grad.isfinite().all() and exact.isfinite().all()
