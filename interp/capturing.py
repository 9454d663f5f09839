"""One forward (and backward) pass -> activations at the chosen sites; and edits of what flows through them."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp.captured import Capture
from interp.edits import Edit
from interp.models.base import Model, hook
from interp.types import Geometry, Inputs, Place, Site

__all__ = ["Capture", "capture", "edited"]


def capture(
    model: Model,
    inputs: Inputs,
    sites: str | Site | Sequence[str | Site],
    *,
    score: Callable[..., Tensor] | None = None,
    reads: Sequence[str | Site] = (),
    grads: bool = True,
) -> Capture:
    """Read activations, all sites in one forward pass, in eval mode; the model is left as it was found.

    Without a score the pass stops as soon as the last site is read. Where a module runs several times, its first
    run counts.

    Args:
        model: The model.
        inputs: One batch.
        sites: One name, alias or site, or several.
        score: Of what the model's forward returned; summed, and differentiated at every site.
        reads: Sites that the score reads too: it is given a second argument, their activations by site, as the model
            makes them.
        grads: Take the score's gradient; else the score alone is computed, and `sites` may be empty.

    Raises:
        ValueError: If a site is unknown or never reached, or no gradient can be taken.
    """
    names = {str(site): model.site(site) for site in ([sites] if isinstance(sites, str | Site) else sites)}
    differentiable = score is not None and grads
    if not names and (score is None or grads):
        raise ValueError("sites is empty, but a capture needs at least one: model.sites() lists them.")
    asked = tuple(dict.fromkeys(names.values()))
    read = tuple(model.site(site) for site in reads)
    wanted = tuple(dict.fromkeys((*asked, *read)))
    reading = getattr(model, "reading", None)
    places = reading(wanted) if reading else {site: model.place(site) for site in wanted}
    reader = _Reader(wanted, differentiable=differentiable, stops=score is None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(left_as_found(model, frozen=differentiable))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(differentiable))
        for site, place in places.items():
            if differentiable and place.read_only:
                # Nothing can be put in its place, so the graph begins no later than the module that makes it.
                stack.callback(hook(Place(place.module, "in"), _begun, site).remove)
            stack.callback(hook(place, reader.at(site, place), site).remove)
        output = reader.run(model, inputs)
        extra = ({site: reader.values[site] for site in read},) if read else ()
        scores = None if score is None else score(output, *extra)
        slopes = reader.gradients(scores, asked) if differentiable else {}
    values = {site: reader.values[site].detach() for site in asked}
    geometries = {site: model.geometry(site, inputs) for site in asked}
    for site, value in values.items():
        _check_geometry(site, value, geometries[site])
    return Capture(values, slopes, inputs.mask, _detached(output), geometries, names, _detached(scores))


@contextlib.contextmanager
def edited(
    model: Model,
    edits: Mapping[Site | str, Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]]],
    *,
    inputs: Inputs | None = None,
) -> Iterator[None]:
    """Replace activations for as long as the block lasts, whatever runs the model inside it.

    Args:
        model: The model.
        edits: For each site one edit or several, made in order. An edit of `interp.editing` is given vectors, one a
            position, whatever the site's layout; any other function the model's own tensor. What it returns takes
            that tensor's place.
        inputs: The batch that will be run, where its size changes the layout of maps.

    Raises:
        ValueError: If a site is unknown, or an edit changes the shape, dtype or device.
    """
    with contextlib.ExitStack() as stack:
        for name, changes in edits.items():
            site = model.site(name)
            for change in changes if isinstance(changes, Sequence) else [changes]:
                stack.callback(hook(model.place(site), _checked(model, site, change, inputs), site).remove)
        yield


def _checked(
    model: Model, site: Site, change: Callable[[Tensor], Tensor], inputs: Inputs | None
) -> Callable[[Tensor], Tensor]:
    def apply(value: Tensor) -> Tensor:
        new = change(value, site, model.geometry(site, inputs)) if isinstance(change, Edit) else change(value)
        if not isinstance(new, Tensor) or new.shape != value.shape:
            found = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(
                f"the edit of {site} gave {found}, but the model needs {tuple(value.shape)}: keep the shape."
            )
        if (new.dtype, new.device) != (value.dtype, value.device):
            raise ValueError(
                f"the edit of {site} gave {new.dtype} on {new.device}, but the model needs {value.dtype} on "
                f"{value.device}: return new.to(value)."
            )
        return new

    return apply


def _check_geometry(site: Site, values: Tensor, geometry: Geometry) -> None:
    """Compare what is declared with what was read; one vector an example fits any."""
    if geometry.positions is None or values.ndim <= 2:
        return
    found = tuple(values.shape)
    rows = values.ndim == 3 and found[1] == geometry.positions
    if not rows and geometry.grid not in (found[2:], found[1:-1]):
        raise ValueError(
            f"geometry of {site} declares grid {geometry.grid} with {geometry.prefix} prefix tokens "
            f"({geometry.positions} positions), but the activation has shape {found}: "
            "declare the geometry of this site, geometry={site: Geometry('grid', grid=...)}."
        )


class _Stop(BaseException):
    """Every site is read. Not an Exception, so that no model's own `except Exception` takes it."""


