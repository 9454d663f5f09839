"""The methods as a table, made from the code: `python -m saes.catalogue` prints what README shows."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Sequence

from saes.axes import parametrizations
from saes.base import SAE
from saes.loading import methods


def table() -> str:
    """Markdown tables of selections, of penalties, of signals, and of what a decoder may be made of."""
    selections = [
        (f"`saes.{_file(kind)}.{name}`", _summary(kind), _fixed(kind), _defaults(kind), _paper(kind))
        for name, kind in sorted(methods().items())
    ]
    found = [_lines(("Selection", "Keeps", "L0", "Default penalties", "Paper"), selections)]
    folders = (("Penalty", "saes.penalties"), ("Signal", "saes.signals"), ("Decoder", "saes.parametrizations"))
    for title, folder in folders:
        rows = [(f"`{folder}.{_file(kind)}.{kind.__name__}`", _summary(kind), _paper(kind)) for kind in _kinds(folder)]
        found.append(_lines((title, "What it does", "Paper"), rows))
    return "\n\n".join(found)


def _kinds(folder: str) -> list[type]:
    if folder == "saes.parametrizations":
        return [kind for _, kind in sorted(parametrizations().items())]
    found = []
    for info in pkgutil.iter_modules(importlib.import_module(folder).__path__):
        module = importlib.import_module(f"{folder}.{info.name}")
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        found += [v for v in own if isinstance(v, type) and "__call__" in vars(v) and info.name != "base"]
    return sorted(found, key=lambda kind: kind.__name__)


def _file(kind: type) -> str:
    return kind.__module__.rpartition(".")[2]


def _summary(kind: type) -> str:
    """The first sentence of its docstring."""
    text = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
    return text.replace("|", r"\|")


def _paper(kind: type) -> str:
    """Authors, year and address, from the first line of its file."""
    first = (inspect.getdoc(inspect.getmodule(kind)) or "").splitlines()[0]
    name, address = re.findall(r"\((?:[^()]*?: )?([^()]*?\d{4})[^()]*?(https?://[^\s)]+)", first)[0]
    return f"[{name}]({address})"


def _fixed(kind: type[SAE]) -> str:
    """What decides how many latents fire."""
    parameters = inspect.signature(kind).parameters
    pressed = any(getattr(penalty, "sparsity", False) for penalty in kind(d_in=6, d_sae=64).default_penalties())
    own = [f"`{name}`" for name in ("k", "mass") if name in parameters]
    return " or ".join([*own, *(["`target_l0`"] if pressed or kind.press is not SAE.press else [])])


def _defaults(kind: type[SAE]) -> str:
    return ", ".join(type(penalty).__name__ for penalty in kind(d_in=6, d_sae=64).default_penalties()) or "none"


def _lines(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    ruled = [head, tuple("-" * 3 for _ in head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


if __name__ == "__main__":
    print(table())
