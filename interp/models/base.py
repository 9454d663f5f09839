"""What models share: naming a site, hooking it, hashing the weights."""

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp.types import Place, Site

if TYPE_CHECKING:
    from interp.types import Model
else:
    # Checking the protocol while running would read each of its members, and reading a fingerprint hashes the weights.
    Model = Any

__all__ = ["Fingerprint", "Model", "hook", "hooks_of", "unknown_site"]


def unknown_site(name: str, names: Collection[str], model: str) -> ValueError:
    """The error for a site that a model does not have, with the names nearest to it."""
    near = difflib.get_close_matches(name, names, n=4, cutoff=0.5) or sorted(names)[:4]
    return ValueError(
        f"site is {name!r}, but {model} has no such place; the nearest are {', '.join(near)}. "
        "model.sites() lists all of them."
    )


def hook(place: Place, change: Callable[[Tensor], Tensor | None], site: Site) -> RemovableHandle:
    """Show the value at a place to `change` each time its module runs.

    Args:
        place: Where.
        change: Takes the value; what it returns replaces it, None leaves it alone.
        site: What messages call the place.
    """

    hooked = _Hooked(place, change, site)
    if place.io == "in":
        return place.module.register_forward_pre_hook(hooked.given, with_kwargs=True)
    return place.module.register_forward_hook(hooked.returned)


@dataclass(frozen=True)
class _Hooked:
    """What `hook` registers. Methods, not closures: the tests' shape checks would compile closures at each call."""

    place: Place
    change: Callable[[Tensor], Tensor | None]
    site: Site

    def returned(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        new = self._changed(_element(output, self.place.index, self.site))
        return None if new is None else _with_element(output, self.place.index, new)

    def given(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        index, named = self.place.index, dict(enumerate(args)) | kwargs
        keys = [key for key, value in named.items() if isinstance(value, Tensor)]
        if index >= len(keys):
            raise ValueError(
                f"site is {self.site}, but its module is given {len(keys)} tensors: read its output instead."
            )
        new = self._changed(named[keys[index]])
        if new is None:
            return None
        named[keys[index]] = new
        return tuple(named[i] for i in range(len(args))), {key: named[key] for key in kwargs}

    def _changed(self, native: Tensor) -> Tensor | None:
        read, write = self.place.read, self.place.write
        new = self.change(native if read is None else read(native))
        if new is None or read is None:
            return new
        if write is None:
            raise ValueError(
                f"{self.site} can be read and differentiated, but not edited: what the model computes from it is not "
                "its own."
            )
        return write(native, new)


def hooks_of(module: nn.Module) -> Iterator[Callable[..., Any]]:
    """Every hook, forward and backward, that a module carries."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks):
        yield from hooks.values()


def _element(output: Any, index: int, site: Site) -> Tensor:
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(parts, Tensor):
        parts = (parts,)
    if not isinstance(parts, tuple | list) or index >= len(parts) or not isinstance(parts[index], Tensor):
        found = type(output).__name__ if not isinstance(parts, tuple | list) else [type(p).__name__ for p in parts]
        raise ValueError(
            f"site is {site}, but element {index} of its module's output is no tensor (the output is {found}): "
            "choose another element with @out[index], or a module inside this one."
        )
    return parts[index]


def _with_element(output: Any, index: int, new: Tensor) -> Any:
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):  # the outputs of Hugging Face models: named, ordered, rebuilt by keyword
        named = {key: new if i == index else value for i, (key, value) in enumerate(output.items())}
        return named if type(output) is dict else type(output)(**named)
    parts = [new if i == index else part for i, part in enumerate(output)]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


class Fingerprint:
    """Hash of weights, made again only when a tensor was replaced or written to since the last call."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._value = ""

    def of(self, state: Mapping[str, Any]) -> str:
        """Sha256 over the sorted (name, dtype, shape, bytes) of a state dict."""
        tensors = {name: state[name] for name in sorted(state) if isinstance(state[name], Tensor)}
        key = tuple((name, t.data_ptr(), t._version) for name, t in tensors.items())
        if key != self._key:
            digest = hashlib.sha256()
            for name, tensor in tensors.items():
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
                # A flat copy on the CPU: scalars and strided tensors cannot be viewed as bytes.
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
            self._key, self._value = key, digest.hexdigest()
        return self._value
