"""One thing that was looked at, how bad it is, and the way out."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int
from torch import Tensor

Severity = Literal["ok", "note", "warning"]
_SHOWN = 6


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: What.
        severity: `warning` where training suffers, `note` where it is good to know.
        value: What was measured.
        limit: The limit it passed, or else the first it would pass.
        says: What was seen.
        advice: What to do; empty where all is well.
    """

    name: str
    severity: Severity
    value: float
    limit: float
    says: str
    advice: str = ""


def above(
    name: str, value: float, *, says: str, advice: str, note: float | None = None, warning: float = float("inf")
) -> Finding:
    """A finding that is worse the larger its value."""
    if value > warning:
        return Finding(name, "warning", value, warning, says, advice)
    if note is not None and value > note:
        return Finding(name, "note", value, note, says, advice)
    return Finding(name, "ok", value, warning if note is None else note, says)


def below(name: str, value: float, *, says: str, advice: str, note: float, warning: float) -> Finding:
    """A finding that is worse the smaller its value."""
    if value < warning:
        return Finding(name, "warning", value, warning, says, advice)
    return Finding(name, "note" if value < note else "ok", value, note, says, advice if value < note else "")


def listed(numbers: Int[Tensor, " n"]) -> str:
    """The first of some numbers, in words."""
    shown = ", ".join(str(int(number)) for number in numbers[:_SHOWN])
    return shown + (", ..." if len(numbers) > _SHOWN else "")
