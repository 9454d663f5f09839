"""DeepLIFT (Shrikumar et al. 2017, https://arxiv.org/abs/1704.02685)."""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.passes import Examples
from analyses.running import Given, Runner
from interp.capturing import edited, left_as_found

_TWICE = (
    "{} uses one module of an activation at several places, which DeepLIFT cannot tell apart: give each place a module "
    "of its own, or choose IntegratedGradients."
)
# At these captum 0.9 mixes the examples of a batch.
_MIXING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Softmax)


@dataclass(frozen=True)
class DeepLIFT(ModelMethod):
    """What each position adds to the change of the score from a baseline, by the rescale rule, summed over channels.

    Runs through captum, whose rules stand on modules: ReLU, ELU, LeakyReLU, Sigmoid, Tanh, Softplus, MaxPool and
    Softmax, each used at one place. Any other nonlinearity, and one that is called as a function, takes its gradient;
    so does the choice of each example's highest logit: name the class.

    In units of the score: a map adds up to the change of the score, but for what places without a rule leave out, which
    is reported as `gap`: the sum of the map less the change.

    Args:
        baseline: What all activations are in the pass that is compared with.

    Raises:
        ImportError: In use, if captum is not installed.
        ValueError: In use, if activations have no gradient, the score does not depend on them, or the model uses one
            module at several places.
    """

    baseline: float = 0.0

    def attributions(self, runner: Runner) -> Tensor:
        """Multipliers times the change, as the model makes the activations."""
        try:
            from captum.attr import DeepLift
        except ImportError as error:
            raise ImportError(
                'DeepLIFT runs through captum, which is not installed: pip install "unweave[attribution]"'
            ) from error
        if not runner.values.is_floating_point():
            raise ValueError(
                f"{runner.site} holds {runner.values.dtype}, which has no gradient: choose a site after it."
            )
        mixes = any(isinstance(module, _MIXING) for module in _modules(runner))
        # Each example runs together with its baseline.
        size = 1 if mixes else max(runner.batch_size // 2, 1)
        found, start = [], 0
        for chunk in runner.examples.chunks(size):
            values = runner.values[start : start + len(chunk)].detach().clone()
            found.append(self._of(DeepLift, runner, chunk, values))
            start += len(chunk)
        return torch.cat(found)

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps and their gaps."""
        found = self.attributions(runner)
        change = runner.scores() - runner.scores(torch.full_like(runner.values, self.baseline))
        return runner.vectors(found).sum(dim=-1), {"gap": found.flatten(1).sum(dim=1) - change}

    def _of(self, library: Any, runner: Runner, chunk: Examples, values: Tensor) -> Tensor:
        held = {module: set(vars(module)) for module in _modules(runner)}
        try:
            with (
                left_as_found(runner.scorer.model, frozen=True),
                torch.inference_mode(False),
                torch.enable_grad(),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # about hooks, which it takes away again
                found = library(_Scored(runner, chunk)).attribute(values, torch.full_like(values, self.baseline))
                return found.detach()
        except (RuntimeError, AssertionError) as error:
            if "used more than once" not in str(error):
                raise
            raise ValueError(_TWICE.format(runner.scorer.model.name)) from error
        finally:
            for module, names in held.items():
                for name in {"input", "output"} & (set(vars(module)) - names):  # what an error leaves there
                    delattr(module, name)


def _modules(runner: Runner) -> list[nn.Module]:
    model = runner.scorer.model
    return list(dict.fromkeys(getattr(model, "modules", model.module.modules)()))


class _Scored(nn.Module):
    """Activations at a site -> scores; each example comes twice, the second time with its baseline."""

    def __init__(self, runner: Runner, chunk: Examples) -> None:
        super().__init__()
        self._runner, self._chunk = runner, chunk
        self._after = _after(runner)

    def forward(self, values: Tensor) -> Tensor:
        chunk = self._chunk.some(torch.arange(len(self._chunk)).repeat(2))
        site, scorer = self._runner.site, self._runner.scorer
        with edited(scorer.model, {site: Given(values)}, inputs=chunk.inputs):
            scores = scorer.of(scorer.forward(chunk))
        if not scores.requires_grad:
            raise ValueError(f"the score does not depend on {site}: choose an earlier site or another score.")
        return scores

    def apply(self, change: Callable[[nn.Module], None]) -> "_Scored":
        """What captum puts its hooks on: the modules that run behind the site, each once."""
        for module in self._after:
            change(module)
        return self


def _after(runner: Runner) -> list[nn.Module]:
    """The modules that run once the site is reached: before it nothing has a gradient that a rule could change.

    Raises:
        ValueError: If a module that has a rule runs on both sides.
    """
    from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR

    order, reached = list[nn.Module](), list[int]()
    with contextlib.ExitStack() as stack:
        for module in _modules(runner):
            stack.callback(module.register_forward_pre_hook(lambda module, _: order.append(module)).remove)
        with edited(runner.scorer.model, {runner.site: _Noted(order, reached)}, inputs=runner.inputs):
            runner.some(torch.tensor([0])).scores()
    at = reached[0] if reached else 0
    if any(type(module) in SUPPORTED_NON_LINEAR for module in {*order[:at]} & {*order[at:]}):
        raise ValueError(_TWICE.format(runner.scorer.model.name))
    return list(dict.fromkeys(order[at:]))


@dataclass(frozen=True)
class _Noted:
    """An edit that changes nothing, and notes how many modules began to run before it."""

    order: list[nn.Module]
    reached: list[int]

    def __call__(self, native: Tensor) -> Tensor:
        self.reached.append(len(self.order))
        return native
