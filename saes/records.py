"""What a training run is made of: jobs, the configuration they share, and the metrics it gives."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from interp.types import JSON
from saes.base import SAE
from saes.normalising import Normalise
from saes.penalties.base import Penalty, Step, reconstruction
from saes.resampling import Resampling


@dataclass
class Job:
    """One SAE to train on the shared stream.

    Args:
        sae: The SAE; trained in place, in normalised units until it is exported.
        name: Names its files and metrics; the class in small letters by default.
        lr: Peak learning rate; None is the rule of `saes.records.default_lr`.
        penalties: Terms added to the loss; None is the method's own default, `()` is none.
        signal: The loss itself, a function of the step; reconstruction by default, or `saes.signals`.
        target_l0: L0 that training is to reach and keep (`saes.controlling`), for methods whose L0 is not fixed by
            construction; None leaves it to the penalties' coefficients.
        resampling: How dead latents start again at badly reconstructed inputs; None where a penalty revives them.

    Raises:
        ValueError: If `lr` or `target_l0` is not positive, the name cannot name a file, or nothing moves the L0.
    """

    sae: SAE
    name: str | None = None
    lr: float | None = None
    penalties: tuple[Penalty, ...] | None = None
    signal: Callable[[Step], Tensor] = reconstruction
    target_l0: float | None = None
    resampling: Resampling | None = None

    def __post_init__(self) -> None:
        self.name = self.name or type(self.sae).__name__.lower()
        if not self.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"name is {self.name!r}, but it names files: use letters, digits, '-', '_' and '.'.")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"lr is {self.lr}, but a learning rate is positive: 1e-4 to 1e-2 is usual.")
        self.penalties = self.sae.default_penalties() if self.penalties is None else tuple(self.penalties)
        if self.resampling is not None and not self.resampling.suits(self.sae):
            raise ValueError(
                f"resampling is given, but {type(self.sae).__name__} has no encoder and decoder rows of its own that "
                "could start again: leave it out, and let AuxK revive dead latents."
            )
        if self.target_l0 is not None:
            self._check_target(self.target_l0)
        classes = [type(penalty).__name__ for penalty in self.penalties]
        if len(set(classes)) < len(classes):
            raise ValueError(
                f"penalties are {classes}, but metrics name a term by its class: give each class once, "
                "with its coefficients added up."
            )

    def _check_target(self, target: float) -> None:
        method = type(self.sae)
        if not 0 < target < self.sae.d_sae:
            raise ValueError(f"target_l0 is {target}, but an L0 is between 0 and d_sae = {self.sae.d_sae}: give one.")
        limit = next((name for name in ("k_max", "k") if hasattr(self.sae, name)), None)
        if method.press is not SAE.press and limit and target > (most := getattr(self.sae, limit)):
            raise ValueError(
                f"target_l0 is {target}, but {method.__name__} keeps at most {limit} = {most}: raise {limit}."
            )
        if method.press is SAE.press and not any(getattr(p, "sparsity", False) for p in self.penalties or ()):
            raise ValueError(
                f"target_l0 is {target}, but nothing moves the L0 of this {method.__name__}: where k fixes it, give k; "
                "else give a penalty on how much fires (L1, L0)."
            )

    def to_json(self) -> JSON:
        """What is asked of the job, in plain values."""
        penalties = [{"class": type(p).__name__, **vars(p)} for p in self.penalties or ()]
        method = f"{type(self.sae).__module__}.{type(self.sae).__name__}"
        return {
            "name": self.name,
            "class": method,
            "arguments": self.sae.arguments,
            "lr": self.lr,
            "penalties": penalties,
            "target_l0": self.target_l0,
            "resampling": None if self.resampling is None else vars(self.resampling),
            "signal": _described(self.signal),
        }


@dataclass(frozen=True)
class TrainConfig:
    """What all jobs of a run share.

    Args:
        tokens: Rows to train on; `steps` is this over `batch_size`.
        batch_size: Rows a step.
        seed: Names the shuffle.
        warmup: Part of the run over which the learning rate rises linearly. With 2 % more latents die at high rates,
            with 20 % more never start in short runs.
        decay: Part of the run, at its end, over which it falls linearly to 0.
        betas: Adam's averages. 0.99 for the second follows gradients that come and go with a feature's firing; 0.9 for
            the first moves latents on that have stopped firing: on MiniLM a run of 150 steps has FVU .141 with it and
            .132 with 0.7.
        clip: Largest gradient norm; None for no clipping.
        normalise: `scale` (unit variance, folded back on export) or `none`.
        dead_tokens: Tokens of silence after which a feature counts as dead; None is 1 % of the run, at most 10M.
        density_rate: Weight of a batch in the running firing density.
        log_every: Steps between lines of metrics.
        checkpoint_every: Steps between checkpoints; None for none but the last.
        keep_checkpoints: How many to keep.
        max_skipped: Successive steps without a finite loss after which the run stops.
        device: Where to train.
        stack: Whether jobs of one width take their steps as one (see `saes.engine.stacking`); None for where that is
            faster: on a GPU. On a CPU it took 2.3 times the products where one after another take 1.8.
        path: `sparse` or `dense` engine for every step, or `auto` for the faster of the two at the density at hand.
        precision: What the encoder's product, which chooses the codes of a step, multiplies: `float32` or `bfloat16`.
            Weights, chosen codes, losses and gradients are float32 whatever it is, and so is evaluation. None is
            bfloat16 on a GPU that has it, float32 on a CPU, where it saves two fifths of a wide step if
            there are instructions for it.
        kernels: Whether Triton kernels take the place of torch's operations where they can. No GPU has run them yet:
            `python -m benchmarks.gpu` says on yours whether they are right, and faster.
        graphs: Whether steps are CUDA graphs where they can be (`saes.engine.graphs`: of methods that keep k latents a
            row; others go on as ever), for small SAEs. Learning rates are rounded to float32 then. No GPU has run them
            yet either.

    Raises:
        ValueError: If a value is out of its range.
    """

    tokens: int = 1_000_000
    batch_size: int = 2048
    seed: int = 0
    warmup: float = 0.1
    decay: float = 0.8
    betas: tuple[float, float] = (0.7, 0.99)
    clip: float | None = 1.0
    normalise: Normalise = "scale"
    dead_tokens: int | None = None
    density_rate: float = 0.02
    log_every: int = 10
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    max_skipped: int = 5
    device: str = "cpu"
    stack: bool | None = None
    path: Literal["auto", "sparse", "dense"] = "auto"
    precision: Literal["float32", "bfloat16"] | None = None
    kernels: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_size", "log_every", "keep_checkpoints", "max_skipped"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}, but it is a whole number of at least 1: give one (not 1e6).")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but it is a part of the run: give a number in [0, 1]."
                )
        for name in ("clip", "dead_tokens", "checkpoint_every"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but it is positive or None: give either.")
        if self.precision not in (None, *(precisions := ("float32", "bfloat16"))):
            raise ValueError(
                f"precision is {self.precision!r}, but it is one of {', '.join(precisions)}, or None: choose one."
            )
        if self.path not in (paths := ("auto", "sparse", "dense")):
            raise ValueError(f"path is {self.path!r}, but it is one of {', '.join(paths)}: choose one.")

    @property
    def steps(self) -> int:
        """Steps of the run; the last batch is full."""
        return max(1, self.tokens // self.batch_size)

    @property
    def dead_after(self) -> int:
        """Tokens of silence after which a feature is dead."""
        return self.dead_tokens or min(10_000_000, max(self.tokens // 100, self.batch_size))

    def lr_factor(self, step: int) -> float:
        """The schedule's factor at a step, counted from 0."""
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, rise, fall)

    def peak_lr(self, job: Job) -> float:
        """The learning rate that a job's schedule rises to: its own, or the rule's."""
        return default_lr(job.sae.d_sae, self.steps) if job.lr is None else job.lr

    def recorded(self, job: Job) -> JSON:
        """What a run says of a job: what it left to a rule, too."""
        return {**job.to_json(), "lr": self.peak_lr(job)}

    def lr(self, job: Job, step: int) -> float:
        """The learning rate of a job at a step, counted from 0."""
        return self.peak_lr(job) * self.lr_factor(step)


@dataclass(frozen=True)
class Metrics:
    """What one step says of one job; `fvu` is that of the batch, about the batch's mean."""

    job: str
    step: int
    tokens: int
    loss: float
    fvu: float
    l0: float
    dead: float
    grad_norm: float
    lr: float
    skipped: int
    terms: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> JSON:
        """One line of metrics.jsonl; what is not finite is null, as JSON has no name for it."""
        return {name: _finite(value) for name, value in vars(self).items()} | {
            "terms": {name: _finite(value) for name, value in self.terms.items()}
        }


def default_lr(d_sae: int, steps: int) -> float:
    """Learning rate where a job names none: 1e-2 at 256 latents and 1000 steps, falling with either.

    Measured from 128 to 6144 latents and 150 to 3900 steps, on worlds of known features and on MiniLM
    (`benchmarks/scaling.py`): half of it and twice of it were worse, or left more latents dead, or as good. Shorter
    runs have the rate of 150 steps.
    """
    return 1e-2 * math.pow(256 / d_sae, 0.3) * math.pow(1000 / max(steps, 150), 0.3)


def _described(signal: Callable[[Step], Tensor]) -> Any:
    return signal.to_json() if hasattr(signal, "to_json") else getattr(signal, "__name__", type(signal).__name__)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
