"""Weights & Biases: one run, a line a metric and job; offline with WANDB_MODE=offline."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.commands.logs import scalars

if TYPE_CHECKING:
    from saes.records import Metrics


@contextlib.contextmanager
def observer(run: Path) -> "Iterator[Callable[[list[Metrics]], None]]":
    """An observer of training steps.

    Raises:
        ValueError: If wandb is not installed, or does not let a run start.
    """
    try:
        import wandb
    except ImportError as error:
        raise ValueError("--log wandb needs a package that is missing: pip install wandb.") from error
    logged: Any = None

    def observe(found: "list[Metrics]") -> None:
        nonlocal logged
        if logged is None:  # Only now: a run that is refused logs nothing, and finds its folder empty.
            logged = _started(wandb, run)
        for metrics in found:
            logged.log({f"{metrics.job}/{name}": value for name, value in scalars(metrics).items()}, step=metrics.step)

    try:
        yield observe
    finally:
        if logged is not None:
            logged.finish()


def _started(wandb: Any, run: Path) -> Any:
    try:
        return wandb.init(project="unweave", name=run.name, dir=str(run))
    except wandb.Error as error:
        raise ValueError(
            f"--log wandb cannot start ({error}): set WANDB_MODE=offline, or mend that, and go on with --resume."
        ) from error
