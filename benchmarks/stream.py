"""Training over a live model: what it costs that the model and the trainer work at the same time.

python benchmarks/stream.py

On two cores, one thread each for the model and the trainer. Three ways to do the same steps, one after another in each
round, so that a busy machine slows all three alike: the model alone (rows made and dropped), the trainer alone (the
same rows from memory), both at once. Two ratios: wall time over that of the slower of the two alone, and processor
time over the sum of the two; the second hardly moves on a busy machine. The weights after both at once must be those
after the trainer alone, to the bit.
"""

import argparse
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch

import interp
from interp.data.documentation import documentation
from interp.stores.memory import MemoryStore
from interp.stores.stream import StreamStore
from interp.types import Activations
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

SAES = 4


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, and its seconds on the wall and on the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    given = work()
    return given, time.perf_counter() - wall, time.process_time() - processor


def trainer(store: MemoryStore, arguments: argparse.Namespace) -> Trainer:
    jobs = [
        Job(TopK(d_in=store.d_in, d_sae=arguments.d_sae, k=32, seed=seed), name=f"topk-{seed}") for seed in range(SAES)
    ]
    config = TrainConfig(tokens=arguments.steps * arguments.batch_size, batch_size=arguments.batch_size)
    return Trainer(jobs, config, store, progress=False)


def trained(run: Trainer, batches: Any) -> list[torch.Tensor]:
    for batch in batches:
        run.step(batch, log=False)
    return [value for job in run.jobs for value in job.sae.state_dict().values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--d-sae", type=int, default=6144)
    parser.add_argument("--chunk-examples", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, texts = interp.load_model("all-minilm-l6-v2"), documentation()
    store = StreamStore(model, texts, "blocks.3", half_window=1, threads=1, chunk_examples=arguments.chunk_examples)
    print(f"{SAES} TopK of {arguments.d_sae}, {arguments.steps} steps of {arguments.batch_size}; 1 thread each")

    def batches() -> Any:
        return itertools.islice(store.batches(arguments.batch_size, seed=0), arguments.steps)

    def dropped() -> None:
        for _ in batches():
            pass

    rows: list[Activations] = list(batches())
    # For the trainer's look at its rows before the first step: a stream's would run the model.
    memory = MemoryStore.from_values(torch.cat([batch.values for batch in rows]))
    walls, processors = [], []
    for _ in range(arguments.rounds):
        alone, together = trainer(memory, arguments), trainer(memory, arguments)
        _, model_wall, model_cpu = timed(dropped)
        expected, trainer_wall, trainer_cpu = timed(functools.partial(trained, alone, rows))
        live = batches()
        first, start, first_cpu = timed(functools.partial(next, live))
        found, wall, cpu = timed(functools.partial(trained, together, itertools.chain([first], live)))
        wall, cpu = wall + start, cpu + first_cpu
        equal = all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        walls.append(wall / max(model_wall, trainer_wall))
        processors.append(cpu / (model_cpu + trainer_cpu))
        print(
            f"model {model_wall:5.1f} s, trainer {trainer_wall:5.1f} s, both {wall:5.1f} s "
            f"({start:.1f} s to the first batch): "
            f"{walls[-1]:.2f} of the slower, processor {processors[-1]:.2f} of the sum, "
            f"weights {'equal' if equal else 'DIFFER'}",
            flush=True,
        )
    middle = arguments.rounds // 2
    print(f"median: {sorted(walls)[middle]:.2f} of the slower, processor {sorted(processors)[middle]:.2f} of the sum")


if __name__ == "__main__":
    main()
