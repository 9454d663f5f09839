"""Layer-wise relevance propagation (Bach et al. 2015, https://doi.org/10.1371/journal.pone.0130140)."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.running import Runner
from interp.models.base import Model

Rule = Literal["epsilon", "plus", "gamma", "alpha_beta"]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Of ReLU and its kin, lines through 0, the gradient already passes relevance on as it is.
_CURVED = (
    *(nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Tanh, nn.Hardtanh, nn.Tanhshrink, nn.Threshold),
)


@dataclass(frozen=True)
class LRP(ModelMethod):
    """How the score is shared out among positions, from layer to layer, by what each input added to a layer's output.

    Rules stand on modules: linear layers and convolutions share by the rules chosen, other activations than ReLU pass
    on what they get, and so does batch normalisation, which is merged into the convolution or linear layer before it.
    All else takes gradient times value: for ReLU, sums, skips, means and pooling, modules or not, that is the epsilon
    rule without its epsilon. Activations called as functions, LayerNorm, attention and the linear layers of GPT-2,
    which are a class of their own, have no rule.

    In units of the score, summed over channels. A map adds up to the score but for what biases, epsilon and places
    without a rule take, which is reported as `gap`: the sum of the map less the score. The relevance of the model's
    output is its value times the score's gradient: for a logit the logit.

    Args:
        convolutions: The rule of convolutions: `epsilon`; `plus`, what was added to the positive side alone; `gamma`,
            which favours that side; `alpha_beta`, both sides weighted apart, which does not add up where nothing was
            added to one of them.
        linear: The rule of linear layers.
        epsilon: What the epsilon rule adds to the size of a denominator, in units of the layer's output.
        gamma: How much the gamma rule favours.
        alpha: Weight of the positive side in `alpha_beta`; that of the negative one is `alpha` - 1.

    Raises:
        ValueError: If there is no such rule, or a number is out of its range.
    """

    convolutions: Rule = "plus"
    linear: Rule = "epsilon"
    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 2.0

    def __post_init__(self) -> None:
        known = get_args(Rule)
        for name, rule in (("convolutions", self.convolutions), ("linear", self.linear)):
            if rule not in known:
                raise ValueError(f"{name} is {rule!r}, but rules are {', '.join(known)}: choose of these.")
        if self.epsilon < 0 or self.gamma < 0 or self.alpha < 1:
            found = f"epsilon is {self.epsilon}, gamma {self.gamma} and alpha {self.alpha}"
            raise ValueError(f"{found}, but they are at least 0, 0 and 1: choose such values.")

    def attributions(self, runner: Runner) -> Tensor:
        """The relevance, as the model makes the activations."""
        return self._shared_out(runner)[0]

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps and their gaps."""
        found, scores = self._shared_out(runner)
        return runner.vectors(found).sum(dim=-1), {"gap": found.flatten(1).sum(dim=1) - scores}

    def _shared_out(self, runner: Runner) -> tuple[Tensor, Float[Tensor, " b"]]:
        with _ruled(runner.scorer.model, self):
            scores, slopes = runner.gradients()
        return runner.values * slopes, scores


@contextlib.contextmanager
def _ruled(model: Model, method: LRP) -> Iterator[None]:
    """Backward passes by rules for as long as the block lasts. What they give is relevance divided by the value, so
    that all that has no rule may stay as it is."""
    modules = list(dict.fromkeys(getattr(model, "modules", model.module.modules)()))
    with contextlib.ExitStack() as stack:
        for module in modules:
            change: Callable[..., Tensor] | None = None
            if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
                change = functools.partial(_shared, method)
            elif isinstance(module, _BatchNorm):
                change = _merged
            elif isinstance(module, _CURVED) or type(module).__module__ == "transformers.activations":
                change = _passed
                if getattr(module, "inplace", False):  # would leave nothing of its input
                    stack.callback(setattr, module, "inplace", True)
                    module.inplace = False
            if change is not None:
                stack.callback(module.register_forward_hook(_Hooked(change), with_kwargs=True).remove)
        yield


