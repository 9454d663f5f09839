"""Whether the defaults of training hold across widths, run lengths and data: each beside factors of itself.

    python benchmarks/scaling.py --world 128 256 1024 --tokens 250000 1000000 4000000 --out RESULTS
    python benchmarks/scaling.py --store TRAIN HELD_OUT --d-sae 1536 6144 --tokens 300000 1200000 --out RESULTS
    python benchmarks/scaling.py --table RESULTS

A cell is a width and a run length; in it the learning rate, the dead window or AuxK's coefficient (`--vary`) is the
default times each of `--factors`, all of them trained on one stream. A world has as many features as the SAE latents,
in a quarter of as many dimensions. Results are appended as they come, and none is made twice.
"""

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch

from interp.models.synthetic import SyntheticWorld
from interp.stores.disk import open_stores
from interp.types import ActivationStore
from saes.batch_topk import BatchTopK
from saes.evaluation import evaluate
from saes.metrics.mmcs import mmcs
from saes.penalties.aux_k import AuxK
from saes.records import default_lr
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

METHODS = {"topk": TopK, "batchtopk": BatchTopK}
HELD_OUT = 16_384
Result = dict[str, Any]


def world(d_sae: int, tokens: int) -> tuple[ActivationStore, ActivationStore, torch.Tensor]:
    """Rows to train on, rows to judge on, and the features that both are made of."""
    found = SyntheticWorld(n_features=d_sae, d_in=d_sae // 4)
    return found.store(tokens), found.store(HELD_OUT, offset=tokens), found.features


def cell(
    method: str, d_sae: int, k: int, config: TrainConfig, vary: str, factors: list[float], store: ActivationStore
) -> list[tuple[float, Any]]:
    """SAEs of one cell, by the factor that each was trained with."""
    rate, jobs = default_lr(d_sae, config.steps), []
    for factor in factors:
        sae = METHODS[method](d_in=store.d_in, d_sae=d_sae, k=k)
        own = {"lr": {"lr": rate * factor}, "aux": {"penalties": (AuxK(0.25 * factor),)}}.get(vary, {})
        jobs.append(Job(sae, name=f"{vary}-{factor}", **own))  # type: ignore[arg-type]
    return list(zip(factors, Trainer(jobs, config, store, progress=False).run(), strict=True))


def run(asked: argparse.Namespace) -> None:
    """Make what is asked for and not there yet."""
    known = {_key(result) for result in read(asked.out)}
    widths = asked.world or asked.d_sae
    for tokens, d_sae in itertools.product(asked.tokens, widths):
        data = "world" if asked.world else "store"
        base = {"data": data, "method": asked.method, "d_sae": d_sae, "tokens": tokens, "vary": asked.vary}
        wanted = [factor for factor in asked.factors if _key({**base, "factor": factor}) not in known]
        if not wanted:
            continue
        start = time.perf_counter()
        if asked.world:
            store, held_out, features = world(d_sae, tokens)
        else:
            (store,), (held_out,) = (open_stores(path).values() for path in asked.store)
            features = None
        usual = TrainConfig(tokens=tokens, batch_size=asked.batch, precision=asked.precision)
        # A window is of the whole run, not of a job: a run a factor.
        runs = [[factor] for factor in wanted] if asked.vary == "window" else [wanted]
        for factors in runs:
            window = int(usual.dead_after * factors[0]) if asked.vary == "window" else None
            config = dataclasses.replace(usual, dead_tokens=window)
            for factor, sae in cell(asked.method, d_sae, asked.k, config, asked.vary, factors, store):
                found = evaluate(sae, held_out, resamples=0).metrics
                result = {**base, "factor": factor, **{name: found[name].value for name in ("fvu", "l0", "dead")}}
                if features is not None:
                    result["mmcs"] = mmcs(features, sae.W_dec)
                line = json.dumps({**result, "seconds": round(time.perf_counter() - start, 1)})
                print(line, flush=True)
                with asked.out.open("a") as file:
                    file.write(line + "\n")


def read(path: Path) -> list[Result]:
    """Results made so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _key(result: Result) -> tuple[Any, ...]:
    return tuple(result[name] for name in ("data", "method", "d_sae", "tokens", "vary", "factor"))


def table(results: list[Result]) -> str:
    """FVU / dead % of each cell, a column a factor."""
    lines = []
    for data, method, vary in dict.fromkeys((r["data"], r["method"], r["vary"]) for r in results):
        of = [r for r in results if (r["data"], r["method"], r["vary"]) == (data, method, vary)]
        factors = sorted({r["factor"] for r in of})
        lines += [f"\n**{data}, {method}, {vary} times**\n", f"| d_sae | rows | {' | '.join(map(str, factors))} |"]
        lines.append("|---" * (2 + len(factors)) + "|")
        for d_sae, tokens in sorted({(r["d_sae"], r["tokens"]) for r in of}):
            own = {r["factor"]: r for r in of if (r["d_sae"], r["tokens"]) == (d_sae, tokens)}
            cells = [f"{own[f]['fvu']:.4f} / {100 * own[f]['dead']:.1f}" if f in own else "" for f in factors]
            lines.append(f"| {d_sae} | {tokens:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs, or a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", nargs="+", type=int, metavar="D_SAE", help="worlds of so many features")
    parser.add_argument("--store", nargs=2, type=Path, metavar=("TRAIN", "HELD_OUT"))
    parser.add_argument("--d-sae", nargs="+", type=int, default=[6144])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1_000_000])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--method", choices=METHODS, default="topk")
    parser.add_argument("--vary", choices=("lr", "window", "aux"), default="lr")
    parser.add_argument("--factors", nargs="+", type=float, default=[0.5, 1.0, 2.0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="of the products that choose the codes")
    parser.add_argument("--out", type=Path, metavar="RESULTS")
    parser.add_argument("--table", type=Path, metavar="RESULTS")
    asked = parser.parse_args()
    if asked.table is not None:
        print(table(read(asked.table)))
        return
    if asked.out is None or not (asked.world or asked.store):
        parser.error("give --out RESULTS and either --world or --store")
    torch.set_num_threads(asked.threads)
    run(asked)


if __name__ == "__main__":
    main()
