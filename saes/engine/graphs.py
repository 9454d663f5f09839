"""CUDA graphs of training steps: a small SAE waits for launches, and a graph launches a step's kernels all at once.

What a graph replays is what was launched while it was captured: the same kernels, at the same addresses, with the same
numbers from the host. So whatever moves is a tensor that stays where it is: weights, averages and counters are written
in place, the batch is copied to where the graph reads it, the learning rate is one of them. Gradients and all that a
step makes live in the graph's own memory. No GPU has run this yet; tests record and replay the operations of a step.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from interp.types import Activations, Latents
from saes import states, stepping
from saes.base import SAE
from saes.engine.optimizing import Adam
from saes.engine.stacking import Stack
from saes.penalties.aux_k import AuxK
from saes.penalties.base import reconstruction
from saes.records import Job, Metrics
from saes.states import TrainState
from saes.stepping import Moment

Trained = Sequence[tuple[Job, TrainState, Adam]]


def available(device: torch.device) -> bool:
    """Whether a device has graphs."""
    return device.type == "cuda" and torch.cuda.is_available()


def capture(work: Callable[[], object]) -> Callable[[], None]:
    """Record what `work` launches, without running it; what is returned runs it."""
    graph = torch.cuda.CUDAGraph()
    # A store's thread may use the device meanwhile, on a stream of its own.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def aside(work: Callable[[], Any]) -> Any:
    """Run `work` on another stream than the usual, as CUDA asks of what is captured next."""
    stream, present = _side(), torch.cuda.current_stream()
    stream.wait_stream(present)
    with torch.cuda.stream(stream):
        found = work()
    present.wait_stream(stream)
    return found


@functools.cache
def _side() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # One: what is freed on a stream is kept for that stream.


class Graphs:
    """The steps of a run's jobs, each job's or stack's own graph where it can have one."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph] = {}

    def take(
        self, stack: Stack | None, trained: Trained, batch: Activations, moment: Moment, *, log: bool
    ) -> list[Metrics | None]:
        """What `stepping.take` does for each job, or `stepping.take_stacked` for all."""
        units = [trained] if stack is not None else [[one] for one in trained]
        found: list[Metrics | None] = []
        for unit in units:
            name = unit[0][0].name or ""
            if name not in self._graphs:
                self._graphs[name] = Graph(stack, unit, batch)
            found += self._graphs[name].take(batch, moment, log=log)
        return found


class Graph:
    """The steps of one job, or of a stack's jobs.

    Eager are steps that are logged, dense, of another shape, and the first one after a review that changed the dead
    features or the engine, for which the graph is dropped.

    Args:
        stack: The stack; None for one job.
        trained: Its jobs with what moves.
        batch: A batch like those to come.
    """

    def __init__(self, stack: Stack | None, trained: Trained, batch: Activations) -> None:
        self.stack, self.trained = stack, trained
        self.fixed = all(is_fixed(job, batch) for job, _, _ in trained)
        parts: dict[str, Any] = {n: None if p is None else torch.empty_like(p) for n, p in vars(batch).items()}
        self.batch = Activations(**parts)
        self._replay: Callable[[], None] | None = None
        self._warm = False
        self._dead = [state.dead for _, state, _ in trained]
        for _, _, optimizer in trained:
            optimizer.rate = torch.zeros((), device=batch.values.device)

    def take(self, batch: Activations, moment: Moment, *, log: bool) -> list[Metrics | None]:
        """One step of each job."""
        for job, state, optimizer in self.trained:
            assert optimizer.rate is not None
            optimizer.rate.fill_(moment.config.lr(job, moment.steps - 1))
            state.review(dead_after=moment.config.dead_after, path=moment.config.path)
        if self._changed():
            self._replay, self._warm = None, False
        fits = self._fits(batch)
        if log or not fits or (self._replay is None and not self._ready()):
            self._warm |= fits
            return aside(functools.partial(self._eagerly, batch, moment, log))
        for name, part in vars(self.batch).items():
            if part is not None:
                part.copy_(getattr(batch, name))
        steps = [state.steps for _, state, _ in self.trained]
        if self._replay is None:
            self._replay = self._captured(moment)
        self._replay()
        for (_, state, _), before in zip(self.trained, steps, strict=True):
            state.steps = before + 1  # Only what is on the device was replayed.
        return [None] * len(self.trained)

    def _eagerly(self, batch: Activations, moment: Moment, log: bool) -> list[Metrics | None]:
        if self.stack is None:
            return [stepping.take(*self.trained[0], batch, moment, log=log)]
        return stepping.take_stacked(self.stack, self.trained, batch, moment, log=log)

    def _captured(self, moment: Moment) -> Callable[[], None]:
        try:
            return capture(functools.partial(self._eagerly, self.batch, moment, False))
        except RuntimeError as error:
            names = ", ".join(repr(job.name) for job, _, _ in self.trained)
            raise RuntimeError(f"the step of {names} cannot be a graph ({error}): leave graphs out.") from error

    def _changed(self) -> bool:
        """Whether the last review went over to the dense engine, or found other dead features than the graph reads."""
        changed = any(state.dense for _, state, _ in self.trained)
        for i, (job, state, _) in enumerate(self.trained):
            if state.dead is not self._dead[i] and any(getattr(p, "reads_dead", False) for p in job.penalties or ()):
                if torch.equal(state.dead, self._dead[i]):
                    state.dead = self._dead[i]  # Where the graph reads them.
                else:
                    self._dead[i], changed = state.dead, True
        return changed

    def _ready(self) -> bool:
        """Whether a step like this has run, and the one to be captured holds no review, which asks the host."""
        every = states.REVIEW[self.batch.values.device.type]
        return self._warm and all(state.steps % every for _, state, _ in self.trained)

    def _fits(self, batch: Activations) -> bool:
        """Whether the graph would do what an eager step does."""
        shapes = [[None if p is None else p.shape for p in vars(b).values()] for b in (batch, self.batch)]
        return self.fixed and shapes[0] == shapes[1] and not any(state.dense for _, state, _ in self.trained)


def is_fixed(job: Job, batch: Activations) -> bool:
    """Whether the shapes of a job's sparse step are always the same, and nothing on the host decides.

    So it is where each row keeps its own `k` latents, no threshold follows the batches, and the losses are known not
    to read the step's number: the reconstruction and AuxK.
    """
    sae, hooks = job.sae, ("encoded", "bound", "choose", "moved_thresholds")
    if any(getattr(type(sae), hook) is not getattr(SAE, hook) for hook in hooks):
        return False
    if sae.by_feature or sae.prefixes is not None or sae.unit_rows is None:
        return False
    if job.target_l0 is not None or job.signal is not reconstruction:
        return False
    if any(type(penalty) is not AuxK for penalty in job.penalties or ()):
        return False
    few = batch[:2]
    with torch.no_grad():
        latents = sae.encoded(few.values, few.grads).latents
    return isinstance(latents, Latents) and latents.k is not None
