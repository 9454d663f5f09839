"""Grids of a sweep as plain values: which methods, with which values of their arguments."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analyses.commands import jobs
from analyses.commands.jobs import JobSpec
from analyses.commands.plain import MisfitError, from_plain

if TYPE_CHECKING:
    from saes.settings import Setting

Plain = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """Every combination of the values given: a list where one value belongs is a choice.

    Args:
        method: File (`batch_topk`) or class (`BatchTopK`) of the method.
        lr: Peak learning rate; by the SAE's width where it is null.
        arguments: Keywords of the method, but for `d_in`, which comes from the store, and `seed`, which `seeds` gives.
        penalties: The class of each and its keywords; null for the method's own.
        target_l0: L0 that training brings about, for methods that no k fixes; null for what it becomes.
    """

    method: str
    lr: Any = None
    arguments: Plain = field(default_factory=dict)
    penalties: tuple[Plain, ...] | None = None
    target_l0: Any = None


def settings(grid: Grid, at: str) -> "list[Setting]":
    """The settings of one grid.

    Args:
        grid: The grid.
        at: Where it was given, for messages.

    Raises:
        ValueError: If a method, keyword or penalty is unknown, missing or of a wrong type.
    """
    from saes.settings import Setting

    try:
        method = jobs.method(grid.method)
    except ValueError as error:
        raise MisfitError(f"{at}.{error}") from error
    if "seed" in grid.arguments:
        raise MisfitError(f"{at}.arguments.seed is given, but every setting is trained once a seed: list it in seeds.")
    kinds = {name: kind for name, (kind, _) in jobs.keywords(method).items()}
    arguments = {
        name: choices(kinds.get(name, Any), value, f"{at}.arguments.{name}") for name, value in grid.arguments.items()
    }
    rates = choices(float | None, grid.lr, f"{at}.lr")
    targets = choices(float | None, grid.target_l0, f"{at}.target_l0")
    found = []
    for penalties, own, lr, target in itertools.product(_penalties(grid), _combined(arguments), rates, targets):
        spec = jobs.completed(JobSpec(grid.method, None, lr, own, penalties, target), at)
        known = {name: value for name, value in spec.arguments.items() if name != "seed"}
        found.append(Setting(method, known, spec.lr, jobs.penalties(spec), target))
    return found


def choices(kind: Any, value: Any, at: str) -> list[Any]:
    """The values that a plain value offers: itself where it fits, else those of the list that it is.

    Args:
        kind: The annotation of one value.
        value: What the file holds.
        at: Dotted key, for messages.

    Raises:
        MisfitError: If neither the value nor those in it fit.
    """
    try:
        return [from_plain(kind, value, at)]
    except MisfitError:
        if not isinstance(value, list) or not value:
            raise
    return [from_plain(kind, part, f"{at}[{i}]") for i, part in enumerate(value)]


def _penalties(grid: Grid) -> list[tuple[Plain, ...] | None]:
    """Every combination of penalties; a list in one of their keywords is a choice."""
    if grid.penalties is None:
        return [None]
    each = [_combined({k: v if isinstance(v, list) else [v] for k, v in p.items()}) for p in grid.penalties]
    return list(itertools.product(*each))


def _combined(values: Mapping[str, list[Any]]) -> list[Plain]:
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
