"""A training step beside one encoder product, the floor of every SAE that looks at all its latents.

    python benchmarks/speed.py [CASE ...] [--shape A | B] [--dense] [--peer RUNNER=PYTHON ...] [--threads 2]

A step is the trainer's own: loss, penalties, backward, dead counters, clipping, Adam, projection, renormalisation. The
sides take turns, so that a busy machine slows all alike; medians of the ratios of the same rounds. Before
anything is timed, the loss and the gradients of a first step are compared with those of dense autograd. `--dense` also
times that; `--peer` another library's training step, by a runner of benchmarks/peers (`saelens_step=...`) and the
python of the library's own environment.
"""

import argparse
import contextlib
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import dense_autograd
import torch
from cases import CASES, SHAPES, Case, K, check, hold, rows, take, trainer
from peers.client import Peer

from saes.engine.memory import kept_memory
from saes.training import Job

STEPS = 5
METHODS = {"topk": "topk", "topk-dead": "topk", "batchtopk": "batchtopk", "jumprelu-1%": "jumprelu", "relu-1%": "l1"}
"""What the peers have of our cases, by their runners' names."""


def ours(case: Case, shape: str) -> Callable[[], float]:
    """Seconds of a step of `STEPS`, one of them logged, as in a run."""
    d_in, d_sae, n = SHAPES[shape]
    batches = rows(n, d_in), rows(n, d_in)
    made = trainer(case, batches, d_sae)
    return timed(lambda: take(made, case, batches, STEPS))


def autograd(case: Case, choice: dense_autograd.Choice, shape: str) -> Callable[[], float]:
    """The same of dense autograd."""
    d_in, d_sae, n = SHAPES[shape]
    job = Job(case.make(d_in, d_sae), lr=1e-5, penalties=case.penalties)
    hold(job.sae, case)
    dead = torch.arange(d_sae) < int(case.dead * d_sae)
    step, batch = dense_autograd.training(job, choice), rows(n, d_in)

    def work() -> None:
        for _ in range(STEPS):
            step(batch, dead)

    return timed(work)


def floor(shape: str) -> Callable[[], float]:
    """The same of one encoder product, into memory that is there."""
    d_in, d_sae, n = SHAPES[shape]
    x, W, b, out = torch.randn(n, d_in), torch.randn(d_sae, d_in), torch.zeros(d_sae), torch.empty(n, d_sae)

    def work() -> None:
        for _ in range(STEPS):
            torch.addmm(b, x, W.T, out=out)

    return timed(work)


def timed(work: Callable[[], None]) -> Callable[[], float]:
    """Seconds of one step, on the wall."""

    def clocked() -> float:
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) / STEPS

    return clocked


def interleaved(sides: dict[str, Callable[[], float]], rounds: int) -> list[dict[str, float]]:
    """Seconds of a step of each side, a round each, after one that does not count."""
    return [{name: side() for name, side in sides.items()} for _ in range(rounds + 1)][1:]


def main() -> None:
    """Print a line a case and a line a peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES).replace("%", "%%")
    )
    parser.add_argument("--shape", choices=SHAPES, default="A")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dense", action="store_true", help="time dense autograd too")
    parser.add_argument("--peer", action="append", default=[], metavar="RUNNER=PYTHON")
    asked = parser.parse_args()
    if unknown := set(asked.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    torch.set_num_threads(asked.threads)
    d_in, d_sae, n = SHAPES[asked.shape]
    for name in asked.cases:
        case = CASES[name]
        check(case, asked.shape)
        with kept_memory(), contextlib.ExitStack() as stack:  # As in a run.
            sides = {"floor": floor(asked.shape), name: ours(case, asked.shape)}
            if asked.dense and case.choice is not None:
                sides["dense autograd"] = autograd(case, case.choice, asked.shape)
            for runner, _, python in (peer.partition("=") for peer in asked.peer if name in METHODS):
                shape = {"d_in": d_in, "d_sae": d_sae, "batch": n, "k": K, "threads": asked.threads}
                peer = stack.enter_context(Peer(Path(python), runner, **shape, method=METHODS[name], dead=case.dead))
                sides[runner] = functools.partial(peer.step_seconds, STEPS)
            found = interleaved(sides, asked.rounds)
        base = statistics.median(seconds["floor"] for seconds in found)
        for side in list(sides)[1:]:
            of_floor, of_ours = (
                statistics.median(seconds[side] / seconds[other] for seconds in found) for other in ("floor", name)
            )
            print(
                f"{asked.shape} {name:12} floor {base * 1e3:6.1f} ms   {side:24} {of_floor:6.2f} of it   "
                f"{of_ours:6.2f} of ours",
                flush=True,
            )


if __name__ == "__main__":
    main()
