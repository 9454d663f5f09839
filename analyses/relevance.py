"""Operations differentiated by the rules of AttnLRP (Achtibat et al. 2024, https://arxiv.org/abs/2402.05602)."""

import contextlib
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from analyses.operations import WRITTEN_OUT

# One value in, one value out. ReLU and its kin are not among them: their gradient is that factor already.
_CURVED = [
    *("gelu", "silu", "mish", "tanh", "sigmoid", "erf", "softplus", "elu", "celu", "selu", "hardswish", "hardsigmoid"),
    *("hardtanh", "relu6", "log_sigmoid", "sqrt", "square", "special_erf", "special_expit", "softshrink"),
]
# Which arguments are multiplied by each other.
_FACTORS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("mul", "multiply", "matmul", "bmm", "mm", "mv", "dot", "vdot", "inner", "outer", "kron"), (0, 1)),
    **dict.fromkeys(("linalg_matmul", "linalg_vecdot", "tensordot", "linear", "conv1d", "conv2d", "conv3d"), (0, 1)),
    **dict.fromkeys(("addmm", "addmv", "addr", "baddbmm", "addbmm", "addcmul"), (1, 2)),
    "bilinear": (0, 1, 2),
}
_NAMED = {"other", "weight", "mat1", "mat2", "batch1", "batch2", "tensor1", "tensor2", "vec", "vec1", "vec2", "tensor"}


@contextlib.contextmanager
def relevance_rules(modules: Iterable[nn.Module] = ()) -> Iterator[None]:
    """For as long as the block lasts, differentiate what runs so that value times gradient is relevance.

    - Activations of one value, and `**`: the factor `(f(x) - f(0)) / x` is held constant; it is `f'(0)` at 0.
    - Products of n values that all depend on what is differentiated: each gets an nth of its gradient.
    - Normalisation, and `/`: the denominator is held constant, and so is what `rsqrt`, `reciprocal` and
      negative powers give.
    - Fused attention, gated linear units and cosines are taken apart first.

    All else keeps its gradient: linear layers, convolutions and sums, ReLU and its kin, pooling, softmax. So do
    operations that do in one step what no rule knows (recurrent layers, compiled or scripted functions, `addcdiv`,
    `multi_dot`), `exp`, `log` and others that are no activations, and normalisation by the statistics of a batch.
    Values stay what they are, but for rounding.

    Args:
        modules: Of these, each of `transformers.activations` is one activation, though it may be written out in several
            operations. Elsewhere, an activation that is written out goes by the rules of its operations.
    """
    rules = _Rules()
    with contextlib.ExitStack() as stack:
        for part in modules:
            if type(part).__module__ == "transformers.activations":
                stack.callback(part.register_forward_hook(rules.activated).remove)
        stack.enter_context(rules)
        yield


class _Rules(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._resting = False

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._resting or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if _is_written_out(func):
            with self:
                return _body(func)(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name.removesuffix("_") not in _KNOWN or not any(map(_asks, _flat([*args, *kwargs.values()]))):
            return func(*args, **kwargs)
        if "input" in kwargs:
            args = (kwargs["input"], *args)
            kwargs = {key: value for key, value in kwargs.items() if key != "input"}
        if name in WRITTEN_OUT:
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        if name.endswith("_"):  # in place: the same out of place, of a copy, is then written there
            func = getattr(torch, name[:-1], None) or getattr(torch._C._nn, name[:-1])
            return args[0].copy_(_RULES[name[:-1]](func, args[0].clone(), *args[1:], **kwargs))
        return _RULES[name](func, *args, **kwargs)

    def activated(self, module: nn.Module, args: tuple[Any, ...], _output: Any) -> Tensor | None:
        """A hook: of a module that is one activation, what it gives for its first argument."""
        if not args or not _asks(args[0]):
            return None
        self._resting = True
        try:
            return _Curve.apply(args[0], module.forward)
        finally:
            self._resting = False


def _asks(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_written_out(func: Any) -> bool:
    """Whether it is Python of torch's own, of operations that have rules of their own. Methods of tensors are mostly
    not: what they call is, under a mode, themselves again."""
    module, name = getattr(func, "__module__", None), getattr(func, "__name__", "")
    known = module == "torch.nn.functional" or (module == "torch._tensor" and name in ("__rdiv__", "__rmatmul__"))
    return known and isinstance(func, types.FunctionType) and "handle_torch_function" in func.__globals__


def _body(func: types.FunctionType) -> Callable[..., Any]:
    """What it does when no mode is asked first, as all of these ask."""
    unasked = {name: _no for name in func.__globals__ if name.startswith("has_torch_function")}
    body = types.FunctionType(
        func.__code__, func.__globals__ | unasked, func.__name__, func.__defaults__, func.__closure__
    )
    body.__kwdefaults__ = func.__kwdefaults__
    return body


def _no(*_args: Any) -> bool:
    return False


class _Curve(torch.autograd.Function):
    """A function of one value, as its multiple: the factor is not differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        values = function(x)
        with torch.enable_grad():
            zero = x.new_zeros(()).requires_grad_()
            start = function(zero)
            (slope,) = torch.autograd.grad(start, zero)
        # Near 0, a difference is lost to rounding that is less than the slope's own change.
        near = x.abs() <= (0.0 if start == 0 else torch.finfo(x.dtype).eps ** 0.5)
        factor = torch.where(near, slope, (values - start.detach()) / x)
        ctx.save_for_backward(factor.masked_fill(~factor.isfinite(), 0))
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.saved_tensors[0], None


class _Share(torch.autograd.Function):
    """A value that is given a part of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> Tensor:
        ctx.n = n
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad / ctx.n, None


def _curved(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _Curve.apply(x, lambda value: func(value, *args, **kwargs))


def _power(func: Any, x: Any, exponent: Any) -> Tensor:
    if not _asks(x) or isinstance(exponent, Tensor):
        return func(x, exponent)
    return _curved(func, x, exponent) if exponent > 0 else func(x.detach(), exponent)


def _held(func: Any, x: Tensor) -> Tensor:
    return func(x.detach())


def _divided(func: Any, x: Any, other: Any, **kwargs: Any) -> Tensor:
    return func(x, other.detach() if isinstance(other, Tensor) else other, **kwargs)


def _multiplied(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    places = _FACTORS[func.__name__]
    keys = [i for i, value in enumerate(args) if i in places and _asks(value)]
    keywords = [key for key, value in kwargs.items() if key in _NAMED and _asks(value)]
    n = len(keys) + len(keywords)
    if n < 2:
        return func(*args, **kwargs)
    shares = [_Share.apply(value, n) if i in keys else value for i, value in enumerate(args)]
    return func(*shares, **kwargs | {key: _Share.apply(kwargs[key], n) for key in keywords})


def _einsum(func: Any, equation: str, *operands: Any) -> Tensor:
    parts = _flat(operands)
    n = sum(map(_asks, parts))
    return func(equation, *(_Share.apply(part, n) if _asks(part) else part for part in parts))


def _flat(values: Iterable[Any]) -> list[Any]:
    """Values, and those of lists among them."""
    return [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]


_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_CURVED, _curved),
    **dict.fromkeys(_FACTORS, _multiplied),
    **dict.fromkeys(("div", "divide", "true_divide"), _divided),
    **dict.fromkeys(("rsqrt", "reciprocal"), _held),
    **{"pow": _power, "float_power": _power, "einsum": _einsum},
}
_KNOWN = _RULES.keys() | WRITTEN_OUT.keys()
