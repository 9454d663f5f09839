"""Quality on ground truth, beside tuned peers: worlds of known features, the same rows for all, one metric code.

    python benchmarks/quality.py --who ours --methods topk batchtopk --worlds base --seeds 0 1 2 --out results.jsonl
    python benchmarks/quality.py --who saelens --peer saelens=PYTHON --set lr=1e-3,3e-3,1e-2,2e-2 --out results.jsonl
    python benchmarks/quality.py --who saelens --peer saelens=PYTHON --tuned --seeds 1 2 --out results.jsonl
    python benchmarks/quality.py --table results.jsonl [--figure frontier.png]

Every run is one pass over a million rows of a world (`quality_worlds`), in the same order for all sides; a world of
another seed has other directions, rows and initial weights. `--set` gives settings, or several to try; what is not
set has the recipe's value below. `--tuned` takes the settings that had the lowest FVU at the tuning world and seed, of
those with an L0 near k. Results are appended as they come and none is made twice, so runs can be made in pieces.
`ours` is any method of `saes` by its name, `truth` the same with the decoder held at the true dictionary: what is left
is the encoder's. `oracle` needs no training: the true support with least squares, and orthogonal matching pursuit.
`--peer` names the python of a library's own environment.
"""

import argparse
import functools
import inspect
import itertools
import json
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import quality_oracles
import quality_table
import torch
from quality_worlds import BATCH, SAMPLES, WORLDS, Ground, Linear, judge

from interp.stores.memory import MemoryStore
from interp.types import Directions
from saes.base import SAE
from saes.loading import methods
from saes.matching_pursuit import MatchingPursuit
from saes.training import Job, TrainConfig, Trainer

D_SAE = 256
PREFIXES = [32, 64, 128, 256]
Settings = dict[str, Any]

# Ours: a line a method. The class, the constructor's arguments, the settings, and the penalties made of them.
Penalties = Callable[[Settings], tuple | None]
OURS: dict[str, tuple[str, Settings, Settings, Penalties]] = {
    "topk": ("TopK", {}, {}, lambda _: None),
    "topk-matryoshka": ("TopK", {"prefixes": PREFIXES}, {}, lambda _: None),
    "batchtopk": ("BatchTopK", {}, {}, lambda _: None),
    "matryoshka": ("BatchTopK", {"prefixes": PREFIXES}, {}, lambda _: None),
    "jumprelu": ("JumpReLU", {}, {"target": True}, lambda _: None),
    # The second part of the run: the first trains the BatchTopK whose decoder it begins with.
    "matchingpursuit": ("MatchingPursuit", {}, {"lr": 3e-3, "begins": 0.6, "target": True}, lambda _: None),
}

_RECIPE = {"lr": 1e-2, "warmup": 0.02, "decay": 0.8, "window": 20_000, "normalise": False}
_SAELENS = {**_RECIPE, "beta2": 0.999}
_SAELENS_JUMP = {"mode": "step", "penalty": 0.3, "threshold": 0.1, "bandwidth": 0.05, "pre_act": None}
_DL = {**_RECIPE, "aux": 1 / 32}
_DL_SHARED = {**_DL, "threshold_beta": 0.99}  # A run is a hundredth of those that 0.999 is meant for.
_SPARSIFY = {"lr": 1e-2, "warmup": 0.02, "window": 20_000}
PEERS: dict[str, dict[str, Settings]] = {
    "saelens": {
        "topk": {**_SAELENS, "aux": 1.0},
        "batchtopk": {**_SAELENS, "aux": 1.0},
        "matryoshka": {**_SAELENS, "aux": 1.0, "prefixes": PREFIXES},
        "jumprelu": {**_SAELENS, **_SAELENS_JUMP},
    },
    "dictionary_learning": {
        "topk": _DL_SHARED,
        "batchtopk": _DL_SHARED,
        "matryoshka": {**_DL_SHARED, "prefixes": PREFIXES},
        "jumprelu": {**_RECIPE, "penalty": 1.0, "bandwidth": 0.001},
    },
    "sparsify": {"topk": {**_SPARSIFY, "aux": 1 / 32}, "topk-signum": _SPARSIFY},
}