@dataclass(frozen=True)
class _Hooked:
    """A forward hook. No closure: the tests' shape checks would compile it at each call."""

    change: Callable[..., Tensor]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Any:
        x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        return self.change(module, x, output) if x.requires_grad else None


class _Backward(torch.autograd.Function):
    """A module's output, with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, back: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        # Copies: what the model does in place later must not reach them.
        ctx.x, ctx.output, ctx.back = x.detach().clone(), output, back
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(ctx.x, ctx.output, grads[0]), None, None


def _passed(_module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    return _Backward.apply(x, output.detach(), _pass)


def _pass(x: Tensor, output: Tensor, slopes: Tensor) -> Tensor:
    return output * slopes / _away(x, torch.finfo(x.dtype).eps)


def _merged(module: Any, x: Tensor, output: Tensor) -> Tensor:
    """Batch normalisation: a part of the layer whose output it takes as it is, so that relevance goes straight to that
    layer's input. What else takes the output has a share of its own."""
    layer: Any = getattr(x, "_shared_by", None)
    # What was written to since is another tensor, though the object is the same.
    same = layer is not None and x._shared_at == (x._version, layer.given._version)  # type: ignore[attr-defined]
    if not same or module.running_var is None or len(layer.module.weight) != len(module.running_var):
        return _passed(module, x, output)
    scale = (module.running_var + module.eps).rsqrt()
    scale = scale if module.weight is None else scale * module.weight
    shift = -module.running_mean * scale + (0 if module.bias is None else module.bias)
    whole = _Layer(layer.module, layer.method, layer.given, scale, shift)
    return _Backward.apply(layer.given, output.detach(), whole.back)


def _shared(method: LRP, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    layer = _Layer(module, method, x)
    new = _Backward.apply(x, output.detach(), layer.back)
    if isinstance(module, _CONVOLUTIONS) or new.ndim == 2:  # whose channels are where those of a batch norm are
        new._shared_by, new._shared_at = layer, (new._version, x._version)
    return new


class _Layer:
    """One run of a linear layer on what it was given, and the batch normalisation that is a part of it."""

    def __init__(
        self, module: Any, method: LRP, given: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> None:
        self.module, self.method, self.given, self.scale, self.shift = module, method, given, scale, shift

    def back(self, x: Tensor, output: Tensor, slopes: Tensor) -> Tensor:
        weight, bias, relevance = self.module.weight.detach(), self.module.bias, output * slopes
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        if self.scale is not None and self.shift is not None:
            weight = weight * self.scale.detach().view(-1, *[1] * (weight.ndim - 1))
            bias = bias * self.scale.detach() + self.shift.detach()
        rule = self.method.linear if isinstance(self.module, nn.Linear) else self.method.convolutions
        with torch.enable_grad():
            x = x.requires_grad_()
            if rule == "epsilon":
                return _share(self._run(x, weight, bias), x, relevance, self.method.epsilon)
            up, zero = [part.clamp(min=0) for part in (x, weight, bias)], torch.zeros_like(bias)
            down = [part.clamp(max=0) for part in (x, weight, bias)]
            raised = self._run(up[0], up[1], up[2]) + self._run(down[0], down[1], zero)
            if rule == "plus":
                return _share(raised, x, relevance)
            lowered = self._run(up[0], down[1], down[2]) + self._run(down[0], up[1], zero)
            if rule == "gamma":
                whole = self._run(x, weight, bias)
                return _share(whole + self.method.gamma * torch.where(whole > 0, raised, lowered), x, relevance)
            beta = self.method.alpha - 1
            return self.method.alpha * _share(raised, x, relevance) - beta * _share(lowered, x, relevance)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        is_linear = isinstance(self.module, nn.Linear)
        return (functional.linear if is_linear else self.module._conv_forward)(x, weight, bias)


def _share(parts: Tensor, x: Tensor, relevance: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Each output's relevance among the inputs, by what each added to it; divided by the inputs."""
    return torch.autograd.grad(parts, x, relevance / _away(parts.detach(), epsilon), retain_graph=True)[0]


def _away(values: Tensor, epsilon: float) -> Tensor:
    """Values moved away from 0."""
    moved = values + torch.where(values < 0, -epsilon, epsilon)
    return torch.where(moved == 0, 1, moved)
