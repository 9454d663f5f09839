"""Any `nn.Module`, read by plain hooks."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from interp.models.base import Fingerprint, unknown_site
from interp.types import Geometry, Inputs, Site


class TorchModel:
    """A module whose sites are the dotted paths of its submodules, for example `layer4.2` or `encoder.rnn@out[1]`.

    Args:
        module: The model; it is not copied, moved or changed.
        name: What manifests call it; by default the class.
        forward: Runs the module on a batch. By default `module(x)` where the inputs hold the single key `x`, and
            `module(**tensors)` otherwise.
        geometry: How positions are laid out: one for all places that keep positions, or one a site. Maps need it
            to be flattened to rows; it is checked against every activation read.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str | None = None,
        forward: Callable[[nn.Module, Inputs], Any] | None = None,
        geometry: Geometry | Mapping[str, Geometry] | None = None,
    ) -> None:
        self.module = module
        self.name = name or type(module).__name__
        self._forward = forward or _call
        self._places = {path: part for path, part in module.named_modules(remove_duplicate=False) if path}
        self._weights = Fingerprint()
        declared = {} if geometry is None or isinstance(geometry, Geometry) else geometry
        self._geometries = {self.site(path): value for path, value in declared.items()}
        self._geometry = geometry if isinstance(geometry, Geometry) else None

    @property
    def fingerprint(self) -> str:
        """Hash of the weights as they are now."""
        return self._weights.of(self.module.state_dict())

    def site(self, name: str | Site) -> Site:
        """The site of a submodule's path.

        Raises:
            ValueError: If the module has no such submodule; the nearest paths are named.
        """
        site = Site.parse(name)
        if site.module not in self._places:
            raise unknown_site(site.module, self.sites(), self.name)
        return site

    def sites(self) -> list[str]:
        """The path of every submodule."""
        return list(self._places)

    def locate(self, site: Site) -> nn.Module:
        """The submodule at a site."""
        return self._places[self.site(site).module]

    def geometry(self, site: Site) -> Geometry:
        """The geometry declared for a site; a sequence where none was."""
        return self._geometries.get(site) or self._geometry or Geometry()

    def forward(self, inputs: Inputs) -> Any:
        """Run the module, in whatever mode it is."""
        return self._forward(self.module, inputs)

    def modules(self) -> Iterator[nn.Module]:
        """Every module that a forward pass may run."""
        return self.module.modules()

    def observe(self, site: Site, values: Tensor) -> None:
        """Check the declared geometry against an activation; one vector an example fits any.

        Raises:
            ValueError: If they disagree.
        """
        geometry = self.geometry(site)
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


def _call(module: nn.Module, inputs: Inputs) -> Any:
    if set(inputs.tensors) == {"x"}:
        return module(inputs.tensors["x"])
    return module(**inputs.tensors)