def made(method: str, k: int, seed: int, settings: Settings) -> Job:
    """A job of a method of ours."""
    name, arguments, _, penalties = OURS.get(method, (method, {}, {}, lambda _: None))
    (sae_class,) = [found for known, found in methods().items() if known.lower() == name.lower()]
    if "k" in inspect.signature(sae_class).parameters:
        arguments = {**arguments, "k": k}
    sae = sae_class(d_in=64, d_sae=D_SAE, seed=seed, **arguments)
    target = float(k) if settings.get("target") else None
    return Job(sae, lr=settings["lr"], penalties=penalties(settings), target_l0=target)


def ours(method: str, ground: Ground, k: int, settings: Settings, *, told: bool = False) -> Directions:
    """Train a method of ours; `told` the true dictionary, it learns but the encoder."""
    if "begins" in settings:
        return _pursuit(ground, k, settings)
    job = made(method, k, ground.seed, settings)
    config = TrainConfig(tokens=SAMPLES, batch_size=BATCH, seed=ground.seed)
    trainer = Trainer([job], config, ground.rows, progress=False)
    if not told:
        return trainer.run()[0]
    hold(job.sae, ground)
    with torch.no_grad():
        job.sae.W_enc.copy_(ground.world.features.T)
    for _, batch in zip(range(config.steps), ground.rows.batches(BATCH, seed=ground.seed), strict=False):
        trainer.step(batch, log=False)
        hold(job.sae, ground)
    ((_, trained),) = trainer.export()
    return trained


def _pursuit(ground: Ground, k: int, settings: Settings) -> Directions:
    """Matching pursuit that begins with the decoder of a BatchTopK: both together see every row once."""
    first = int(SAMPLES * settings["begins"])
    values = ground.rows.span(0, SAMPLES).values
    parts = [MemoryStore.from_values(part, site=ground.rows.site) for part in (values[:first], values[first:])]
    config = TrainConfig(tokens=first, batch_size=BATCH, seed=ground.seed)
    begun = Trainer([made("batchtopk", k, ground.seed, recipe("ours", "batchtopk"))], config, parts[0], progress=False)
    pursuit = MatchingPursuit.of(begun.run()[0], parts[1], k=2 * k, tolerance=0.02)
    job = Job(pursuit, lr=settings["lr"], target_l0=float(k))
    config = TrainConfig(tokens=SAMPLES - first, batch_size=BATCH, seed=ground.seed)
    return Trainer([job], config, parts[1], progress=False).run()[0]


@torch.no_grad()
def hold(sae: SAE, ground: Ground) -> None:
    """The true dictionary as the decoder."""
    sae.W_dec.copy_(ground.world.features)


def peer(
    who: str, python: str, rows: Path, method: str, ground: Ground, k: int, settings: Settings, threads: int
) -> Linear:
    """Train a peer's, in its own environment."""
    out = rows.with_suffix(".npz")
    numbers = {"d-in": ground.world.d_in, "d-sae": D_SAE, "batch": BATCH, "k": k, "seed": ground.seed}
    options = [part for name, value in {**numbers, "threads": threads}.items() for part in ("--" + name, str(value))]
    runner = Path(__file__).parent / "peers" / f"{who}_quality.py"
    files = ["--rows", str(rows), "--settings", json.dumps(settings), "--out", str(out)]
    found = subprocess.run([python, str(runner), method, *options, *files], capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(f"{who} {method} {settings} ended: {found.stderr[-3000:]}")
    return Linear.read(out)


def recipe(who: str, method: str) -> Settings:
    """The settings of a side's method where nothing else is asked for."""
    if who in PEERS:
        return PEERS[who][method]
    if who == "oracle":
        return {}
    return {"lr": 1e-2, **OURS.get(method, ("", {}, {}, None))[2]}


def runs(asked: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Settings]]:
    """Keys of the runs asked for, those of one world and seed together, each with its settings."""
    known = quality_table.read(asked.out)
    values = dict(asked.set)
    for world, seed, who in itertools.product(asked.worlds, asked.seeds, asked.who):
        for method in asked.methods or sides(who):
            if who in PEERS and method not in PEERS[who]:
                continue
            usual = recipe(who, method)
            if asked.tuned:
                usual = quality_table.tuned(known, who, method) or usual
            names = [name for name in values if name in usual]
            for chosen in itertools.product(*(values[name] for name in names)):
                key = {"who": who, "method": method, "world": world, "seed": seed, "k": asked.k}
                yield key, {**usual, **dict(zip(names, chosen, strict=True))}


