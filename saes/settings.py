"""The settings of a sweep: one method with one choice of everything, trained once a seed."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interp.types import JSON
from saes import axes
from saes.base import SAE
from saes.penalties.base import Penalty
from saes.records import Job

_DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    """One point of a sweep.

    Args:
        method: Its class.
        arguments: Its keywords, but for `d_in` and `seed`.
        lr: Peak learning rate; None for the rule.
        penalties: Terms added to the loss; None for the method's own.
        target_l0: What L0 is brought to; None for what it becomes.
    """

    method: type[SAE]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    penalties: tuple[Penalty, ...] | None = None
    target_l0: float | None = None

    def job(self, d_in: int, seed: int, name: str) -> Job:
        """What is trained for one seed."""
        sae = self.method(d_in=d_in, seed=seed, **self.arguments)
        return Job(sae, name=name, lr=self.lr, penalties=self.penalties, target_l0=self.target_l0)

    @property
    def family(self) -> str:
        """Its method with the axes that it takes (`saes.axes`): what a frontier draws as one."""
        return " + ".join([self.method.__name__, *(axis for axis in axes.DEFAULTS if self.arguments.get(axis))])

    def choices(self) -> JSON:
        """Everything that another setting may choose otherwise, by name."""
        given = self.penalties or ()
        kinds = _DEFAULT if self.penalties is None else "+".join(type(p).__name__ for p in given) or "none"
        own = {f"{type(p).__name__}.{key}": value for p in given for key, value in vars(p).items()}
        lr = _DEFAULT if self.lr is None else self.lr
        target = {} if self.target_l0 is None else {"target_l0": self.target_l0}
        return {**self.arguments, "lr": lr, "penalties": kinds, **target, **own}

    def label(self, keys: Sequence[str]) -> str:
        """Some of its choices, those that are not the default, for people."""
        choices = self.choices()
        return ", ".join(f"{key}={choices[key]}" for key in keys if choices.get(key, _DEFAULT) != _DEFAULT)


def grid(
    method: type[SAE], *, lr: Any = None, penalties: Any = None, target_l0: Any = None, **arguments: Any
) -> list[Setting]:
    """Every combination of the values given: a list is a choice, anything else (a tuple, too) is one value.

    Args:
        method: An SAE's class.
        lr: Peak learning rate, or several.
        penalties: A tuple of penalties, or a list of such tuples.
        target_l0: What L0 is brought to, or several.
        arguments: The method's keywords, but for `d_in` and `seed`.

    Raises:
        ValueError: If a list is empty.
    """
    axes = {"lr": lr, "penalties": penalties, "target_l0": target_l0, **arguments}
    if empty := [name for name, values in axes.items() if values == []]:
        raise ValueError(f"{empty[0]} is an empty list, but a grid needs a value: give one, or leave it out.")
    values = [value if isinstance(value, list) else [value] for value in axes.values()]
    combined = [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*values)]
    return [
        Setting(method, {name: one[name] for name in arguments}, one["lr"], one["penalties"], one["target_l0"])
        for one in combined
    ]


def named(settings: Sequence[Setting]) -> dict[str, Setting]:
    """Settings by names of what differs among them, such as `topk-k8`; one that is there twice comes once."""
    varied = varying(settings)
    found = {}
    for i, setting in enumerate(settings):
        if setting not in settings[:i]:
            choices = setting.choices()
            parts = [f"{key}{_text(choices[key])}" for key in varied if choices.get(key, _DEFAULT) != _DEFAULT]
            found["-".join([setting.method.__name__.lower(), *parts])] = setting
    return found


def varying(settings: Sequence[Setting]) -> list[str]:
    """Names of the choices in which settings of one method differ, or those of several that are no default."""
    found: dict[str, None] = {}
    for method in [None, *dict.fromkeys(setting.method for setting in settings)]:
        own = [setting.choices() for setting in settings if method in (None, setting.method)]
        for key in dict.fromkeys(key for choices in own for key in choices):
            values = {json.dumps(choices.get(key, _DEFAULT), sort_keys=True) for choices in own}
            if len(values if method else values - {json.dumps(_DEFAULT)}) > 1:
                found[key] = None
    return list(found)


def _text(value: Any) -> str:
    """A value as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", str(value)).strip("_")
