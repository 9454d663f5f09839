"""Between the plain values of a YAML file and typed arguments, with errors that name the key."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from analyses.commands.nearness import meant

T = TypeVar("T")


class MisfitError(ValueError):
    """A value that does not fit its type; the reader adds the file's name."""


def to_plain(value: Any) -> Any:
    """Mappings, lists and scalars of dataclasses, tuples and paths; `from_plain` reads them back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: Any, value: Any, at: str = "") -> Any:
    """Read a plain value as a type.

    Args:
        kind: The annotation: a scalar, Path, Literal, union, tuple, list, dict or dataclass.
        value: What the file holds.
        at: Dotted key of the value, for messages.

    Raises:
        MisfitError: If the value does not fit; with 'did you mean' for keys and choices.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return from_plain(inner[0], value, at)
    if origin in (Union, types.UnionType):
        return _one_of(kind, inner, value, at)
    if origin is Literal:
        if value not in inner:
            raise MisfitError(f"{at} is {value!r}: {meant(str(value), [str(choice) for choice in inner])}")
        return value
    if origin in (tuple, list, Sequence):
        return _several(kind, origin, inner, value, at)
    if origin is dict:
        _check(isinstance(value, dict), kind, value, at)
        return {key: from_plain(inner[1], part, f"{at}.{key}") for key, part in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return record_from_plain(kind, value, at)
    return _scalar(kind, value, at)


def record_from_plain(kind: type[T], value: Any, at: str = "", *, missing: Any = dataclasses.MISSING) -> T:
    """Read a mapping as a dataclass.

    Args:
        kind: The dataclass.
        value: The mapping; keys left out take their defaults.
        at: Dotted key of the mapping, for messages.
        missing: Stands in for keys that have no default; by default they are refused.

    Raises:
        MisfitError: If a key is unknown or missing, or a value does not fit.
    """
    if not isinstance(value, dict):
        raise MisfitError(
            f"{at or 'the file'} is {_shown(value)}, but it holds keys and values: write `key: value` lines."
        )
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    prefix = f"{at}." if at else ""
    for key in value:
        if key not in fields:
            raise MisfitError(f"{prefix}{key} is no key it takes: {meant(str(key), list(fields))}")
    read = {key: from_plain(hints[key], part, prefix + key) for key, part in value.items()}
    for name, field in fields.items():
        if name not in read and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if missing is dataclasses.MISSING:
                raise MisfitError(f"{prefix}{name} is missing: it has no default, so give it.")
            read[name] = missing
    if any(value is missing for value in read.values()):
        return unfinished(kind, read)
    try:
        return kind(**read)
    except ValueError as error:
        raise MisfitError(f"{at or 'arguments'}: {error}") from error


def unfinished(kind: type[T], values: Mapping[str, Any]) -> T:
    """A record that lacks values: made without its constructor, whose checks are for whole ones."""
    record = object.__new__(kind)
    defaults = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}  # type: ignore[arg-type]
    made = {
        f.name: f.default_factory()
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.default_factory is not dataclasses.MISSING
    }
    for name, value in (defaults | made | dict(values)).items():
        object.__setattr__(record, name, value)
    return record


def kind_name(kind: Any) -> str:
    """The annotation in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return kind_name(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(kind_name(part) for part in inner)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in inner)
    if origin is None:
        return {type(None): "null", str: "text", Path: "a path", int: "a whole number", float: "a number"}.get(
            kind, {bool: "true or false"}.get(kind, getattr(kind, "__name__", str(kind)))
        )
    return "a mapping" if origin is dict else f"a list of {kind_name(inner[0])}" if inner else "a list"


def _one_of(kind: Any, inner: tuple[Any, ...], value: Any, at: str) -> Any:
    if value is None:
        _check(type(None) in inner, kind, value, at)
        return None
    parts = [part for part in inner if part is not type(None)]
    refusals = []
    for part in parts:
        try:
            return from_plain(part, value, at)
        except MisfitError as error:
            refusals.append(error)
    if len(parts) == 1 and not _is_scalar(parts[0]):
        raise refusals[0]  # It names the key inside.
    raise _misfit(kind, value, at)


def _several(kind: Any, origin: Any, inner: tuple[Any, ...], value: Any, at: str) -> Any:
    _check(isinstance(value, list), kind, value, at)
    if origin is tuple and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise MisfitError(f"{at} holds {len(value)} values, but it takes {len(inner)}: give that many.")
        return tuple(from_plain(part, v, f"{at}[{i}]") for i, (part, v) in enumerate(zip(inner, value, strict=True)))
    read = [from_plain(inner[0], part, f"{at}[{i}]") for i, part in enumerate(value)]
    return read if origin is list else tuple(read)


def _scalar(kind: Any, value: Any, at: str) -> Any:
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    _check(value is None if kind in (None, type(None)) else type(value) is kind, kind, value, at)
    return value


def _is_scalar(kind: Any) -> bool:
    return typing.get_origin(kind) is None and not dataclasses.is_dataclass(kind)


def _check(fits: bool, kind: Any, value: Any, at: str) -> None:
    if not fits:
        raise _misfit(kind, value, at)


def _misfit(kind: Any, value: Any, at: str) -> MisfitError:
    return MisfitError(f"{at} is {_shown(value)}, but it takes {kind_name(kind)}: write it so.")


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value!r} ({type(value).__name__})"
