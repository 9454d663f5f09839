"""Any `nn.Module`, read by plain hooks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from interp.models.base import Fingerprint, unknown_site
from interp.types import Geometry, Inputs, Place, Site

INPUT = "input"


class TorchModel:
    """A module whose sites are the dotted paths of its submodules, for example `layer4.2` or `encoder.rnn@out[1]`,
    the parts that were given names, and `input`, what the module itself is given first (pixels).

    Args:
        module: The model; it is not copied, moved or changed.
        name: What manifests call it; by default the class.
        forward: Runs the module on a batch. By default `module(x)` where the inputs hold the single key `x`, and
            `module(**tensors)` otherwise.
        geometry: How positions are laid out: one for all places that keep positions, or one a site. Maps need it
            to be flattened to rows, and `[b, d, t]` sequences need `channels="first"`; it is checked against every
            activation read. `interp.measuring.measure` finds that of maps.
        parts: Named places, by canonical site (`blocks.3.attn.q#12`); they may lie inside a module.
        aliases: Other names of those sites, TransformerLens' for example.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str | None = None,
        forward: Callable[[nn.Module, Inputs], Any] | None = None,
        geometry: Geometry | Mapping[str, Geometry] | None = None,
        parts: Mapping[str, Place] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.module = module
        self.name = name or type(module).__name__
        self._forward = forward or _call
        self._modules = {path: part for path, part in module.named_modules(remove_duplicate=False) if path}
        self._parts = {Site.parse(site): place for site, place in (parts or {}).items()}
        self._names = {str(replace(site, heads=None)): site for site in self._parts}
        self._names |= {alias: Site.parse(site) for alias, site in (aliases or {}).items()}
        self._weights = Fingerprint()
        declared = {} if geometry is None or isinstance(geometry, Geometry) else geometry
        self._geometries = {self.site(path): value for path, value in declared.items()}
        self._geometry = geometry if isinstance(geometry, Geometry) else None

    @property
    def fingerprint(self) -> str:
        """Hash of the weights as they are now."""
        return self._weights.of(self.module.state_dict())

    def site(self, name: str | Site) -> Site:
        """The site of a part's name or alias, or of a submodule's path.

        Raises:
            ValueError: If there is no such place, the nearest are named; or the part has other heads.
        """
        asked = Site.parse(name)
        known = self._names.get(str(replace(asked, heads=None)))
        if known is None and asked.module not in (*self._modules, INPUT):
            raise unknown_site(str(asked), self.sites(), self.name)
        if known is not None and asked.heads not in (None, known.heads):
            raise ValueError(f"site is {asked}, but {self.name} has {known} there: ask for that.")
        return known or asked

    def sites(self) -> list[str]:
        """Every name that `site` takes: named parts first, then their aliases, then the path of every submodule."""
        names = dict.fromkeys([*map(str, self._parts), *self._names, *self._modules, INPUT])
        return list(names)

    def place(self, site: Site) -> Place:
        """Where a site is found while the model runs."""
        site = self.site(site)
        if site.module == INPUT and INPUT not in self._modules:
            return Place(self.entered(), "in", site.index)
        return self._parts.get(site) or Place(self._modules[site.module], site.io, site.index)

    def entered(self) -> nn.Module:
        """The module that a forward pass gives its input to first."""
        return self.module

    def geometry(self, site: Site, inputs: Inputs | None = None) -> Geometry:
        """The geometry declared for a site; a sequence where none was, and the pixels themselves for `input`."""
        if site in self._geometries or site.module != INPUT or INPUT in self._modules:
            return self._geometries.get(site) or self._geometry or Geometry()
        return of_input(inputs)

    def forward(self, inputs: Inputs) -> Any:
        """Run the module, in whatever mode it is."""
        return self._forward(self.module, inputs)

    def modules(self) -> Iterator[nn.Module]:
        """Every module that a forward pass may run."""
        return self.module.modules()


def of_input(inputs: Inputs | None) -> Geometry:
    """The geometry of the first tensor of the inputs: that of `[b, c, *grid]`; a sequence where there is no grid."""
    shape = next((tuple(value.shape) for value in inputs.tensors.values()), ()) if inputs else ()
    if len(shape) < 4:
        return Geometry()
    grid = shape[2:]
    ones = (1,) * len(grid)
    return Geometry("grid", grid=grid, stride=ones, patch=ones, input_size=grid, channels="first")


def _call(module: nn.Module, inputs: Inputs) -> Any:
    weight = next(module.parameters(), None)
    tensors = {key: value if weight is None else value.to(weight.device) for key, value in inputs.tensors.items()}
    return module(tensors["x"]) if set(tensors) == {"x"} else module(**tensors)
