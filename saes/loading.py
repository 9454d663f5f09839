"""Saved SAEs, and the methods that a saved SAE may be of."""

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interp.types import Site
from saes import weights_file
from saes.base import SAE

if TYPE_CHECKING:
    from saes.baselines.base import Fitted

_FITTED = ("saes.baselines.", "saes.codebooks.")


def load(path: Path | str, *, classes: Sequence[type[SAE]] = ()) -> "SAE | Fitted":
    """Load a saved SAE, in eval mode, or a baseline or codebook.

    Args:
        path: The file that `SAE.save` wrote.
        classes: Methods of your own that the file may name, besides those of `saes`.

    Raises:
        ValueError: If the file is no saved SAE, or names anything but a method: it is checked before it is called.
    """
    tensors, about = weights_file.read(Path(path))
    if str(about.get("class")).startswith(_FITTED):
        from saes.baselines.base import load as fitted

        return fitted(path)
    method = _method(str(about.get("class")), classes, Path(path))
    try:
        sae = method(**about["arguments"]).to(tensors["b_dec"].dtype)
        sae.load_state_dict(tensors)
        sae.site = Site.parse(about["site"]) if about.get("site") else None
        sae.labels = {int(feature): label for feature, label in about.get("labels", {}).items()}
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit {about['class']} ({error}): it is damaged or from another version."
        ) from error
    sae.provenance = about.get("provenance", {})
    return sae.eval()


def methods() -> dict[str, type[SAE]]:
    """Every method of this package by class name: the SAE subclasses defined in its own files."""
    found = {}
    for name in _method_files():
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and issubclass(value, SAE) and value is not SAE and value.__module__ == name:
                found[value.__name__] = value
    return found


def _method_files() -> list[str]:
    """Modules of the package's top level, this one left out."""
    return [
        f"saes.{m.name}"
        for m in pkgutil.iter_modules(importlib.import_module("saes").__path__)
        if not m.ispkg and m.name != "base"
    ]


def _method(name: str, classes: Sequence[type[SAE]], path: Path) -> type[SAE]:
    for own in classes:
        if f"{own.__module__}.{own.__name__}" == name:
            return own
    known = {f"{method.__module__}.{method.__name__}": method for method in methods().values()}
    if name not in known:
        raise ValueError(
            f"{path} names the class {name!r}, which is no method of saes: known are {', '.join(sorted(known))}; "
            "a method of your own is loaded by classes=[YourClass]."
        )
    return known[name]
