"""Eight small SAEs on one stream: their steps one by one and stacked, over their products.

    python benchmarks/stacking.py [--d-in 512] [--d-sae 4096] [--rows 4096] [--jobs 8] [--threads 2]

The trainer's own steps on the CPU, taking turns; `gpu.py` has the same for a GPU. Before anything is timed, ten stacked
steps are compared with ten one by one.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from cases import K, rows

from interp.stores.memory import MemoryStore
from saes.engine.memory import kept_memory
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer


def main() -> None:
    """Print medians of ratios of the same rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in (("d-in", 512), ("d-sae", 4096), ("rows", 4096), ("jobs", 8), ("threads", 2), ("rounds", 7)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    batch = rows(asked.rows, asked.d_in)

    def trainer(*, stack: bool) -> Trainer:
        jobs = [Job(TopK(d_in=asked.d_in, d_sae=asked.d_sae, k=K, seed=s), name=str(s)) for s in range(asked.jobs)]
        config = TrainConfig(tokens=10**9, batch_size=asked.rows, normalise="none", dead_tokens=10**8, stack=stack)
        with warnings.catch_warnings(action="ignore"):
            return Trainer(jobs, config, MemoryStore(batch), progress=False)

    made = {"one by one": trainer(stack=False), "stacked": trainer(stack=True)}
    W = made["one by one"].jobs[0].sae.W_dec.detach()

    def products() -> None:
        for _ in range(asked.jobs):
            torch.mm(batch.values, W.T)

    sides = {"products": products} | {
        name: lambda one=one: one.step(batch, log=False) for name, one in made.items()
    }  # fmt: skip
    with kept_memory():
        for _ in range(10):
            for one in made.values():
                one.step(batch, log=False)
        for a, b in zip(*(one.jobs for one in made.values()), strict=True):
            torch.testing.assert_close(a.sae.W_dec, b.sae.W_dec, rtol=0, atol=1e-4)  # Adam enlarges roundings.
        found = [{name: clocked(side) for name, side in sides.items()} for _ in range(asked.rounds)]
    for name in made:
        ratio = statistics.median(seconds[name] / seconds["products"] for seconds in found)
        print(f"{asked.jobs} x {asked.d_in} x {asked.d_sae}, {asked.rows} rows: {name:12} {ratio:5.2f} of the products")


def clocked(work: Callable[[], object]) -> float:
    """Seconds on the wall."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
