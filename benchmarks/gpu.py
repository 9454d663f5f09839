"""The kernels and the training step on a GPU, beside their twins and what they must move.

    python -m benchmarks.gpu [kernels] [steps] [stacks] [graphs] [widths] [--shapes 1 2 3] [--out FILE]

From the root of the tree; needs torch, Triton, safetensors and jaxtyping. `kernels` compares each kernel with a plain
torch twin in float64 and times it, the twin in its own precision, and the time in which its bytes could be read and
written once (each array once, at 4.3 TB/s). `steps` times `Trainer.step` in either precision, with kernels and without,
beside the bf16 encoder product, the counted ideal of a fused step, and a dense autograd step under bf16 autocast.
`stacks` times a step of eight small SAEs one by one and stacked: three times as fast is the goal. `graphs` times a step
of a small SAE with CUDA graphs and without, and says whether 40 steps end in the same weights. `widths` times the
gathers with other tiles. A row that fails says so and the rest goes on, in a new process if the device is lost to this
one; `--out` gets a line of JSON as soon as a row is done. Times are medians in ms. Indices are uniform, but for one
feature that fires in every row.
"""

import argparse
import functools
import gc
import json
import os
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.states import REVIEW
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

BANDWIDTH = 4.3e12  # Bytes a second of a copy, H200.
WAYS: dict[str, dict[str, Any]] = {
    f"{precision}{' kernels' if kernels else ''}": {"precision": precision, "kernels": kernels}
    for precision in ("float32", "bfloat16")
    for kernels in (False, True)
}
BETAS, RATE = (0.9, 0.99), 2**-13  # A graph reads the rate in float32, which holds this one.
Row = dict[str, object]


@dataclass(frozen=True)
class Shape:
    """d_in, d_sae, k and rows of a batch; the counted time of a fused step in ms; rows of a chunk of the encoder."""

    d: int
    m: int
    k: int
    n: int
    ideal: float
    chunk: int

    def __str__(self) -> str:
        return f"d{self.d} m{self.m} k{self.k} B{self.n}"


SHAPES = (
    Shape(768, 24576, 32, 8192, 1.09, 8192),
    Shape(2304, 65536, 64, 8192, 7.83, 4096),
    Shape(4096, 131072, 64, 16384, 39.0, 4096),
)


