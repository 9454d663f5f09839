"""What end-to-end training gains in the model, and costs in reconstruction, at the same L0.

    python benchmarks/end_to_end.py --store TRAIN HELD_OUT [--model all-minilm-l6-v2] [--later blocks.5]

A TopK SAE is trained to reconstruct; then it goes on for some steps over whole examples, with the error of
reconstruction as before, with the cosine of the embeddings (`saes.EndToEnd`), with this and the error at a later site,
and with this and the error of reconstruction. Each is judged on held-out rows by FVU, and in the model by the cosine
between the embeddings with and without it.
"""

import argparse
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from interp.loading import load_model
from interp.stores.disk import open_stores
from interp.stores.whole_examples import whole_examples
from interp.types import ActivationStore
from saes.base import SAE
from saes.evaluation import evaluate
from saes.penalties.base import reconstruction
from saes.signals.end_to_end import EndToEnd
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer


def told(name: str, sae: SAE, held_out: ActivationStore, model: Any, seconds: float) -> None:
    """A line of what an SAE is."""
    found = evaluate(sae, held_out, model=model).metrics
    parts = [f"{metric} {found[metric]}" for metric in ("fvu", "embedding_cosine", "l0", "dead")]
    print(f"{name:28} {'   '.join(parts)}   {seconds:.0f} s", flush=True)


def main() -> None:
    """Print a line a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", nargs=2, type=Path, required=True, metavar=("TRAIN", "HELD_OUT"))
    parser.add_argument("--model", default="all-minilm-l6-v2")
    parser.add_argument("--later", default="blocks.5", help="where the error downstream is measured")
    parser.add_argument("--d-sae", type=int, default=1536)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--more", type=int, default=100_000, help="rows of the part that differs")
    parser.add_argument("--lr", type=float, default=1e-3, help="of that part")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    store, held_out = (next(iter(open_stores(path).values())) for path in asked.store)
    model: Any = load_model(asked.model)
    rows = whole_examples(store)
    config = TrainConfig(tokens=asked.tokens, batch_size=asked.batch)
    start = time.perf_counter()
    begun = Trainer([Job(TopK(d_in=store.d_in, d_sae=asked.d_sae, k=asked.k))], config, store, progress=False).run()[0]
    told("at first", begun, held_out, model, time.perf_counter() - start)
    signals = {
        "reconstruction": reconstruction,
        "embedding": EndToEnd(model, rows),
        "embedding + later": EndToEnd(model, rows, downstream=[asked.later]),
        # The error of reconstruction is a sum over the width: so weighed it is of the embedding's size.
        "embedding + reconstruction": EndToEnd(model, rows, reconstruction_coefficient=1 / store.d_in),
    }
    config = TrainConfig(tokens=asked.more, batch_size=asked.batch, seed=1)
    for name, signal in signals.items():
        start = time.perf_counter()
        (sae,) = Trainer([Job(deepcopy(begun), signal=signal, lr=asked.lr)], config, rows, progress=False).run()
        told(name, sae, held_out, model, time.perf_counter() - start)


if __name__ == "__main__":
    main()
