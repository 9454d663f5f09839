"""Training jobs as plain values: which method, with which arguments and penalties."""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analyses.commands.nearness import meant
from analyses.commands.plain import MisfitError, from_plain, record_from_plain

if TYPE_CHECKING:
    from saes.base import SAE
    from saes.penalties.base import Penalty
    from saes.records import Job
    from saes.resampling import Resampling

Plain = dict[str, Any]


@dataclass(frozen=True)
class JobSpec:
    """One SAE to train.

    Args:
        method: File (`batch_topk`) or class (`BatchTopK`) of the method.
        name: Names the SAE's file; the class in small letters by default.
        lr: Peak learning rate; by the SAE's width where it is null.
        arguments: Keywords of the method, but for `d_in`, which comes from the store.
        penalties: The class of each and its keywords; null for the method's own.
        target_l0: L0 that training brings about, for methods that no k fixes; null for what it becomes.
        resampling: Keywords of `saes.resampling.Resampling`; null for none.
    """

    method: str
    name: str | None = None
    lr: float | None = None
    arguments: Plain = field(default_factory=dict)
    penalties: tuple[Plain, ...] | None = None
    target_l0: float | None = None
    resampling: Plain | None = None


def method_names() -> list[str]:
    """What a job's method may be called: each class, and each file that defines a single one."""
    return sorted(_methods())


def method(name: str) -> "type[SAE]":
    """The method of a file's or class' name, in large or small letters.

    Raises:
        ValueError: If there is none, with 'did you mean'.
    """
    known = {other.lower(): found for other, found in _methods().items()}
    if name.lower() not in known:
        raise ValueError(f"method is {name!r}: {meant(name, method_names())}")
    return known[name.lower()]


def keywords(of: "type[SAE]") -> dict[str, tuple[Any, Any]]:
    """Type and default of each argument of a method but `d_in`; the default is `MISSING` where one must be given."""
    from saes import axes

    hints = typing.get_type_hints(of.__init__) | typing.get_type_hints(axes.Axes)
    own = {
        name: dataclasses.MISSING if parameter.default is parameter.empty else parameter.default
        for name, parameter in inspect.signature(of).parameters.items()
        if name not in ("d_in", "axes")
    }
    shared = {name: default for name, default in axes.DEFAULTS.items() if name not in of.refuses}
    return {name: (hints[name], default) for name, default in (own | shared).items()}


def completed(spec: JobSpec, at: str) -> JobSpec:
    """The same job with its method's own defaults written out and its class named.

    Args:
        spec: The job.
        at: Where it was given, for messages.

    Raises:
        ValueError: If a method, keyword or penalty is unknown, missing or of a wrong type.
    """
    from saes.axes import DEFAULTS

    try:
        chosen = method(spec.method)
    except ValueError as error:
        raise MisfitError(f"{at}.{error}") from error
    known = keywords(chosen)
    if "d_in" in spec.arguments:
        raise MisfitError(f"{at}.arguments.d_in is given, but the store knows its width: leave it out.")
    for name in spec.arguments:
        if name not in known:
            raise MisfitError(f"{at}.arguments.{name} is no argument of {chosen.__name__}: {meant(name, known)}")
    read = {}
    for name, (kind, default) in known.items():
        if name in spec.arguments:
            read[name] = from_plain(kind, spec.arguments[name], f"{at}.arguments.{name}")
        elif default is dataclasses.MISSING:
            raise MisfitError(
                f"{at}.arguments.{name} is missing, but {chosen.__name__} has no default for it: give it."
            )
        else:
            read[name] = default
    for number, penalty in enumerate(spec.penalties or ()):
        _penalty(penalty, f"{at}.penalties[{number}]")
    if spec.resampling is not None:
        resampling(spec.resampling, f"{at}.resampling")
    plain = {name: value for name, value in read.items() if name not in DEFAULTS or value != DEFAULTS[name]}  # type: ignore[literal-required]
    return dataclasses.replace(spec, method=chosen.__name__, arguments=plain)


def job(spec: JobSpec, d_in: int) -> "Job":
    """The job itself, its SAE built for activations of a width."""
    from saes.records import Job

    sae = method(spec.method)(d_in=d_in, **spec.arguments)
    again = None if spec.resampling is None else resampling(spec.resampling, "resampling")
    return Job(sae, name=spec.name, lr=spec.lr, penalties=penalties(spec), target_l0=spec.target_l0, resampling=again)


def resampling(plain: Plain, at: str) -> "Resampling":
    """Resampling by its keywords.

    Raises:
        ValueError: If a keyword is unknown or of a wrong type.
    """
    from saes.resampling import Resampling

    found: Resampling = record_from_plain(Resampling, plain, at)
    return found


def penalties(spec: JobSpec) -> "tuple[Penalty, ...] | None":
    """The penalties themselves; None for the method's own."""
    return None if spec.penalties is None else tuple(_penalty(p, "penalties") for p in spec.penalties)


def from_record(plain: Plain) -> Plain:
    """A job as a run records it in its run.yaml, turned into one that can be asked for; any other stays as it is."""
    if not isinstance(plain, dict) or "class" not in plain:
        return plain
    if plain.get("signal", "reconstruction") != "reconstruction":
        raise ValueError(
            f"job {plain.get('name')!r} was trained on {plain['signal']!r}, but the command knows reconstruction only: "
            "train it from Python."
        )
    asked = {key: value for key, value in plain.items() if key not in ("class", "signal", "arguments")}
    arguments = {key: value for key, value in plain.get("arguments", {}).items() if key != "d_in"}
    return {"method": str(plain["class"]).rpartition(".")[2], **asked, "arguments": arguments}


def _methods() -> "Mapping[str, type[SAE]]":
    from saes.loading import methods

    by_class = methods()
    files = [found.__module__.rpartition(".")[2] for found in by_class.values()]
    by_file = {file: found for file, found in zip(files, by_class.values(), strict=True) if files.count(file) == 1}
    return by_file | by_class


def _penalty(plain: Plain, at: str) -> Any:
    known = {found.__name__: found for found in _penalties()}
    name = plain.get("class")
    if name not in known:
        given = "class is missing" if name is None else f"class is {name!r}"
        raise MisfitError(f"{at}.{given}: {meant(str(name), known)}")
    return record_from_plain(known[name], {key: value for key, value in plain.items() if key != "class"}, at)


def _penalties() -> Iterable[type]:
    folder = importlib.import_module("saes.penalties")
    for module in pkgutil.iter_modules(folder.__path__, "saes.penalties."):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, type) and found.__module__ == module.name and _is_penalty(found):
                yield found


def _is_penalty(found: type) -> bool:
    return dataclasses.is_dataclass(found) and "__call__" in vars(found)