def timed(work: Callable[[], object], *, budget: float = 400.0) -> float:
    """Median ms of a run, over about `budget` ms of runs, at least five."""
    for _ in range(3):
        work()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < budget and len(times) < 50):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def error(found: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest exact number."""
    assert found.shape == exact.shape
    return float((found.double() - exact.double()).abs().max() / exact.double().abs().max())


def bound(*moved: Tensor | float) -> float:
    """Ms in which the tensors, or bytes, move once."""
    return sum(t.numel() * t.element_size() if isinstance(t, Tensor) else t for t in moved) / BANDWIDTH * 1e3


def touched(indices: Tensor, table: Tensor) -> float:
    """Bytes of the rows of a table that are read at all."""
    return float(indices.unique().numel() * table.shape[1] * table.element_size())


class Batch:
    """Codes of random features with feature 0 in every row, as a trained SAE has them, and what goes with them."""

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        n, m, d, k = shape.n, shape.m, shape.d, shape.k
        draw = torch.Generator("cuda").manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw, device="cuda")

        # Each slot draws from its own span of features: within a row they differ and ascend.
        span = m // k
        features = torch.randint(span, (n, k), generator=draw, device="cuda") + span * torch.arange(k, device="cuda")
        features[:, 0] = 0
        self.indices, self.rows = features.flatten(), torch.arange(n, device="cuda").repeat_interleave(k)
        self.offsets = torch.arange(0, n * k + 1, k, device="cuda")
        self.order = torch.argsort(self.indices, stable=True)
        self.by_feature = torch.zeros(m + 1, dtype=torch.long, device="cuda")
        self.by_feature[1:] = torch.bincount(self.indices, minlength=m).cumsum(0)
        self.values, self.slopes = normal(n * k), normal(n * k)
        self.x, self.grad = normal(n, d).to(dtype), normal(n, d).to(dtype)
        self.table = F.normalize(normal(m, d)).to(dtype)


def bags(table: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    weights = weights.to(table.dtype)
    return F.embedding_bag(indices, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def products(left: Tensor, batch: Batch, table: Tensor) -> Tensor:
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left, table, batch.indices, batch.offsets, batch.rows, 0
    )


# Kernels ----------------------------------------------------------------------------------------------------------


def row(wrong: float, kernel: Callable[[], object], twin: Callable[[], object], least: float) -> Row:
    ours, theirs = timed(kernel), timed(twin)
    return {"error": wrong, "ms": ours, "twin": theirs, "bound": least, "over bound": ours / least}


def check_sums(shape: Shape, dtype: torch.dtype) -> Row:
    from saes.engine.kernels.sums import weighted_sums

    b = Batch(shape, dtype)
    given = (b.indices, b.offsets, b.values)
    found = weighted_sums(b.table, *given, torch.float32)
    assert torch.equal(found, weighted_sums(b.table, *given, torch.float32)), "two runs differ"
    wrong = error(found, bags(b.table.double(), *given))
    least = bound(touched(b.indices, b.table), b.indices, b.values, b.x)
    return row(wrong, lambda: weighted_sums(b.table, *given), lambda: bags(b.table, *given), least)


def check_products(shape: Shape, dtype: torch.dtype) -> Row:
    from saes.engine.kernels.products import inner_products

    b = Batch(shape, dtype)
    found = inner_products(b.grad, b.table, b.rows, b.indices, torch.float32)
    wrong = error(found, products(b.grad.double(), b, b.table.double()))
    least = bound(touched(b.indices, b.table), b.indices, b.rows, b.grad, b.values)
    return row(
        wrong,
        lambda: inner_products(b.grad, b.table, b.rows, b.indices),
        lambda: products(b.grad, b, b.table),
        least,
    )


def check_gradients(shape: Shape, dtype: torch.dtype) -> Row:
    from saes.engine.kernels import gradients, twins

    b = Batch(shape, dtype)
    about = (b.rows, b.order, b.by_feature)
    given = (b.grad, b.x, b.values, b.slopes, *about)
    found = gradients.weight_gradients(*given)
    again = gradients.weight_gradients(*given)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True)), "two runs differ"
    del again
    doubles = [part.double() for part in (b.grad, b.x, b.values, b.slopes)]
    exact = twins.weight_gradients(*doubles, *about)
    wrong = max(error(one, other) for one, other in zip(found, exact, strict=True))
    del exact, doubles
    least = bound(*given, *found)
    plain = (b.grad.float(), b.x.float(), *given[2:])  # The twin sums in the precision of its table.
    return row(wrong, lambda: gradients.weight_gradients(*given), lambda: twins.weight_gradients(*plain), least)


def check_adam(shape: Shape, dtype: torch.dtype) -> Row:
    from saes.engine.kernels import adam, twins

    draw = torch.Generator("cuda").manual_seed(0)
    grad = torch.randn(shape.m, shape.d, generator=draw, device="cuda")
    start = F.normalize(torch.randn(shape.m, shape.d, generator=draw, device="cuda"))
    factor, step = torch.tensor(0.3, device="cuda"), torch.tensor(3.0, device="cuda")
    state = [start.clone(), torch.zeros_like(start), torch.zeros_like(start)]
    exact = [part.double() for part in state]
    about = {"step": step, "lr": RATE, "betas": BETAS, "factor": factor, "unit_rows": True}
    adam.adam_step(state[0], grad, *state[1:], **about)
    twins.adam_step(exact[0], grad.double(), *exact[1:], **about)
    wrong = max(error(one, other) for one, other in zip(state, exact, strict=True))
    del exact
    weights = torch.nn.Parameter(start)
    weights.grad = grad
    optimizer = torch.optim.Adam([weights], lr=RATE, betas=BETAS, fused=True)

    def plain() -> None:
        grad.mul_(factor)
        optimizer.step()
        weights.data.div_(weights.data.norm(dim=1, keepdim=True))

    kernel = lambda: adam.adam_step(state[0], grad, *state[1:], **about)  # noqa: E731
    return row(wrong, kernel, plain, bound(grad, *state, *state))


def check_top(shape: Shape, dtype: torch.dtype) -> Row:
    from saes.engine.kernels.selection import top_rows

    k = shape.k
    scores = torch.randn(shape.chunk, shape.m, generator=torch.Generator("cuda").manual_seed(0), device="cuda").to(
        dtype
    )
    values, indices = top_rows(scores, k)
    exact = scores.topk(k, dim=1)
    assert torch.equal(values.sort(dim=1, descending=True).values, exact.values), "other values than topk's"
    assert torch.equal(scores.gather(1, indices), values), "values are not those of the indices"
    assert bool((indices.diff(dim=1) > 0).all()), "indices do not ascend"
    least = bound(scores, values, indices)
    return row(0.0, lambda: top_rows(scores, k), lambda: scores.topk(k, sorted=False), least)


CHECKS: dict[str, Callable[[Shape, torch.dtype], Row]] = {
    "decode": check_sums,
    "inner products": check_products,
    "weight gradients": check_gradients,
    "Adam, clip, unit rows": check_adam,
    "top k of a chunk": check_top,
}


def kernels(shapes: tuple[Shape, ...]) -> Iterator[tuple[Row, Callable[[], Row]]]:
    for shape in shapes:
        for name, check in CHECKS.items():
            for dtype in (torch.float32,) if check is check_adam else (torch.float32, torch.bfloat16):
                about: Row = {"shape": str(shape), "kernel": name, "dtype": str(dtype).removeprefix("torch.")}
                yield about, lambda check=check, shape=shape, dtype=dtype: check(shape, dtype)


# Steps ------------------------------------------------------------------------------------------------------------


def trainer(saes: list[TopK], n: int, **options: Any) -> tuple[Trainer, list[Activations]]:
    """A run of all SAEs, and batches that are on the device."""
    values = torch.randn(2 * n, saes[0].d_in, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(
        tokens=10**9, batch_size=n, normalise="none", dead_tokens=10**9, warmup=0.0, decay=0.0, device="cuda", **options
    )
    jobs = [Job(sae, name=str(i), lr=RATE, penalties=()) for i, sae in enumerate(saes)]
    made = Trainer(jobs, config, MemoryStore.from_values(values), progress=False)
    stream = made.store.batches(n, seed=0)
    return made, [next(stream).to(made.device, torch.float32) for _ in range(2)]


def step_ms(saes: list[TopK], n: int, **options: Any) -> float:
    """A step of all SAEs."""
    made, batches = trainer(saes, n, **options)
    for _ in range(REVIEW["cuda"]):  # From then on the path is the one for the density.
        made.step(batches[0], log=False)
    return timed(lambda: made.step(batches[made.steps % 2], log=False), budget=1500)


def trainer_ms(shape: Shape, **options: Any) -> float:
    return step_ms([TopK(d_in=shape.d, d_sae=shape.m, k=shape.k)], shape.n, **options)


def gemm_ms(shape: Shape, dtype: torch.dtype) -> float:
    x = torch.randn(shape.n, shape.d, device="cuda", dtype=dtype)
    W = torch.randn(shape.m, shape.d, device="cuda", dtype=dtype)
    out = torch.empty(shape.n, shape.m, device="cuda", dtype=dtype)
    return timed(lambda: torch.mm(x, W.T, out=out))


def dense_ms(shape: Shape) -> float:
    """One step of a plain TopK SAE: dense codes, autograd under bf16 autocast, clipping, fused Adam, unit rows."""
    W_dec = F.normalize(torch.randn(shape.m, shape.d, device="cuda"))
    start = (W_dec.clone(), W_dec, torch.zeros(shape.m, device="cuda"), torch.zeros(shape.d, device="cuda"))
    W_enc, W_dec, b_enc, b_dec = parameters = [torch.nn.Parameter(part) for part in start]
    optimizer = torch.optim.Adam(parameters, lr=RATE, betas=BETAS, fused=True)
    x = torch.randn(shape.n, shape.d, device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            kept = F.linear(x - b_dec, W_enc, b_enc).topk(shape.k, dim=1, sorted=False)
            codes = torch.zeros(shape.n, shape.m, device="cuda", dtype=kept.values.dtype)
            recon = codes.scatter(1, kept.indices, kept.values.relu()) @ W_dec + b_dec
        loss = (recon.float() - x).square().sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return timed(step, budget=1500)


SIDES: dict[str, Callable[[Shape], float]] = {
    "bf16 product": lambda shape: gemm_ms(shape, torch.bfloat16),
    "fp32 product": lambda shape: gemm_ms(shape, torch.float32),
    **{f"Trainer.step {name}": functools.partial(trainer_ms, **options) for name, options in WAYS.items()},
    "dense bf16 step": dense_ms,
}


def steps(shapes: tuple[Shape, ...]) -> Iterator[tuple[Row, Callable[[], Row]]]:
    for shape in shapes:
        for name, side in SIDES.items():

            def work(shape: Shape = shape, side: Callable[[Shape], float] = side) -> Row:
                ms = side(shape)
                return {"ms": ms, "ideal": shape.ideal, "over ideal": ms / shape.ideal}

            yield {"shape": str(shape), "side": name}, work


# Stacks -----------------------------------------------------------------------------------------------------------


def small() -> list[TopK]:
    return [TopK(d_in=512, d_sae=4096, k=32, seed=seed) for seed in range(8)]


def stacks(shapes: tuple[Shape, ...]) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """One shape, whatever is asked. `unasked` is what a configuration that names neither stack nor path gives."""
    for name, options in WAYS.items():

        def work(options: dict[str, Any] = options) -> Row:
            alone, together = (step_ms(small(), 4096, stack=stack, path="sparse", **options) for stack in (False, True))
            return {
                "one by one": alone,
                "stacked": together,
                "ratio": alone / together,
                "unasked": step_ms(small(), 4096, **options),
            }

        yield {"saes": "8 of d512 m4096 k32 B4096", "way": name}, work


# Graphs -----------------------------------------------------------------------------------------------------------


def weights(n: int, **options: Any) -> Tensor:
    """The encoder and decoder after 40 steps, of which every tenth is logged."""
    made, batches = trainer([tiny()], n, **options)
    for step in range(1, 41):
        made.step(batches[step % 2], log=step % 10 == 0)
    sae = made.jobs[0].sae
    return torch.cat([sae.W_enc.detach().T, sae.W_dec.detach()])


def tiny() -> TopK:
    return TopK(d_in=512, d_sae=2048, k=32)


def graphs(shapes: tuple[Shape, ...]) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """One shape, whatever is asked."""
    for name, options in WAYS.items():

        def work(options: dict[str, Any] = options) -> Row:
            with_, without = (weights(1024, graphs=on, **options) for on in (True, False))
            graph, eager = (step_ms([tiny()], 1024, graphs=on, **options) for on in (True, False))
            wrong = float((with_ - without).abs().max())
            return {"eager": eager, "graph": graph, "ratio": eager / graph, "same bits": wrong == 0.0, "error": wrong}

        yield {"sae": "d512 m2048 k32 B1024", "way": name}, work


# Widths -----------------------------------------------------------------------------------------------------------


def widths(shapes: tuple[Shape, ...]) -> Iterator[tuple[Row, Callable[[], Row]]]:
    for shape in shapes:
        for columns in (64, 128, 256, 512):

            def work(shape: Shape = shape, columns: int = columns) -> Row:
                from saes.engine.kernels import tiles

                kept = tiles.WIDEST, tiles.NARROWEST
                tiles.WIDEST = tiles.NARROWEST = columns
                try:
                    sums, gradients = (check(shape, torch.float32)["ms"] for check in (check_sums, check_gradients))
                finally:
                    tiles.WIDEST, tiles.NARROWEST = kept
                return {"decode ms": sums, "weight gradients ms": gradients}

            yield {"shape": str(shape), "columns": columns}, work


WORK: dict[str, Callable[[tuple[Shape, ...]], Iterator[tuple[Row, Callable[[], Row]]]]] = {
    "kernels": kernels, "steps": steps, "stacks": stacks, "graphs": graphs, "widths": widths,
}  # fmt: skip


# Report -----------------------------------------------------------------------------------------------------------


def measured(about: Row, work: Callable[[], Row]) -> Row:
    """A row's numbers, or its error."""
    try:
        return about | work()
    except Exception as failure:  # One row must not cost the others.
        traceback.print_exc()
        return about | {"failed": f"{type(failure).__name__}: {failure}".splitlines()[0][:120]}


def usable() -> bool:
    """Whether the device still answers: after an access out of bounds it does not, in this process."""
    try:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for found in rows for name in found))
    lines = [names, ["---"] * len(names), *([cell(found.get(name, "")) for name in names] for found in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(WORK))
    parser.add_argument("--shapes", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--from", dest="first", type=int, default=0, help="rows to leave out")
    asked = parser.parse_args()
    if not set(asked.parts) <= set(WORK):
        parser.error(f"parts are {', '.join(WORK)}")
    if not torch.cuda.is_available():
        print("No CUDA device: nothing is measured.")
        return 2
    print(torch.cuda.get_device_name(), "torch", torch.__version__, flush=True)
    shapes, number = tuple(SHAPES[number - 1] for number in asked.shapes), 0
    for part in asked.parts or WORK:
        rows = []
        for about, work in WORK[part](shapes):
            number += 1
            if number <= asked.first:
                continue
            rows.append(measured(about, work))
            print(" ".join(f"{name}={cell(value)}" for name, value in rows[-1].items()), flush=True)
            if asked.out:
                with asked.out.open("a") as file:
                    file.write(json.dumps({"part": part} | rows[-1]) + "\n")
            if not usable():
                print(f"\n{table(rows)}\n\nThe device is lost: on in a new process.", flush=True)
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--from", str(number)])
        print(f"\n{table(rows)}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
