"""What the runners of the peers share: a training loop that takes its steps when it is told to.

A peer's own loop is fed from `Turns`, an iterator over batches. Between two batches exactly one step of the peer runs,
whatever its loop does in one; the iterator waits for lines on stdin and answers each on stdout with one JSON object:

    go N      N steps; {"seconds": of one on the wall, "processor": of one on the processor}
    memory    {"megabytes": peak of the process over what it held before the model was made}
    quit      ends the process, as the end of stdin does

The first line it prints tells what runs, and that a few steps moved the weights and lowered the loss.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

CHECK = 10  # Steps taken before anything is asked: they also warm up.
SAMPLE = 4096  # Entries of each parameter that are looked at.
LR = 1e-5  # What it is changes no time, as long as the density stays.

# Libraries print; stdout is for answers alone.
_ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def arguments(*methods: str, **numbers: int) -> argparse.Namespace:
    """The method and the numbers that a runner takes beside the usual ones; also sets the threads."""
    parser = argparse.ArgumentParser()
    for name, default in {"d_in": 512, "batch": 4096, "threads": 2, **numbers}.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    if methods:
        parser.add_argument("--method", choices=methods, default=methods[0])
        parser.add_argument("--dead", type=float, default=0.0, help="share of the latents that counts as dead")
    asked = parser.parse_args()
    if methods and asked.dead and "topk" not in asked.method:
        parser.error(f"{asked.method} has no auxiliary loss for dead latents")
    torch.set_num_threads(asked.threads)
    return asked


class Clock:
    """Seconds on the wall and on the processor, from when it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self, n: int) -> dict[str, float]:
        """Seconds of one of n."""
        wall, processor = self._start
        return {"seconds": (time.perf_counter() - wall) / n, "processor": (time.process_time() - processor) / n}


def served(batches: Iterator[Tensor], library: str, asked: argparse.Namespace) -> None:
    """Answer `go N` with the seconds of one of N batches; the first one, which fills a buffer, is taken before."""
    assert next(batches).shape == (asked.batch, asked.d_in)
    _answer(library=library, version=importlib.metadata.version(library), **vars(asked))
    for line in sys.stdin:
        n = int(line.removeprefix("go "))
        clock = Clock()
        for _ in range(n):
            next(batches)
        _answer(**clock.read(n))


def repeated(work: Callable[[], object], **about: object) -> None:
    """Answer `go N` with the seconds of one of N runs of some work."""
    _answer(**about)
    for line in sys.stdin:
        n = int(line.removeprefix("go "))
        clock = Clock()
        for _ in range(n):
            work()
        _answer(**clock.read(n))


class Turns:
    """Two batches of random rows, for ever, one a step.

    Make it before the model: from then on memory counts.
    """

    def __init__(self, library: str, asked: argparse.Namespace) -> None:
        self.about = {"library": library, "version": importlib.metadata.version(library), **vars(asked)}
        random = torch.Generator().manual_seed(0)
        self.batches = [torch.randn(asked.batch, asked.d_in, generator=random) for _ in range(2)]
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # torch loads much when the first is made.
        Path("/proc/self/clear_refs").write_text("5")  # Forget the peak of the imports.
        self.before = _status("VmRSS")

    def __call__(self, model: nn.Module, loss: Callable[[Tensor], Tensor], ready: Callable[[], object]) -> Iterator:
        """The iterator that a training loop is fed from.

        Args:
            model: What is trained.
            loss: The loss the library trains with, on some rows.
            ready: Called before each step: marks latents as dead.
        """
        yield from self._checked(model, loss, ready)
        for line in sys.stdin:
            match line.split():
                case ["go", n]:
                    clock = Clock()
                    yield from self._steps(int(n), ready)
                    _answer(**clock.read(int(n)))
                case ["memory"]:
                    _answer(megabytes=(_status("VmHWM") - self.before) / 1e6)
                case ["quit"]:
                    break
                case _:
                    _answer(error=f"no such command: {line.strip()}")
        raise SystemExit  # No loop ends by itself: what it would do at its end is no step.

    def _steps(self, n: int, ready: Callable[[], object]) -> Iterator[Tensor]:
        for step in range(n):
            ready()
            yield self.batches[step % 2]

    def _checked(self, model: nn.Module, loss: Callable[[Tensor], Tensor], ready: Callable[[], object]) -> Iterator:
        rows = self.batches[0][:256]  # A loss on all would be a peak of its own.
        yield self.batches[0]  # The first step sets biases from its batch.
        with torch.no_grad():
            before, first = float(loss(rows)), _sample(model)
        yield from self._steps(CHECK, ready)
        with torch.no_grad():
            after, last = float(loss(rows)), _sample(model)
        moved = {name: float((first[name] != last[name]).float().mean()) for name in first}
        assert after < before, f"loss went from {before} to {after}"
        assert all(moved[name] > 0 for name, part in model.named_parameters() if part.ndim == 2), moved
        _answer(**self.about, loss_before=before, loss_after=after, moved=moved)


def _sample(model: nn.Module) -> dict[str, Tensor]:
    parts = {name: part.detach().flatten() for name, part in model.named_parameters()}
    return {name: part[:: max(1, len(part) // SAMPLE)].clone() for name, part in parts.items()}


def _answer(**values: object) -> None:
    print(json.dumps(values), file=_ANSWERS)


def _status(entry: str) -> int:
    """Bytes; not `getrusage`, whose peak a process takes over from the one that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry)]
    return 1024 * int(line.split()[1])
