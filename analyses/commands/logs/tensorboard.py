"""TensorBoard: a scalar a metric and job, under RUN/tensorboard."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.commands.logs import scalars

if TYPE_CHECKING:
    from saes.records import Metrics


@contextlib.contextmanager
def observer(run: Path) -> "Iterator[Callable[[list[Metrics]], None]]":
    """An observer of training steps.

    Raises:
        ValueError: If tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--log tensorboard needs a package that is missing: pip install tensorboard.") from error
    writers: dict[str, SummaryWriter] = {}

    def observe(found: "list[Metrics]") -> None:
        for metrics in found:
            if metrics.job not in writers:
                # What a stopped run had logged after its last checkpoint is dropped, as in metrics.jsonl.
                writers[metrics.job] = SummaryWriter(str(run / "tensorboard" / metrics.job), purge_step=metrics.step)
            for name, value in scalars(metrics).items():
                writers[metrics.job].add_scalar(name, value, metrics.step)

    try:
        yield observe
    finally:
        for writer in writers.values():
            writer.close()