class _Reader:
    """Keeps the first value seen at each site."""

    def __init__(self, wanted: Sequence[Site], *, differentiable: bool, stops: bool) -> None:
        self.values: dict[Site, Tensor] = {}
        self._wanted, self._differentiable, self._stops = wanted, differentiable, stops

    def at(self, site: Site, place: Place) -> Callable[[Tensor], Tensor | None]:
        return functools.partial(self._see, site, place)

    def _see(self, site: Site, place: Place, value: Tensor) -> Tensor | None:
        if site in self.values:
            return None
        if self._differentiable and place.read_only:
            self._watch(site, value)
            return None
        if self._differentiable:
            return self._join(site, value)
        # A copy: what the model does in place later must not reach it.
        self.values[site] = value.detach().clone()
        if self._stops and len(self.values) == len(self._wanted):
            raise _Stop
        return None

    def _join(self, site: Site, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            raise ValueError(f"{site} holds {value.dtype}, which has no gradient: leave it out or drop the score.")
        kept = self.values[site] = value.clone() if value.requires_grad else _leaf(value)
        return kept.clone()  # the model may write to its own copy

    def _watch(self, site: Site, value: Tensor) -> None:
        if not value.requires_grad:
            raise ValueError(
                f"{site} can only be read, and is not computed from what its module is given, so it has no gradient: "
                "leave it out or drop the score."
            )
        self.values[site] = value  # the model's own tensor: of a copy of it, nothing would be computed

    def run(self, model: Model, inputs: Inputs) -> Any:
        try:
            output = model.forward(inputs)
        except _Stop:
            return None
        missed = [site for site in self._wanted if site not in self.values]
        if missed:
            raise ValueError(
                f"{', '.join(map(str, missed))} was never reached by the forward pass of {model.name}: "
                "the module exists but did not run (a switched-off branch or head); choose a site beside it."
            )
        return output

    def gradients(self, score: Tensor | None, sites: Sequence[Site]) -> dict[Site, Tensor]:
        if not isinstance(score, Tensor) or not score.requires_grad:
            raise ValueError(
                f"score gave {type(score).__name__} that does not depend on {', '.join(map(str, sites))}: "
                "return a tensor computed from the model's output, without detach() or item()."
            )
        # A site that the score does not depend on has gradient zero.
        at = [self.values[site] for site in sites]
        grads = torch.autograd.grad(score.sum(), at, allow_unused=True, materialize_grads=True)
        return dict(zip(sites, grads, strict=True))


def _leaf(value: Tensor) -> Tensor:
    """What starts the graph where it does not reach (parameters are frozen)."""
    return value.detach().clone().requires_grad_()


def _begun(value: Tensor) -> Tensor | None:
    """A value of which the graph is made, for the model to go on with."""
    return _leaf(value).clone() if value.is_floating_point() and not value.requires_grad else None


@contextlib.contextmanager
def left_as_found(model: Model, *, frozen: bool) -> Iterator[None]:
    """Eval mode (and no parameter asking for a gradient) inside the block; every flag back after it.

    Args:
        model: The model.
        frozen: Let no parameter ask for a gradient.
    """
    modules = list(getattr(model, "modules", model.module.modules)())
    modes = [(module, module.training) for module in modules]
    parameters = {id(p): p for module in modules for p in module.parameters(recurse=False)}.values()
    asking = [p for p in parameters if frozen and p.requires_grad]
    try:
        for module in modules:
            module.training = False
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in asking:
            parameter.requires_grad_(True)


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, dict):  # keeps the class: a Hugging Face output is a dict too
        named = {key: _detached(value) for key, value in output.items()}
        return named if type(output) is dict else type(output)(**named)
    if isinstance(output, tuple | list):
        parts = [_detached(part) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if is_dataclass(output) and not isinstance(output, type):
        return replace(output, **{f.name: _detached(getattr(output, f.name)) for f in fields(output) if f.init})
    return output
