"""Peak memory of training, over what the process held with its data before the model was made.

    python benchmarks/memory.py [CASE ...] [--shape A | B] [--peer RUNNER=PYTHON ...] [--threads 2]

Resident memory at its highest over some steps, of a fresh process a case: weights, Adam's averages, gradients, and
whatever a step makes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from cases import CASES, SHAPES, K, check, rows, take, trainer
from peers.client import Peer
from speed import METHODS

from saes.engine.memory import kept_memory

STEPS = 12


def status(entry: str) -> int:
    """Bytes; not `getrusage`, whose peak a process takes over from the one that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry)]
    return 1024 * int(line.split()[1])


def peak(name: str, shape: str) -> float:
    """Megabytes of this process, which must be fresh."""
    d_in, d_sae, n = SHAPES[shape]
    batches = rows(n, d_in), rows(n, d_in)
    tiny = rows(64, 8), rows(64, 8)
    take(trainer(CASES["topk"], tiny, 64), CASES["topk"], tiny, 2)  # Libraries' own pages do not count.
    Path("/proc/self/clear_refs").write_text("5")  # Forget the peak of the imports.
    before = status("VmRSS")
    made = trainer(CASES[name], batches, d_sae)
    with kept_memory():  # As in a run.
        take(made, CASES[name], batches, STEPS)
    return (status("VmHWM") - before) / 1e6


def main() -> None:
    """Print a line a case and a line a peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["topk", "topk-dead"], metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--shape", choices=SHAPES, default="A")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", action="append", default=[], metavar="RUNNER=PYTHON")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.here:
        print(peak(asked.cases[0], asked.shape))
        return
    d_in, d_sae, n = SHAPES[asked.shape]
    for name in asked.cases:
        check(CASES[name], asked.shape)
        own = [sys.executable, __file__, name, "--here", "--shape", asked.shape, "--threads", str(asked.threads)]
        found = {"ours": float(subprocess.run(own, check=True, capture_output=True, text=True).stdout)}
        for runner, _, python in (peer.partition("=") for peer in asked.peer if name in METHODS):
            shape = {"d_in": d_in, "d_sae": d_sae, "batch": n, "k": K, "threads": asked.threads}
            with Peer(Path(python), runner, **shape, method=METHODS[name], dead=CASES[name].dead) as peer:
                peer.step_seconds(STEPS)
                found[runner] = peer.memory()
        for side, megabytes in found.items():
            print(f"{asked.shape} {name:12} {side:24} {megabytes:7.0f} MB", flush=True)


if __name__ == "__main__":
    main()
