"""One training step on one batch, of one job or of several that are stacked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.stores.shuffling import counter_key
from interp.types import Activations, Latents
from saes import controlling
from saes.engine import optimizing, passes
from saes.engine.products import low_precision
from saes.engine.stacking import Stack
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
    """
    _review(job, state, batch, moment.config)
    step = forward(job, state, batch, moment)
    terms = _terms(job, state, step)
    loss = _total(terms)
    loss.backward()
    return _move(job, state, optimizer, moment, step, terms, loss.detach(), log=log)


def take_stacked(
    stack: Stack,
    trained: Sequence[tuple[Job, TrainState, optimizing.Adam]],
    batch: Activations,
    moment: Moment,
    *,
    log: bool,
) -> list[Metrics | None]:
    """Train the jobs of a stack on one batch: `take` of each, in one forward and one backward pass."""
    for job, state, _ in trained:
        _review(job, state, batch, moment.config)
    if any(state.dense for _, state, _ in trained):
        return [take(*one, batch, moment, log=log) for one in trained]
    steps = _forward_stacked(stack, [(job, state) for job, state, _ in trained], batch, moment)
    terms = [_terms(job, state, step) for (job, state, _), step in zip(trained, steps, strict=True)]
    losses = torch.stack([_total(own) for own in terms])
    losses.sum().backward()
    stack.deal_gradients()
    return [
        _move(*one, moment, step, own, loss, log=log)
        for one, step, own, loss in zip(trained, steps, terms, losses.detach(), strict=True)
    ]


def _terms(job: Job, state: TrainState, step: Step) -> dict[str, Tensor]:
    found = {type(p).__name__: p(step) for p in job.penalties or ()}
    if job.target_l0 is not None:
        pressed = {type(p).__name__ for p in job.penalties or () if getattr(p, "sparsity", False)}
        found |= {name: found[name] * state.pressure.exp() for name in pressed}
    return {"signal": job.signal(step)} | found


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _move(
    job: Job,
    state: TrainState,
    optimizer: optimizing.Adam,
    moment: Moment,
    step: Step,
    terms: dict[str, Tensor],
    loss: Tensor,
    *,
    log: bool,
) -> Metrics | None:
    """What follows the gradients: weights, counters, metrics."""
    config, lr = moment.config, moment.config.lr(job, moment.steps - 1)
    unit = job.sae.unit_rows
    optimizing.remove_parallel(unit)
    norm = optimizing.gradient_norm(job.sae)
    good = torch.isfinite(loss) & torch.isfinite(norm)
    optimizing.update(unit, optimizer, lr=lr, clip=config.clip, norm=norm, good=good)
    state.move(job.sae, step.latents, config.density_rate, good, job.target_l0, controlling.rate(config.steps))
    if job.resampling is not None and job.resampling.due(moment.steps, config.steps):
        dead = (state.silent > config.dead_after).nonzero().squeeze(1)
        job.resampling.apply(
            job.sae,
            optimizer,
            state.silent,
            dead,
            step.x,
            step.residual,
            key=int(counter_key(config.seed, moment.steps)) >> 1,
        )
    if not log:
        return None
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
    sae, watch = job.sae, _watch(job, state)
    with low_precision(_low(batch, moment.config)):
        encoded = sae.encoded(batch.values, batch.grads, watch=watch, as_dense=state.dense)
    if sae.prefixes is None:
        recon, W_watched = passes.decode(encoded.latents, sae.W_dec, sae.b_dec, watch, encoded.handover)
        return _step(job, state, batch, moment, encoded, sae.bypassed(recon, batch.values), W_watched)
    recons, W_watched = passes.decode_prefixes(encoded.latents, sae.W_dec, sae.b_dec, sae.prefixes, watch)
    recons = sae.bypassed(recons, batch.values)
    return replace(_step(job, state, batch, moment, encoded, recons[-1], W_watched), prefix_recons=recons)


def _forward_stacked(
    stack: Stack, trained: Sequence[tuple[Job, TrainState]], batch: Activations, moment: Moment
) -> list[Step]:
    watch = [_watch(job, state) for job, state in trained]
    with low_precision(_low(batch, moment.config)):
        encoded = stack.encode(batch.values, batch.grads, watch)
    latents = [one.latents for one in encoded if isinstance(one.latents, Latents)]
    decoded = stack.decode(latents, watch, encoded[0].handover)
    return [
        _step(*own, batch, moment, one, recon, W_watched)
        for own, one, (recon, W_watched) in zip(trained, encoded, decoded, strict=True)
    ]


def _low(batch: Activations, config: TrainConfig) -> bool:
    if config.precision is None:
        return batch.values.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bfloat16"


def _reads_dead(job: Job) -> bool:
    return any(getattr(penalty, "reads_dead", False) for penalty in job.penalties or ())


def _watch(job: Job, state: TrainState) -> Tensor | None:
    return state.dead if _reads_dead(job) and len(state.dead) else None


def _step(
    job: Job,
    state: TrainState,
    batch: Activations,
    moment: Moment,
    encoded: passes.Encoded,
    recon: Tensor,
    W_watched: Tensor | None,
) -> Step:
    watched = None
    if encoded.watched is not None and W_watched is not None:
        watched = Watched(state.dead, encoded.watched, W_watched)
    elif _reads_dead(job):
        watched = Watched(state.dead, batch.values.new_empty(len(batch.values), 0), job.sae.W_dec[:0])
    return Step(
        sae=job.sae,
        activations=batch,
        latents=encoded.latents,
        recon=recon,
        dead=state.silent > moment.config.dead_after,
        density=state.density,
        progress=(moment.steps - 1) / moment.config.steps,
        scale=moment.scale,
        extras=encoded.extras,
        watched=watched,
        on_sphere=job.sae.unit_rows is not None,
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
