"""Where a training run's metrics go besides its metrics.jsonl: one backend a file, found by name."""

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.commands.nearness import meant

if TYPE_CHECKING:
    from saes.records import Metrics

    Observer = Callable[[list[Metrics]], None]


def names() -> list[str]:
    """The backends there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@contextlib.contextmanager
def opened(wanted: Sequence[str], run: Path) -> "Iterator[list[Observer]]":
    """Observers for a Trainer, closed when the block ends.

    Args:
        wanted: Names of backends.
        run: The run's folder.

    Raises:
        ValueError: If there is no such backend, or its package is not installed.
    """
    for name in wanted:
        if name not in names():
            raise ValueError(f"--log is {name!r}: {meant(name, names())}")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_module(name).observer(run)) for name in dict.fromkeys(wanted)]


def scalars(metrics: "Metrics") -> dict[str, int | float]:
    """The numbers of one step of one job, terms of the loss among them."""
    plain = {name: value for name, value in vars(metrics).items() if name not in ("job", "step", "terms")}
    return plain | {f"terms/{name}": value for name, value in metrics.terms.items()}


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
