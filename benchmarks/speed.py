"""A training step beside one encoder product, the floor of every SAE that looks at all its latents.

    python benchmarks/speed.py [CASE ...] [--rounds 7] [--threads 2]

A step is the trainer's own: loss, penalties, backward, dead counters, clipping, Adam, projection, renormalisation. The
sides take turns, so that a busy machine slows all alike; medians, as ratios to the floor of the same rounds. Before
anything is timed, the loss and the gradients of the first step are compared with a dense autograd step of the same SAE.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.engine.choices import feature_top_k, row_top_k
from saes.engine.selection import Candidates, Context
from saes.jumprelu import JumpReLU
from saes.penalties.aux_k import AuxK
from saes.penalties.l0 import L0
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

SHAPES = {"A": (512, 8192, 4096), "B": (768, 24576, 2048)}
K = 32
STEPS = 10


class Columns(SAE):
    """Column-wise choice: every latent keeps as many rows."""

    by_feature = True

    def __init__(self, *, d_in: int, d_sae: int, k: int) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, k=k)

    def candidates(self, pre_acts: torch.Tensor, context: Context) -> Candidates:
        return feature_top_k(pre_acts, max(1, self.k * context.n // self.d_sae), context)


class Gradients(SAE):
    """Gradient-weighted scores, exact: a second product of the encoder's size."""

    def __init__(self, *, d_in: int, d_sae: int, k: int) -> None:
        super().__init__(d_in=d_in, d_sae=d_sae, k=k)

    def candidates(self, pre_acts: torch.Tensor, context: Context) -> Candidates:
        scores = context.scratch("scores", pre_acts, *pre_acts.shape)
        torch.mm(context.grads, self.W_dec.T, out=scores).abs_().mul_(pre_acts)
        return row_top_k(pre_acts, self.k, context, scores)


def jumprelu(density: float) -> Callable[[int, int], SAE]:
    threshold = float(torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - density)))
    return lambda d, m: JumpReLU(d_in=d, d_sae=m, threshold=threshold, bandwidth=0.02)


@dataclasses.dataclass(frozen=True)
class Case:
    """An SAE, its penalties, the share of its latents that counts as dead, and the density it is held at."""

    make: Callable[[int, int], SAE]
    penalties: tuple = ()
    dead: float = 0.0
    density: float | None = None


CASES = {
    "topk": Case(lambda d, m: TopK(d_in=d, d_sae=m, k=K)),
    "topk-dead": Case(lambda d, m: TopK(d_in=d, d_sae=m, k=K), (AuxK(),), dead=0.1),
    "batchtopk": Case(lambda d, m: BatchTopK(d_in=d, d_sae=m, k=K)),
    "matryoshka": Case(lambda d, m: BatchTopK(d_in=d, d_sae=m, k=K, prefixes=[m // 8, m // 4, m // 2, m])),
    "columns": Case(lambda d, m: Columns(d_in=d, d_sae=m, k=K)),
    "gradients": Case(lambda d, m: Gradients(d_in=d, d_sae=m, k=K)),
    **{f"jumprelu-{p}%": Case(jumprelu(p / 100), (L0(),)) for p in (1, 2, 5)},
    **{f"relu-{p}%": Case(lambda d, m: ReLU(d_in=d, d_sae=m), (L1(),), density=p / 100) for p in (1, 2, 5, 20)},
}


def rows(n: int, d_in: int) -> MemoryStore:
    values = torch.randn(n, d_in, generator=torch.Generator().manual_seed(0))
    return MemoryStore(Activations(values, torch.arange(n), torch.zeros(n, dtype=torch.long), values.flip(0)))


def trainer(case: Case, shape: str, batches: int = 2) -> tuple[Trainer, list[Activations]]:
    d_in, d_sae, batch = SHAPES[shape]
    store = rows(batches * batch, d_in)
    config = TrainConfig(tokens=10**9, batch_size=batch, normalise="none", dead_tokens=10**8, warmup=0, decay=0)
    made = Trainer([Job(case.make(d_in, d_sae), lr=1e-5, penalties=case.penalties)], config, store, progress=False)
    if case.density is not None:
        shift = torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - case.density))
        with torch.no_grad():
            made.jobs[0].sae.b_enc.sub_(shift)
    stream = store.batches(batch, seed=0)
    return made, [next(stream) for _ in range(batches)]


def steps(case: Case, shape: str) -> Callable[[], object]:
    """`STEPS` steps, one of them logged, as in a run."""
    made, batches = trainer(case, shape)
    dead = int(case.dead * made.jobs[0].sae.d_sae)

    def work() -> None:
        for step in range(STEPS):
            made.states[0].silent[:dead] = 2 * 10**8
            made.step(batches[step % len(batches)], log=step == 0)

    return work


def floor(shape: str) -> Callable[[], object]:
    d_in, d_sae, batch = SHAPES[shape]
    x, W, b, out = torch.randn(batch, d_in), torch.randn(d_sae, d_in), torch.zeros(d_sae), torch.empty(batch, d_sae)

    def work() -> None:
        for _ in range(STEPS):
            torch.addmm(b, x, W.T, out=out)

    return work


def interleaved(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()
    for _ in range(rounds):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--shape", choices=SHAPES, default="A")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for name in asked.cases:
        sides = {"floor": floor(asked.shape), name: steps(CASES[name], asked.shape)}
        seconds = interleaved(sides, asked.rounds)
        base = statistics.median(seconds["floor"])
        ratio = statistics.median(seconds[name]) / base
        print(f"{asked.shape} floor {base / STEPS * 1e3:6.1f} ms   {name:12s} {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
