"""The training steps that are measured: SAEs, penalties, shapes, rows."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import dense_autograd
import torch
from torch.distributions import Normal

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes import stepping
from saes.abs_topk import AbsTopK
from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.feature_choice import FeatureChoice
from saes.gated import Gated
from saes.gradient import GradientTopK
from saes.group_max import GroupMax
from saes.jumprelu import JumpReLU
from saes.mass_topk import MassTopK
from saes.matching_pursuit import MatchingPursuit
from saes.multi_topk import MultiTopK
from saes.mutual_choice import MutualChoice
from saes.penalties.aux_k import AuxK
from saes.penalties.aux_zipf import AuxZipf
from saes.penalties.gate_aux import GateAux
from saes.penalties.gate_l1 import GateL1
from saes.penalties.l0 import L0
from saes.penalties.l1 import L1
from saes.penalties.multi_k import MultiK
from saes.penalties.p_annealing import PAnnealing
from saes.penalties.pre_acts import PreActs
from saes.penalties.tanh import Tanh
from saes.relu import ReLU
from saes.states import TrainState
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

SHAPES = {"A": (512, 8192, 4096), "B": (768, 24576, 2048)}
K = 32


def jumprelu(density: float) -> Callable[[int, int], SAE]:
    """Makes JumpReLUs whose thresholds leave this density of rows of unit variance."""
    threshold = float(Normal(0, 1).icdf(torch.tensor(1 - density)))
    return lambda d, m: JumpReLU(d_in=d, d_sae=m, threshold=threshold, bandwidth=0.02)


@dataclasses.dataclass(frozen=True)
class Case:
    """An SAE, its penalties, the share of its latents that counts as dead, and the density it is held at.

    Without a choice there is no dense twin, and the tests alone say that it is right.
    """

    make: Callable[[int, int], SAE]
    choice: dense_autograd.Choice | None
    penalties: tuple = ()
    dead: float = 0.0
    density: float | None = None


CASES = {
    "topk": Case(lambda d, m: TopK(d_in=d, d_sae=m, k=K), dense_autograd.rows),
    "topk-dead": Case(lambda d, m: TopK(d_in=d, d_sae=m, k=K), dense_autograd.rows, (AuxK(),), dead=0.1),
    "batchtopk": Case(lambda d, m: BatchTopK(d_in=d, d_sae=m, k=K), dense_autograd.batch),
    "matryoshka": Case(
        lambda d, m: BatchTopK(d_in=d, d_sae=m, k=K, prefixes=[m // 8, m // 4, m // 2, m]), dense_autograd.batch
    ),
    "columns": Case(lambda d, m: FeatureChoice(d_in=d, d_sae=m, k=K), dense_autograd.columns),
    "columns-zipf": Case(lambda d, m: FeatureChoice(d_in=d, d_sae=m, k=K, zipf=1.0), dense_autograd.columns),
    "gradients": Case(lambda d, m: GradientTopK(d_in=d, d_sae=m, k=K), dense_autograd.by_gradient),
    "abs-topk": Case(lambda d, m: AbsTopK(d_in=d, d_sae=m, k=K), dense_autograd.sizes),
    "groupmax": Case(lambda d, m: GroupMax(d_in=d, d_sae=m, k=K), dense_autograd.groups),
    "mass-topk": Case(lambda d, m: MassTopK(d_in=d, d_sae=m, mass=0.02, k_max=2 * K), dense_autograd.mass),
    "mutual-choice": Case(
        lambda d, m: MutualChoice(d_in=d, d_sae=m, k=K), dense_autograd.batch, (AuxZipf(),), dead=0.1
    ),
    "linear-basis": Case(
        lambda d, m: TopK(d_in=d, d_sae=m, k=K, parametrization={"class": "LinearBasis"}), dense_autograd.rows
    ),
    "archetypal": Case(
        lambda d, m: TopK(d_in=d, d_sae=m, k=K, parametrization={"class": "Archetypal", "points": 1024}),
        dense_autograd.rows,
    ),
    # One after another it chooses with a product each.
    "matching-pursuit-8": Case(lambda d, m: MatchingPursuit(d_in=d, d_sae=m, k=8), None),
    # Its activation makes its own choice where it is given everything.
    "multi-topk": Case(lambda d, m: MultiTopK(d_in=d, d_sae=m, k=K), dense_autograd.everything, (MultiK(),)),
    "gated-2%": Case(
        lambda d, m: Gated(d_in=d, d_sae=m), dense_autograd.everything, (GateL1(), GateAux()), density=0.02
    ),
    "p-annealing-2%": Case(
        lambda d, m: ReLU(d_in=d, d_sae=m), dense_autograd.everything, (PAnnealing(start=0.0, end=0.05),), density=0.02
    ),
    "jumprelu-tanh-2%": Case(jumprelu(0.02), dense_autograd.everything, (Tanh(warmup=0.05), PreActs())),
    **{f"jumprelu-{p}%": Case(jumprelu(p / 100), dense_autograd.everything, (L0(),)) for p in (1, 2, 5)},
    **{
        f"relu-{p}%": Case(lambda d, m: ReLU(d_in=d, d_sae=m), dense_autograd.everything, (L1(),), density=p / 100)
        for p in (1, 2, 5, 20)
    },
}


def rows(n: int, d_in: int) -> Activations:
    """Random rows, with gradients."""
    values = torch.randn(n, d_in, generator=torch.Generator().manual_seed(0))
    return Activations(values, torch.arange(n), torch.zeros(n, dtype=torch.long), values.flip(0))


def hold(sae: SAE, case: Case) -> None:
    """Move an encoder's biases to where a case's density is."""
    if case.density is not None:
        sae.b_enc.data.sub_(Normal(0, 1).icdf(torch.tensor(1 - case.density)))


def check(case: Case, shape: str, n: int = 64) -> None:
    """The first step's loss and gradients are those of dense autograd, in float64."""
    if case.choice is None:
        return
    d_in, d_sae, _ = SHAPES[shape]
    job = Job(case.make(d_in, d_sae).double(), lr=1e-5, penalties=case.penalties)
    hold(job.sae, case)
    batch = rows(n, d_in).to(dtype=torch.float64)
    config = TrainConfig(tokens=10**9, batch_size=n, normalise="none", dead_tokens=10, path="sparse")
    state = TrainState.start(job.sae)
    state.silent[: int(case.dead * d_sae)] = 100
    state.review(dead_after=config.dead_after, path="sparse")
    found, names, W = [], [name for name, _ in job.sae.named_parameters()], job.sae.W_dec.detach()
    if job.sae.unit_rows is not None:
        W /= W.norm(dim=1, keepdim=True)  # Rounded to float64, as the engine takes norms to be.
    for step in (
        stepping.forward(job, state, batch, stepping.Moment(config, 10**6, 1.0)),
        dense_autograd.forward(job, batch, state.silent > config.dead_after, case.choice),
    ):
        loss = dense_autograd.loss(job, step)
        grads = dict(zip(names, torch.autograd.grad(loss, list(job.sae.parameters())), strict=True))
        if "W_dec" in grads:  # What is projected out need not be made.
            grads["W_dec"] -= (grads["W_dec"] * W).sum(1, keepdim=True) * W
        found.append((loss.detach(), *grads.values()))
    for ours, theirs in zip(*found, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10 * float(theirs.abs().max()))


def trainer(case: Case, batches: Sequence[Activations], d_sae: int) -> Trainer:
    """A trainer that is ready to step."""
    n, d_in = batches[0].values.shape
    config = TrainConfig(tokens=10**9, batch_size=n, normalise="none", dead_tokens=10**8, warmup=0, decay=0)
    job = Job(case.make(d_in, d_sae), lr=1e-5, penalties=case.penalties)
    with warnings.catch_warnings(action="ignore"):  # The rate is too low to learn much: densities stay.
        made = Trainer([job], config, MemoryStore(batches[0]), progress=False)
    hold(job.sae, case)
    return made


def take(made: Trainer, case: Case, batches: Sequence[Activations], steps: int) -> None:
    """Steps of a trainer, one in ten of them logged."""
    dead = int(case.dead * made.jobs[0].sae.d_sae)
    for step in range(steps):
        made.states[0].silent[:dead] = 2 * 10**8
        made.step(batches[step % len(batches)], log=step % 10 == 0)
