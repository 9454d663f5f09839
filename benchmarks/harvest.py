"""Harvest and stream, beside the bare model's forward to the same depth, and beside SAELens' activation store.

    python benchmarks/harvest.py [--saelens /path/to/its/environment/bin/python] [--threads 2]

Prints ratios of medians of interleaved rounds, each beside a check that both sides gave the same rows.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
from interp.data.documentation import documentation
from interp.data.glyphs import glyphs
from interp.harvest_rows import batches_of
from interp.stores.stream import StreamStore
from interp.types import Inputs

ROUNDS, CHUNK, BATCH = 5, 512, 8192
CAUSAL = {"layer": 2, "batch": 32, "context": 128, "prompts": 400, "seconds": 20.0}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(**sides: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each side, the sides taking turns after one round that is not counted."""
    for work in sides.values():
        work()
    seconds = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, work in sides.items():
            seconds[name].append(timed(work))
    return {name: statistics.median(found) for name, found in seconds.items()}


class Reached(BaseException):
    """The bare forward is as far as the site."""


class Bare:
    """The model's own forward to one site, by one hook, on batches that are ready."""

    def __init__(self, model: Any, site: str, inputs: Sequence[Inputs]) -> None:
        self.model, self.inputs = model, inputs
        wanted = model.site(site)
        self.module = (model.reading([wanted])[wanted] if hasattr(model, "reading") else model.place(wanted)).module
        self.kept: list[torch.Tensor] = []

    def _keep(self, _module: object, _args: object, output: Any) -> None:
        self.kept.append(output[0] if isinstance(output, tuple) else output)
        raise Reached

    @torch.no_grad()
    def __call__(self) -> None:
        self.kept.clear()
        handle = self.module.register_forward_hook(self._keep)
        for one in self.inputs:
            with contextlib.suppress(Reached):
                self.model.forward(one)
        handle.remove()


def minilm() -> None:
    """blocks.3 over token ids, and over text that is still to be cut into tokens."""
    model = interp.load_model("all-minilm-l6-v2")
    texts = [row["text"] for row in documentation(max_items=600)]
    ids = [code.tokens for code in model.tokenize(texts, 128)]
    chunks = [range(first, min(first + CHUNK, len(ids))) for first in range(0, len(ids), CHUNK)]
    batches = [[c[i] for i in batch] for c in chunks for batch in batches_of([len(ids[i]) for i in c], BATCH)]
    bare = Bare(model, "blocks.3", [model.collate([ids[i] for i in batch]) for batch in batches])
    dataset = [{"input_ids": tokens.tolist()} for tokens in ids]
    store = compared("MiniLM", bare, model, dataset, "blocks.3", text=texts)
    rows = torch.cat([value[one.mask] for value, one in zip(bare.kept, bare.inputs, strict=True)])
    order = torch.cat([torch.full((len(ids[i]),), i) for batch in batches for i in batch]).argsort(stable=True)
    assert torch.allclose(store.span(0, len(store)).values, rows[order], atol=1e-6)


def encoder(name: str, site: str) -> None:
    """A glyph encoder, on the batches of pixels that a harvest makes of images in memory: drawing them is not timed."""
    model, images = interp.load_model(name), [row["image"] for row in glyphs("held_out")[:4096]]
    size = BATCH // model.geometry(model.site(site)).positions
    chunks = [images[first : first + CHUNK] for first in range(0, len(images), CHUNK)]
    bare = Bare(model, site, [model.collate(c[i : i + size]) for c in chunks for i in range(0, len(c), size)])
    store = compared(name, bare, model, images, site)
    values = torch.cat(bare.kept)
    rows = values.flatten(2).transpose(1, 2) if values.ndim == 4 else values
    assert torch.allclose(store.span(0, len(store)).values, rows.flatten(0, 1), atol=1e-5)


