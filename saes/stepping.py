"""One training step of one job on one batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.types import Activations
from saes.engine import optimizing, passes
from saes.penalties.base import Step, Watched
from saes.records import Job, Metrics, TrainConfig
from saes.states import TrainState


@dataclass(frozen=True)
class Moment:
    """Where a run is at a step.

    Args:
        config: What the jobs share.
        steps: Steps taken, this one counted.
        scale: The normaliser's.
    """

    config: TrainConfig
    steps: int
    scale: float


@dataclass(frozen=True)
class Taken:
    """What a step leaves to be looked at.

    Args:
        step: Its forward pass.
        terms: The loss, term by term.
        loss: Their sum.
        norm: Of the gradients, before clipping.
        lr: Learning rate.
    """

    step: Step
    terms: dict[str, Tensor]
    loss: Tensor
    norm: Tensor
    lr: float


def take(
    job: Job, state: TrainState, optimizer: optimizing.Adam, batch: Activations, moment: Moment, *, log: bool
) -> Metrics | None:
    """Train one job on one batch, in normalised units.

    Args:
        job: The SAE and its losses.
        state: Its counters.
        optimizer: Its optimizer.
        batch: The rows.
        moment: Where the run is.
        log: Whether to compute metrics, which wait for the device.

    Raises:
        FloatingPointError: At a step that is logged, if several in a row had no finite loss.
    """
    config, lr = moment.config, (job.lr or 0.0) * moment.config.lr_factor(moment.steps - 1)
    _review(job, state, batch, config)
    step = forward(job, state, batch, moment)
    terms = {"signal": job.signal(step)} | {type(p).__name__: p(step) for p in job.penalties or ()}
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    loss = loss.detach()
    optimizing.remove_parallel(job.sae.W_dec)
    norm = optimizing.gradient_norm(job.sae)
    good = torch.isfinite(loss) & torch.isfinite(norm)
    optimizing.update(job.sae.W_dec, optimizer, lr=lr, clip=config.clip, norm=norm, good=good)
    state.move(job.sae, step.latents, config.density_rate, good)
    if not log:
        return None
    state.check(job.name or "", job.lr or 0.0, config.max_skipped)
    return _metrics(job, state, Taken(step, terms, loss, norm, lr), moment)


def _review(job: Job, state: TrainState, batch: Activations, config: TrainConfig) -> None:
    """Look at what the state counts; before the first step, a few rows tell the density where nothing fixes it."""
    if state.steps == 0 and config.path == "auto" and job.sae.bound() is not None:
        with torch.no_grad():
            few = job.sae.encoded(batch.values[:64], None if batch.grads is None else batch.grads[:64])
        state.kept.fill_(few.latents.values.numel() / min(64, len(batch.values)))
    state.review(dead_after=config.dead_after, path=config.path)


def forward(job: Job, state: TrainState, batch: Activations, moment: Moment) -> Step:
    """The forward pass that the losses of a job see."""
    sae = job.sae
    reads_dead = any(getattr(penalty, "reads_dead", False) for penalty in job.penalties or ())
    watch = state.dead if reads_dead and len(state.dead) else None
    encoded = sae.encoded(batch.values, batch.grads, watch=watch, as_dense=state.dense)
    prefix_recons = None
    if sae.prefixes is None:
        recon, W_watched = passes.decode(encoded.latents, sae.W_dec, sae.b_dec, watch)
    else:
        prefix_recons, W_watched = passes.decode_prefixes(encoded.latents, sae.W_dec, sae.b_dec, sae.prefixes, watch)
        recon = prefix_recons[-1]
    watched = None
    if watch is not None and encoded.watched is not None and W_watched is not None:
        watched = Watched(watch, encoded.watched, W_watched)
    elif reads_dead:
        watched = Watched(state.dead, batch.values.new_empty(len(batch.values), 0), sae.W_dec[:0])
    return Step(
        sae=sae,
        activations=batch,
        latents=encoded.latents,
        recon=recon,
        dead=state.silent > moment.config.dead_after,
        density=state.density,
        progress=(moment.steps - 1) / moment.config.steps,
        scale=moment.scale,
        prefix_recons=prefix_recons,
        extras=encoded.extras,
        watched=watched,
        on_sphere=True,
    )


@torch.no_grad()
def _metrics(job: Job, state: TrainState, taken: Taken, moment: Moment) -> Metrics:
    step, config = taken.step, moment.config
    deviation = (step.target - step.target.mean(0)).square().sum()
    return Metrics(
        job=job.name or "",
        step=moment.steps,
        tokens=moment.steps * config.batch_size,
        loss=float(taken.loss),
        fvu=float(step.residual.square().sum() / deviation),
        l0=step.latents.values.count_nonzero().item() / len(step.latents),
        dead=float((state.silent > config.dead_after).float().mean()),
        grad_norm=float(taken.norm),
        lr=taken.lr,
        skipped=int(state.skipped),
        terms={name: float(term) for name, term in taken.terms.items()},
    )
