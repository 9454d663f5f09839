"""The axes of a method besides its selection: what it predicts, its prefixes, and how its decoder is made."""

import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor

if TYPE_CHECKING:
    from saes.base import SAE
    from saes.parametrizations.base import Parametrization


class Axes(TypedDict, total=False):
    """Keywords that every method takes, unless it says why it refuses one.

    Args:
        prefixes: Numbers of latents whose first ones must reconstruct on their own, ascending to `d_sae` (Matryoshka:
            Bussmann et al. 2025, https://arxiv.org/abs/2503.17547); None for all at once.
        d_out: Width of the targets of a transcoder (Dunefsky et al. 2024, https://arxiv.org/abs/2406.11944), trained
            on a store of pairs; None for an autoencoder, whose target is its input.
        skip: Whether a linear map of the input is added to a transcoder's output (Paulo et al. 2025,
            https://arxiv.org/abs/2501.18823).
        parametrization: How the decoder is made, `{"class": name, ...its arguments}` of `saes.parametrizations`; None
            for free rows of norm 1.
    """

    prefixes: list[int] | None
    d_out: int | None
    skip: bool
    parametrization: dict[str, Any] | None


DEFAULTS: Axes = {"prefixes": None, "d_out": None, "skip": False, "parametrization": None}


def taken(own: dict[str, Any], d_sae: int, method: "type[SAE]") -> Axes:
    """Take the axes out of a constructor's keywords; what is left are the method's own.

    Args:
        own: The keywords.
        d_sae: Number of latents.
        method: Whose constructor.

    Raises:
        TypeError: If a keyword is neither.
        ValueError: If a value is out of its range, or the method refuses it.
    """
    made = [vars(parent)["__init__"] for parent in method.__mro__ if "__init__" in vars(parent)]
    known = {name for init in made for name in inspect.signature(init).parameters}
    if unknown := set(own) - known - set(DEFAULTS):
        raise TypeError(f"{method.__name__} takes no argument {', '.join(sorted(unknown))}.")
    found: Axes = {name: own.pop(name, default) for name, default in DEFAULTS.items()}  # type: ignore[assignment]
    found["prefixes"] = _prefixes(found["prefixes"], d_sae)
    d_out = found["d_out"]
    if d_out is not None and (not isinstance(d_out, int) or d_out < 1):
        raise ValueError(
            f"d_out is {d_out!r}, but a width is a whole number of at least 1: give the target site's, or None."
        )
    if found["skip"] and d_out is None:
        raise ValueError(
            "skip is True, but an autoencoder that sees its input again has nothing to learn: give d_out as well, "
            "for a transcoder, or leave skip out."
        )
    for name, why in method.refuses.items():
        if found[name] != DEFAULTS[name]:  # type: ignore[literal-required]
            raise ValueError(f"{name} is {found[name]!r}, but {method.__name__} {why}: leave {name} out.")  # type: ignore[literal-required]
    return found


def _prefixes(prefixes: list[int] | None, d_sae: int) -> list[int] | None:
    if prefixes is None:
        return None
    found = list(prefixes)
    if not found or found[0] < 1 or found[-1] != d_sae or any(a >= b for a, b in itertools.pairwise(found)):
        raise ValueError(
            f"prefixes is {found}, but prefixes ascend from at least 1 to d_sae = {d_sae}: for four that double, "
            f"give {[d_sae // 8, d_sae // 4, d_sae // 2, d_sae]}."
        )
    return found


def parametrizations() -> "dict[str, type[Parametrization]]":
    """Every way to make a decoder that a file of `saes.parametrizations` defines, by class name."""
    from saes.parametrizations.base import Parametrization

    found = {}
    for info in pkgutil.iter_modules(importlib.import_module("saes.parametrizations").__path__):
        module = importlib.import_module(f"saes.parametrizations.{info.name}")
        for value in vars(module).values():
            own = isinstance(value, type) and issubclass(value, Parametrization) and value is not Parametrization
            if own and value.__module__ == module.__name__:
                found[value.__name__] = value
    return found


def parametrized(about: Mapping[str, Any], directions: Tensor, seed: int) -> "Parametrization":
    """The parametrization that a constructor's argument names.

    Args:
        about: Its class and its arguments.
        directions: Rows that a free decoder would start from.
        seed: Names what it draws.

    Raises:
        ValueError: If there is no such class, or its arguments do not fit.
    """
    known = parametrizations()
    given = dict(about)
    name = given.pop("class", None)
    if name not in known:
        raise ValueError(
            f"parametrization has class {name!r}, but known are {', '.join(sorted(known))}: "
            f"give {{'class': {min(known)!r}}}, or None for free rows."
        )
    takes = [p for p in inspect.signature(known[name]).parameters if p not in ("directions", "seed")]
    if wrong := set(given) - set(takes):
        raise ValueError(
            f"parametrization has {', '.join(sorted(wrong))}, but {name} takes {', '.join(takes) or 'no arguments'}: "
            "leave the others out."
        )
    return known[name](directions=directions, seed=seed, **given)