def compared(name: str, bare: Bare, model: Any, data: Any, site: str, text: Any = None) -> Any:
    """Print bare, memory and disk side by side; gives the store in memory."""
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Callable[[], object]] = {
            "bare": bare,
            "memory": lambda: harvested(model, data, site),
            "disk": lambda: harvested(model, data, site, Path(folder) / "store"),
        }
        if text is not None:
            sides["text"] = lambda: harvested(model, text, site, Path(folder) / "text")
        seconds = interleaved(**sides)
    store = harvested(model, data, site, dtype="float32")  # for the check alone: what is timed stores bfloat16
    for side, found in seconds.items():
        print(
            f"{name:13} {side:7} {len(store) / found:10,.0f} rows/s   {found / seconds['bare']:.3f} x bare", flush=True
        )
    return store


def harvested(model: Any, data: Any, site: str, path: Path | None = None, dtype: str = "bfloat16") -> Any:
    """One harvest from nothing."""
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
    options = {"exclude": (), "batch_tokens": BATCH, "chunk_examples": CHUNK, "dtype": dtype, "progress": False}
    return next(iter(interp.harvest(model, data, [site], path, **options).values()))


def causal(saelens: Path, threads: int) -> None:
    """A small GPT-2 with random weights: our stream and harvest beside SAELens' store."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    plain = GPT2LMHeadModel(
        GPT2Config(vocab_size=5000, n_positions=128, n_embd=256, n_layer=4, n_head=8, bos_token_id=0, eos_token_id=0)
    ).eval()
    random = np.random.default_rng(0)
    tokens = torch.from_numpy(random.integers(1, 5000, (CAUSAL["prompts"], CAUSAL["context"])))
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        torch.save(tokens, Path(folder) / "tokens.pt")
        site, theirs = f"blocks.{CAUSAL['layer']}", []
        options = {"exclude": (), "batch_tokens": CAUSAL["batch"] * CAUSAL["context"]}
        model = interp.load_model(plain)
        dataset = [{"input_ids": row.tolist()} for row in tokens]
        ours: dict[str, list[float]] = {"stream": [], "harvest": []}
        script = Path(__file__).parent / "peers" / "saelens_store.py"
        command = [saelens, script, folder, CAUSAL["layer"], CAUSAL["batch"], threads, CAUSAL["seconds"]]
        for _ in range(3):
            done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
            theirs.append(json.loads(done.stdout.splitlines()[-1])["tokens_a_second"])
            seconds = timed(lambda: interp.harvest(model, dataset, [site], progress=False, **options))
            ours["harvest"].append(tokens.numel() / seconds)
            # Nothing trains here, so the stream may have all threads, as SAELens' store has.
            stream = StreamStore(model, dataset, site, threads=threads, **options)
            ours["stream"].append(_streamed(stream, CAUSAL["seconds"]))
        first = interp.harvest(model, dataset[:4], [site], progress=False, exclude=(), dtype="float32")[
            model.site(site)
        ]
        same = torch.load(Path(folder) / "saelens.pt", weights_only=True).flatten(0, 1)
        assert torch.allclose(first.span(0, len(first)).values, same, atol=1e-4), "the two read different activations"
    base = statistics.median(theirs)
    print(f"SAELens store  {base:10,.0f} tokens/s")
    for side, found in ours.items():
        median = statistics.median(found)
        print(f"ours {side:9} {median:10,.0f} tokens/s   {median / base:.2f} x SAELens")


def _streamed(store: StreamStore, seconds: float) -> float:
    batches = store.batches(2048, seed=0)
    next(batches)
    rows, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        rows += len(next(batches))
    taken = time.perf_counter() - start
    batches.close()
    return rows / taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saelens", type=Path, help="python of an environment that has sae-lens 6")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads")
    minilm()
    encoder("glyph-vit", "blocks.2")
    encoder("glyph-resnet", "stages.1")
    if arguments.saelens:
        causal(arguments.saelens, arguments.threads)
