"""The one training loop: several SAEs on one stream of activations, exact across kills."""

import contextlib
import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Literal

import torch

from interp.progress import Progress
from interp.types import Activations, ActivationStore
from saes import checkpoints, forecasts, grouping, normalising, stepping
from saes.base import SAE
from saes.engine import graphs, optimizing
from saes.engine.kernels import availability
from saes.engine.memory import kept_memory
from saes.prefetching import prefetched
from saes.records import Job, Metrics, TrainConfig
from saes.runs import Run
from saes.states import TrainState
from saes.stepping import Moment

__all__ = ["Job", "Metrics", "TrainConfig", "TrainState", "Trainer", "train"]


class Trainer:
    """Trains every job on the same batches.

    Args:
        jobs: The SAEs and how to train each.
        config: What they share.
        store: The activations.
        run: Folder for metrics, checkpoints and results; None keeps nothing on disk.
        resume: Go on from the run's last checkpoint; equal to the bit to a run never stopped.
        overwrite: Replace a run that is there.
        exact: Refuse to resume under another thread count or device, which would change the last bits.
        progress: Show a progress bar.
        observers: Called with each logged step's metrics, to send them elsewhere.
        on_failure: What is done about a job of which several steps in a row had no finite loss: `stop` the run, or
            `drop` the job and train the others as if it had never been there.

    Raises:
        ValueError: If widths differ from the store's, two jobs share a name, kernels or graphs are asked for where they
            cannot run, or the run's folder is in use.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        config: TrainConfig,
        store: ActivationStore,
        *,
        run: Path | str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        exact: bool = True,
        progress: bool = True,
        observers: Sequence[Callable[[list[Metrics]], None]] = (),
        on_failure: Literal["stop", "drop"] = "stop",
    ) -> None:
        self.observers, self.on_failure = observers, on_failure
        self.jobs, self.config, self.store, self.progress = list(jobs), config, store, progress
        _check(self.jobs, store, config)
        goes_on = run is not None and resume and not overwrite and checkpoints.latest(Path(run)) is not None
        if not goes_on:  # Else the checkpoint holds it, and a stream would run its model in vain.
            self.normaliser = normalising.estimate(store, config.normalise, seed=config.seed)
        self.device = torch.device(config.device)
        for job in self.jobs:
            job.sae.to(self.device, torch.float32).train()
        self.groups = grouping.groups(self.jobs, config, self.device)
        self.states = [TrainState.start(job.sae) for job in self.jobs]
        self.optimizers = [optimizing.Adam(job.sae, config.betas) for job in self.jobs]
        self.graphs = graphs.Graphs()
        self.steps = 0
        self.run_folder = None
        if run is not None:
            self.run_folder = Run.open(Path(run), self, resume=resume, overwrite=overwrite, exact=exact)
        if self.steps == 0:  # Nothing was resumed: only now, so that a refused folder leaves the SAEs as they were.
            forecasts.warn(self.jobs, config, store, self.normaliser)
            for job in self.jobs:
                self.normaliser.enter(job.sae)

    def run(self) -> list[SAE]:
        """Train to the end and return the SAEs that were not dropped, in the model's units, in eval mode.

        Raises:
            FloatingPointError: If several steps in a row had no finite loss, unless such jobs are dropped.
            OSError: If the disk refuses; the run's last checkpoint is untouched.
        """
        try:
            self._train()
            trained = self.export()
            if self.run_folder is not None:
                self.run_folder.finish(self, trained)
        finally:
            if self.run_folder is not None:
                self.run_folder.close()
        return [sae for _, sae in trained]

    def _train(self) -> None:
        folder, config = self.run_folder, self.config
        bar = Progress("training", total=config.steps, unit="step", shown=self.progress)
        # Closed also on an error, whose traceback would keep a stream's thread at work.
        with kept_memory(), bar, contextlib.closing(self._batches()) as batches:
            bar.update(self.steps)
            for batch in batches:
                if len(self.failures) == len(self.jobs):
                    break
                log = (self.steps + 1) % config.log_every == 0 or self.steps + 1 == config.steps
                metrics = self.step(batch, log=log)
                bar.update(1)
                for observer in self.observers if metrics else ():
                    observer(metrics)
                if folder is not None:
                    folder.record(metrics)
                    due = config.checkpoint_every and self.steps % config.checkpoint_every == 0
                    if due and self.steps < config.steps:
                        folder.checkpoint(self)

    def _batches(self) -> Generator[Activations, None, None]:
        stream = self.store.batches(self.config.batch_size, seed=self.config.seed, start_step=self.steps)
        return prefetched(stream, self.config.steps - self.steps, self.device)

    def step(self, activations: Activations, *, log: bool = True) -> list[Metrics]:
        """Train every job on one batch.

        Args:
            activations: Rows in the model's units.
            log: Whether to compute metrics, which wait for the device.

        Returns:
            One record a job that was not dropped; none where `log` is False.

        Raises:
            FloatingPointError: At a step that is logged, if several in a row had no finite loss, unless such jobs are
                dropped.
        """
        batch = self.normaliser(activations.to(self.device, torch.float32))
        self.steps += 1
        moment = Moment(self.config, self.steps, self.normaliser.out)
        found: dict[int, Metrics | None] = {}
        with availability.switched(self.config.kernels):
            for stack, group in self.groups:
                members = [i for i in group if stack is not None or not self.states[i].failure]
                trained = [(self.jobs[i], self.states[i], self.optimizers[i]) for i in members]
                if self.config.graphs:
                    taken = self.graphs.take(stack, trained, batch, moment, log=log)
                elif stack is None:
                    taken = [stepping.take(*one, batch, moment, log=log) for one in trained]
                else:
                    taken = stepping.take_stacked(stack, trained, batch, moment, log=log)
                found |= zip(members, taken, strict=True)
        if log:
            self._check_losses()
        return [m for i, m in sorted(found.items()) if m is not None and not self.states[i].failure]

    def _check_losses(self) -> None:
        for job, state in zip(self.jobs, self.states, strict=True):
            try:
                state.check(job.name or "", self.config.peak_lr(job), self.config.max_skipped)
            except FloatingPointError as error:
                if self.on_failure == "stop":
                    raise
                state.failure = state.failure or str(error).partition(";")[0]

    @property
    def failures(self) -> dict[str, str]:
        """Why jobs were dropped, by name."""
        states = zip(self.jobs, self.states, strict=True)
        return {job.name or "": state.failure for job, state in states if state.failure}

    def export(self) -> list[tuple[str, SAE]]:
        """Copies of the SAEs that were not dropped, in the model's units, in eval mode, knowing where they are from."""
        found = []
        for job, state in zip(self.jobs, self.states, strict=True):
            if state.failure:
                continue
            sae = _copy(job.sae)
            self.normaliser.leave(sae)
            sae.site = self.store.site
            training = {**vars(self.config), **self.config.recorded(job)}
            about = {
                **self.store.provenance,
                "store": self.store.fingerprint,
                "training": {**training, "tokens": self.steps * self.config.batch_size},
                "skipped": int(state.skipped),
            }
            sae.provenance = json.loads(json.dumps(about))  # As it will be read back: lists, no tuples.
            found.append((job.name or "", sae.eval()))
        return found


