"""Every dictionary method on real activations: how well it gives them back, and what its latents tell.

    python benchmarks/judgement.py --store TRAIN HELD_OUT --d-sae 6144 --run FOLDER
    python benchmarks/judgement.py --store TRAIN HELD_OUT --d-sae 6144 --run FOLDER --methods topk batchtopk --seeds 0
    python benchmarks/judgement.py --store TRAIN --last 60000 --d-sae 6144 --run FOLDER
    python benchmarks/judgement.py ... --methods gradienttopk --gradients THE_ROWS_OF_TRAIN_WITH_GRADIENTS
    python benchmarks/judgement.py --table FOLDER

All methods (`judgement_methods`) see the same rows in the same order; a seed is that of the initial directions. Each is
judged on held-out rows: FVU, L0 and dead latents by `saes.evaluate`; stability, what the dictionaries of several seeds
share; and k-sparse probing (`judgement_labels`) beside the raw channels and a PCA at equal k. All intervals are over
examples, but for that of stability, over latents.
Other documents than those trained on are harder than more of the same: `--last` judges on the last rows of one store.

A trained dictionary is kept at once, and so is what is found of it, as a line of `results.jsonl`: a run that was killed
goes on where it was, and methods and seeds can be asked for piece by piece. A method that cannot run leaves a line that
says why; remove the line to try again.
"""

import argparse
import functools
import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import judgement_table
import torch
from judgement_labels import Baselines, questions
from judgement_methods import FIXED, METHODS, Bench, Made

from interp.durability import AppendedFile, make_folder, write_json
from interp.stores.base import RowStore
from interp.stores.disk import open_stores
from interp.stores.memory import MemoryStore
from interp.types import Activations, ActivationStore, Item
from saes.baselines.pca import PCA
from saes.evaluation import evaluate
from saes.loading import load
from saes.metrics.stability import stability

_NUMBERS = ("fvu", "l0", "dead")
_FAILURES = (ValueError, RuntimeError, FloatingPointError, MemoryError)


class Judge:
    """What is asked of every dictionary on the held-out rows."""

    def __init__(self, store: ActivationStore, held_out: ActivationStore) -> None:
        self.held_out, self.questions = held_out, questions(held_out)
        self._pca = functools.cache(lambda: PCA.fit(store))

    @functools.cached_property
    def _baselines(self) -> dict[str, Baselines]:
        return {name: Baselines.of(question, self._pca()) for name, question in self.questions.items()}

    def __call__(self, found: Made) -> dict[str, Any]:
        """Numbers with their intervals, in plain values."""
        metrics = evaluate(found, self.held_out).to_json()["metrics"]
        probing = {
            name: self._baselines[name].beside(question.probed(found)) for name, question in self.questions.items()
        }
        return {"metrics": {name: metrics[name] for name in _NUMBERS}, "probing": probing}


@dataclass(frozen=True)
class Folder:
    """Trained dictionaries, and results a line each."""

    path: Path

    def results(self) -> list[dict[str, Any]]:
        """What is there, of a line that a kill tore nothing."""
        return [json.loads(line) for line in self._whole().splitlines()]

    def add(self, result: dict[str, Any]) -> None:
        file = AppendedFile(self.path / "results.jsonl", length=len(self._whole()))
        file.write(json.dumps(result) + "\n")
        file.sync()
        file.close()

    def sae(self, method: str, seed: int) -> Path:
        return self.path / "saes" / f"{method}-seed{seed}.safetensors"

    def _whole(self) -> bytes:
        file = self.path / "results.jsonl"
        text = file.read_bytes() if file.exists() else b""
        return text[: text.rfind(b"\n") + 1]

    def start(self, about: dict[str, Any]) -> None:
        """Say what the run is of, or see that it is the one that is there."""
        file = self.path / "run.json"
        about = json.loads(json.dumps(about))
        if file.exists():
            then = json.loads(file.read_text())
            if differing := [name for name, value in about.items() if then.get(name) != value]:
                raise SystemExit(f"{self.path} holds a run of another {', '.join(differing)}: give another --run.")
            return
        make_folder(self.path)
        make_folder(self.path / "saes")
        write_json(file, about)


def run(bench: Bench, judge: Judge, folder: Folder, methods: list[str], seeds: list[int]) -> None:
    """Make what is asked for and not there yet."""
    for method in methods:
        done = [(r["method"], r["seed"]) for r in folder.results() if "seed" in r]
        for seed in seeds[:1] if method in FIXED else seeds:
            if (method, seed) not in done:
                result = {"method": method, "seed": seed, **_made(bench, judge, folder, method, seed)}
                folder.add(result)
                print(judgement_table.line(result), flush=True)
        _compare(folder, method)