def sides(who: str) -> list[str]:
    """The methods of a side."""
    if who == "oracle":
        return list(quality_oracles.ENCODERS)
    return list(PEERS.get(who, OURS))


def train(who: str, method: str, k: int, settings: Settings, ground: Ground, rows: Path, asked: Any) -> Directions:
    """A dictionary of a side."""
    match who:
        case "ours" | "truth":
            return ours(method, ground, k, settings, told=who == "truth")
        case "oracle":
            return quality_oracles.ENCODERS[method](ground, k)
        case _:
            return peer(who, asked.peer[who], rows, method, ground, k, settings, asked.threads)


def run(asked: argparse.Namespace) -> int:
    """Make what is asked for and not there yet; the number of runs that failed."""
    done = {quality_table.key(result) for result in quality_table.read(asked.out)}
    failed = 0
    todo = [one for one in runs(asked) if quality_table.key({**one[0], "settings": one[1]}) not in done]
    for (world, seed), group in itertools.groupby(todo, key=lambda one: (one[0]["world"], one[0]["seed"])):
        ground = Ground.of(world, seed)
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows"
            write = functools.cache(lambda rows=rows, ground=ground: ground.write(rows))
            for key, settings in group:
                if key["who"] in PEERS:
                    write()
                start = time.perf_counter()
                try:
                    found = train(key["who"], key["method"], key["k"], settings, ground, rows, asked)
                except (RuntimeError, FloatingPointError):  # A diverged run, or a peer's: the others go on.
                    traceback.print_exc()
                    failed += 1
                    continue
                seconds = round(time.perf_counter() - start, 1)
                line = json.dumps({**key, "settings": settings, **judge(found, ground, asked.k), "seconds": seconds})
                print(line, flush=True)
                with asked.out.open("a") as file:
                    file.write(line + "\n")
    return failed


def pair(text: str) -> tuple[str, str]:
    """WHO=PYTHON."""
    who, _, python = text.partition("=")
    if who not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"{text!r} is not WHO=PYTHON, with WHO one of {', '.join(PEERS)}")
    return who, python


def setting(text: str) -> tuple[str, list[Any]]:
    """NAME=VALUE,VALUE,..."""
    name, _, values = text.partition("=")
    try:
        return name, [json.loads(one) for one in values.split(",")]
    except json.JSONDecodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE,... of JSON: 0.1, not .1") from None


def main() -> None:
    """Runs, a table, or a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["ours", "truth", "oracle", *PEERS]
    parser.add_argument("--who", nargs="+", choices=known, default=["ours"])
    parser.add_argument("--methods", nargs="+", help="by default all that a side has in its list")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=["base"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--set", nargs="+", type=setting, default=[], metavar="NAME=VALUE,...")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--peer", action="append", type=pair, default=[], metavar="WHO=PYTHON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="RESULTS")
    parser.add_argument("--table", type=Path, metavar="RESULTS")
    parser.add_argument("--figure", type=Path, metavar="PICTURE", help="of the results of --table")
    asked = parser.parse_args()
    if asked.table is not None:
        results = quality_table.read(asked.table)
        print(quality_table.markdown(results))
        if asked.figure is not None:
            quality_table.draw(results, asked.figure)
        return
    asked.peer = dict(asked.peer)
    if asked.out is None:
        parser.error("give --out RESULTS, or --table RESULTS")
    if missing := {who for who in asked.who if who in PEERS} - set(asked.peer):
        parser.error(f"no python for {', '.join(sorted(missing))}: give --peer WHO=PYTHON")
    torch.set_num_threads(asked.threads)
    raise SystemExit(run(asked) > 0)


if __name__ == "__main__":
    main()
