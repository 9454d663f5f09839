"""What will go wrong with a training run, said before its first step.

Each rule is silent on a healthy run. The limits were measured where a comment says so: on MiniLM's `blocks.3` with
1024 latents, 300 steps of 1024 rows, where the rule's own setting gives FVU .16 in training and .22 on held-out rows.
"""

import warnings
from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from interp.diagnosis_rules import EXTREME
from interp.diagnosis_sums import row_hashes
from interp.effective_rank import rank_me, singular_values
from interp.types import ActivationStore
from saes.normalising import Normaliser
from saes.records import Job, TrainConfig, default_lr

_ENOUGH = 256  # Rows that a sample needs to be judged.
_SPECTRUM = 512  # Rows for the effective rank: a tenth of a second, whatever the width.
_SHARE = 0.1  # Of the squared deviation, or of the rows.
_PER_LATENT = 5  # Rows a latent. Held-out FVU is 1.4 times that in training at 56, 3 times at 10, 5 times at 5.
_LR = (0.1, 2.5)  # Times the rule. A tenth of it gives FVU .29; three times as much lets 32 % of the latents die.
_STEPS = 20  # They give FVU .42, and 100 steps .22.
_COLLAPSED = 0.05  # Of the width.
_UNITS = 3.0  # Standard deviations, or one over it.


class ForecastWarning(UserWarning):
    """A training run is about to fail for a known reason."""


def warn(jobs: Sequence[Job], config: TrainConfig, store: ActivationStore, normaliser: Normaliser) -> None:
    """Issue a `ForecastWarning` for each thing that will go wrong.

    Args:
        jobs: What will be trained.
        config: How.
        store: On what.
        normaliser: With the sample that it was estimated from; nothing more is read.
    """
    for text in _foreseen(jobs, config, store, normaliser):
        warnings.warn(text, ForecastWarning, stacklevel=3)  # Where the Trainer is made.


def _foreseen(
    jobs: Sequence[Job], config: TrainConfig, store: ActivationStore, normaliser: Normaliser
) -> Iterator[str]:
    rank, sample = None, normaliser.sample
    if sample is not None and len(sample) >= _ENOUGH:
        sample = sample.cpu()
        centred = sample.double() - normaliser.mean.cpu().double()
        rank = _rank(centred[:_SPECTRUM])
        found = (_extreme(centred), _copies(sample), _collapsed(rank, store.d_in), _units(centred, config))
        yield from (text for text in found if text is not None)
    yield from _run(config)
    for job in jobs:
        yield from (f"job {job.name!r}: {text}" for text in _job(job, config, store, rank))


def _extreme(centred: Float[Tensor, "n d_in"]) -> str | None:
    """Rows far from the mean carry the loss."""
    squares = centred.square().sum(dim=1)
    far = squares > EXTREME**2 * squares.median()
    share = float(squares[far].sum() / squares.sum())
    if share < _SHARE:
        return None
    return (
        f"{float(far.double().mean()):.2%} of the rows lie over {EXTREME:g} times as far from the mean as the median "
        f"row and carry {share:.0%} of the squared deviation: the SAE will learn them and little else. Harvest with "
        "first='drop' or max_norm_ratio=10; `unweave diagnose` shows where they are."
    )


def _copies(sample: Float[Tensor, "n d_in"]) -> str | None:
    hashes = row_hashes(sample)
    share = 1 - len(set(hashes.tolist())) / len(hashes)
    if share < _SHARE:
        return None
    return (
        f"{share:.0%} of a sample of {len(hashes):,} rows are copies of others in it: they count as often in the loss, "
        "and held-out rows may be training rows. Deduplicate the dataset, or read a later site."
    )


def _rank(centred: Float[Tensor, "n d_in"]) -> float:
    """RankMe of the rows, from the smaller of the two products."""
    n, d = centred.shape
    return rank_me(singular_values(centred @ centred.T if n < d else centred.T @ centred))


def _collapsed(rank: float, d_in: int) -> str | None:
    if rank >= _COLLAPSED * min(d_in, _SPECTRUM):
        return None
    return (
        f"the rows lie near {rank:.0f} of {d_in:,} directions (RankMe less the mean): there are few features to find, "
        "and most latents will die or share one. Look at the model, or read another site."
    )


def _units(centred: Float[Tensor, "n d_in"], config: TrainConfig) -> str | None:
    std = float(centred.square().mean().sqrt())
    if config.normalise != "none" or 1 / _UNITS <= std <= _UNITS:
        return None
    return (
        f"normalise is 'none' and the activations have a standard deviation of {std:.2g}, but lr, clip and the "
        "penalties are meant for 1: use normalise='scale' (folded back on export), or choose them for these units."
    )


def _run(config: TrainConfig) -> Iterator[str]:
    if config.steps < _STEPS:
        yield (
            f"a run of {config.steps} x {config.batch_size:,} rows is too short for the warm-up, the decay and Adam's "
            "averages: give more tokens (several passes over the store are fine), or a smaller batch_size."
        )
    if config.dead_tokens is not None and config.dead_tokens >= config.tokens:
        yield (
            f"dead_tokens is {config.dead_tokens:,}, but the run has {config.tokens:,} tokens: no latent will count as "
            "dead, so none will be revived. Leave it out for 1 % of the run."
        )


def _job(job: Job, config: TrainConfig, store: ActivationStore, rank: float | None) -> Iterator[str]:
    sae, lr, rule = job.sae, config.peak_lr(job), default_lr(job.sae.d_sae, config.steps)
    k = getattr(sae, "k", None)
    seen = min(config.tokens, _rows(store, config.tokens))
    way = "Train on more tokens" if seen == config.tokens else "Harvest more rows"
    if seen < _PER_LATENT * sae.d_sae:
        yield (
            f"{seen:,} different rows are {seen / sae.d_sae:.1f} a latent: it will learn them by heart and do badly on "
            f"others. {way}, or take fewer latents."
        )
    if sae.d_sae < store.d_in:
        yield (
            f"{sae.d_sae:,} latents are fewer than the {store.d_in:,} dimensions: features that share dimensions "
            "cannot be told apart. A d_sae of 4 to 32 times d_in is usual."
        )
    if k is not None and rank is not None and k > rank:
        yield (
            f"k is {k}, but the rows lie near {rank:.0f} directions (RankMe less the mean): any {k} latents give them "
            "back, so nothing makes the latents meaningful. Take a much smaller k."
        )
    ratio = lr / rule
    if not _LR[0] <= ratio <= _LR[1]:
        what = "many latents will die" if ratio > 1 else "it will learn too slowly for most runs"
        yield (
            f"lr is {lr:.2g}, {ratio:.2g} times the rule for {sae.d_sae:,} latents and {config.steps:,} steps "
            f"({rule:.2g}): {what}. Leave lr out, or try values near the rule."
        )


def _rows(store: ActivationStore, otherwise: int) -> int:
    try:
        return len(store)
    except ValueError:  # A stream knows its length after its first pass only; until then its rows are new.
        return otherwise
