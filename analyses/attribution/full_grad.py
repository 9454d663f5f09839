"""FullGrad (Srinivas and Fleuret 2019, https://arxiv.org/abs/1905.00780)."""

import contextlib
import re
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from analyses.attribution.base import ModelMethod
from analyses.cam.base import Details
from analyses.layers import on_grid
from analyses.maps import grown
from analyses.running import Runner
from interp.capturing import left_as_found
from interp.models.base import hook
from interp.models.torch_module import INPUT
from interp.types import Site


@dataclass(frozen=True)
class FullGrad(ModelMethod):
    """What the input and each layer's bias add to the score, which add up to it whatever the network is made of.

    At a layer, the bias is what its activations have beside the linear map of what came before: `z - J x`. That is the
    parameters' biases in a piecewise-linear network, and holds the implicit ones of GELU, LayerNorm, softmax and
    attention too. Its product with the gradient there is the layer's term; the product of input and gradient is the
    input's. What comes after the last layer is in no place, and is reported as `rest`; `score` is what all terms add up
    to with it.

    A map is the sum of the sizes of all terms, grown to the input: it has no sign and does not add up.

    Args:
        layers: Layers whose biases are told apart, in any order; None for the blocks where a model has some, and else
            for all places whose geometry was declared.

    Raises:
        ValueError: In use, if there is no such layer or it lies on another grid than the map, or the model runs an
            operation that forward-mode automatic differentiation does not know.
    """

    layers: tuple[str, ...] | None = None

    def terms(self, runner: Runner) -> tuple[dict[Site, Float[Tensor, "b ..."]], Float[Tensor, " b"]]:
        """Signed terms of the input and of each layer, as the model makes activations, and the rest: all sums together
        are the score.

        Args:
            runner: The examples at the model's input.
        """
        sites = [runner.site, *(site for site in self._layers(runner) if site != runner.site)]
        grads = runner.scorer.run(runner.examples, sites).grads
        pieces, rest = [], []
        for chunk in runner.examples.chunks(runner.batch_size):
            with _Biases(runner, sites) as biases:
                seen = runner.scorer.of(runner.scorer.forward(chunk))
                score, tangent = _halves(seen)
            pieces.append(biases.found)
            rest.append(score - tangent)
        whole = {site: torch.cat([piece[site] for piece in pieces]) for site in sites}
        return {site: grads[site] * whole[site] for site in sites}, torch.cat(rest)

    def measured(self, runner: Runner) -> tuple[Float[Tensor, " b *grid"], Details]:
        """The maps; the `rest`, and the `score` that all terms add up to with it."""
        terms, rest = self.terms(runner)
        total, maps = rest.clone(), torch.zeros(())
        for site, term in terms.items():
            total = total + term.flatten(1).sum(dim=1)
            geometry = runner.scorer.model.geometry(site, runner.inputs)
            sizes = on_grid(term, geometry, site).sum(dim=-1).abs()
            if site != runner.site and runner.site.module == INPUT:
                sizes = grown(sizes, geometry, None, str(site), lead=1)
            if maps.ndim and sizes.shape != maps.shape:
                raise ValueError(
                    f"{site} has a grid of {list(sizes.shape[1:])}, but the map is to lie on {runner.site}, of "
                    f"{list(maps.shape[1:])}: ask for it at 'input', or name other layers."
                )
            maps = maps + sizes
        return maps, {"rest": rest, "score": total}

    def _layers(self, runner: Runner) -> list[Site]:
        model = runner.scorer.model
        if self.layers is not None:
            return [model.site(name) for name in self.layers]
        names = model.sites()
        blocks = [name for name in names if re.fullmatch(r"(stages\.\d+\.)?blocks\.\d+", name)]
        declared = [str(site) for site in getattr(model, "_geometries", {})]
        return list(dict.fromkeys(model.site(name) for name in blocks or declared))


class _Biases(contextlib.AbstractContextManager["_Biases"]):
    """A forward pass that carries, beside each activation, the linear map of what came before it.

    At each site that part is noted as missing from the activation, and put right: from there on the activation is
    carried whole. So what is missing at a later site is what lies between the two.
    """

    def __init__(self, runner: Runner, sites: list[Site]) -> None:
        self.found: dict[Site, Tensor] = {}
        self._runner, self._sites = runner, sites

    def __enter__(self) -> "_Biases":
        with contextlib.ExitStack() as stack:
            model = self._runner.scorer.model
            stack.enter_context(left_as_found(model, frozen=True))
            stack.enter_context(torch.no_grad())
            # Fused attention knows no forward mode; the plain one is made of operations that do.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(forward_ad.dual_level())
            for site in self._sites:
                stack.callback(hook(model.place(site), _Reseeded(self.found, site), site).remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._stack.close()
        if isinstance(error, NotImplementedError | RuntimeError) and re.search("forward(.mode)? AD", str(error)):
            raise ValueError(
                f"{self._runner.scorer.model.name} runs an operation without forward-mode differentiation, which "
                "FullGrad needs: choose IntegratedGradients."
            ) from error


@dataclass(frozen=True)
class _Reseeded:
    found: dict[Site, Tensor]
    site: Site

    def __call__(self, value: Tensor) -> Tensor | None:
        if self.site in self.found:
            return None
        whole, carried = _halves(value)
        self.found[self.site] = whole - carried
        return forward_ad.make_dual(whole, whole.clone())


def _halves(value: Tensor) -> tuple[Tensor, Tensor]:
    """A value and what is carried beside it: 0 where nothing is."""
    whole, carried = forward_ad.unpack_dual(value)
    return whole, torch.zeros_like(whole) if carried is None else carried