def _made(bench: Bench, judge: Judge, folder: Folder, method: str, seed: int) -> dict[str, Any]:
    """Train, or take what was trained, and judge."""
    file, seconds = folder.sae(method, seed), {}
    try:
        if not file.exists():
            start = time.perf_counter()
            METHODS[method](bench, seed).save(file)
            seconds["training"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        found = judge(load(file))
        seconds["judging"] = round(time.perf_counter() - start, 1)
    except _FAILURES as error:  # The others go on.
        traceback.print_exc()
        return {"failure": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": seconds, "failure": None}


def _compare(folder: Folder, method: str) -> None:
    """What the seeds of a method share, once for as many as there are."""
    results = [r for r in folder.results() if r["method"] == method]
    seeds = sorted(r["seed"] for r in results if "seed" in r and r["failure"] is None)
    if len(seeds) < 2 or any(r.get("stability of") == seeds for r in results):
        return
    found = stability([load(folder.sae(method, seed)).W_dec for seed in seeds])
    folder.add({"method": method, "stability of": seeds, "stability": found.to_json()})


def stores(paths: list[Path], last: int | None) -> tuple[RowStore, RowStore]:
    """A store to train on and one to judge on, or one store but for its last examples, and these."""
    store, *held_out = (next(iter(open_stores(path).values())) for path in paths)
    return (store, held_out[0]) if held_out else cut(store, len(store) - (last or 0))


def cut(store: RowStore, row: int) -> tuple[RowStore, RowStore]:
    """The examples before that of a row, and the others."""
    example = int(store.addresses(row, row + 1)[0])
    start, _ = store.example_span(example)
    first, others = store.span(0, start), store.span(start, len(store))
    others = replace(others, example=others.example - example)
    return _part(store, first, store.items[:example]), _part(store, others, store.items[example:])


def _part(store: RowStore, rows: Activations, items: Sequence[Item]) -> MemoryStore:
    return MemoryStore(rows, site=store.site, geometry=store.geometry, items=items, provenance=store.provenance)


def _alike(one: RowStore, other: RowStore) -> bool:
    """Whether two stores hold as many rows, and the same at both ends."""
    ends = ((0, 1000), (len(one) - 1000, len(one)))
    return len(one) == len(other) and all(torch.equal(one.span(*end).values, other.span(*end).values) for end in ends)


def main() -> None:
    """Runs, or a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", nargs="+", type=Path, metavar="STORE", help="TRAIN HELD_OUT, or TRAIN with --last")
    parser.add_argument("--gradients", type=Path, metavar="STORE", help="TRAIN's rows with gradients, for g-SAE")
    parser.add_argument("--last", type=int, metavar="ROWS", help="judge on the last examples of TRAIN, untrained on")
    parser.add_argument("--d-sae", type=int, default=6144)
    parser.add_argument("--l0", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1_228_800)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="of the products that choose the codes")
    parser.add_argument("--run", type=Path, metavar="FOLDER")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="print what a run found, in Markdown")
    asked = parser.parse_args()
    if asked.table is not None:
        about = json.loads((asked.table / "run.json").read_text())
        print(judgement_table.markdown(about, Folder(asked.table).results()))
        return
    if asked.store is None or asked.run is None:
        parser.error("give --store TRAIN HELD_OUT and --run FOLDER, or --table FOLDER")
    if len(asked.store) != (2 if asked.last is None else 1):
        parser.error("give --store TRAIN HELD_OUT, or --store TRAIN --last ROWS")
    torch.set_num_threads(asked.threads)
    store, held_out = stores(asked.store, asked.last)
    judge, folder = Judge(store, held_out), Folder(asked.run)
    gradients = next(iter(open_stores(asked.gradients).values())) if asked.gradients else None
    if gradients is not None and not _alike(gradients, store):
        parser.error("--gradients has other rows than --store: harvest the same with loss=...")
    bench = Bench(store, asked.d_sae, asked.l0, asked.tokens, asked.batch, asked.precision, gradients)
    sizes = {name: value for name, value in vars(bench).items() if name not in ("store", "gradients")}
    folder.start(
        {
            **sizes,
            "site": str(store.site),
            "d_in": store.d_in,
            "model": store.provenance["model"]["name"],
            "rows": [len(store), len(held_out)],
            "store": store.fingerprint,
            "held_out": held_out.fingerprint,
            "questions": {name: question.about for name, question in judge.questions.items()},
        }
    )
    run(bench, judge, folder, asked.methods, asked.seeds)


if __name__ == "__main__":
    main()