def train(
    jobs: Job | SAE | Sequence[Job | SAE], store: ActivationStore, config: TrainConfig | None = None, **run: object
) -> list[SAE]:
    """Train SAEs on a store: the short form of `Trainer(...).run()`.

    Args:
        jobs: One or several SAEs or jobs.
        store: The activations.
        config: What the jobs share; by default one pass over the store.
        run: Arguments of `Trainer`: `run`, `resume`, `overwrite`, `exact`, `progress`.

    Returns:
        The SAEs in the model's units, in eval mode, in order.
    """
    listed = [jobs] if isinstance(jobs, Job | SAE) else list(jobs)
    made = [job if isinstance(job, Job) else Job(job) for job in listed]
    return Trainer(made, config or TrainConfig(tokens=len(store)), store, **run).run()  # type: ignore[arg-type]


def _check(jobs: Sequence[Job], store: ActivationStore, config: TrainConfig) -> None:
    names = [job.name for job in jobs]
    if not jobs or len(set(names)) < len(names):
        raise ValueError(
            f"jobs are named {names}, but a run needs one or more jobs of different names: give each a name=."
        )
    for job in jobs:
        if job.sae.d_in != store.d_in:
            raise ValueError(
                f"job {job.name!r} takes activations of width {job.sae.d_in}, but {store.site} has {store.d_in}: "
                f"build it with d_in={store.d_in}."
            )
        d_out, given = getattr(store, "d_out", None), job.sae.axes["d_out"]
        if d_out != given:
            targets = "no targets" if d_out is None else f"targets of width {d_out}"
            raise ValueError(
                f"job {job.name!r} has d_out {given}, but {store.site} has {targets}: build it with d_out={d_out}, "
                "or train on a store that fits (interp.paired gives targets)."
            )
    if config.kernels:
        here = torch.empty(0, device=config.device if torch.cuda.is_available() else "cpu")
        if not availability.available(here):
            raise ValueError(
                f"kernels is True, but they need an NVIDIA GPU and Triton, and device is {config.device!r}: leave "
                "kernels out, or give device='cuda' on a machine that has both (pip install triton)."
            )
    if config.graphs and not graphs.available(torch.device(config.device)):
        raise ValueError(
            f"graphs is True, but they need an NVIDIA GPU, and device is {config.device!r}: leave graphs out, or give "
            "device='cuda' on a machine that has one."
        )


def _copy(sae: SAE) -> SAE:
    copy = type(sae)(**sae.arguments).to(sae.b_dec.device, sae.b_dec.dtype)
    copy.load_state_dict(sae.state_dict())
    copy.labels = dict(sae.labels)
    return copy
