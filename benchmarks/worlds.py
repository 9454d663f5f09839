"""Three worlds in which a method should beat another, each trained from scratch over seeds; prints a table a world.

    python benchmarks/worlds.py gradient zipf absorption --seeds 0 1 2

`gradient`: 64 loud features of norm 2 that a readout ignores and quiet ones of norm 1 that it reads, orthogonal in 80
dimensions, one latent a row: what the readout loses, over its variance. `zipf`: 256 features in 64 dimensions of which
the r-th fires in proportion to r ** -1.2; dead on 16,384 held-out rows, and MMCS. `absorption`: 16 parents with
children that fire only where they do; rate and fraction are means over the parents of the world.
Intervals are Student's t over seeds; differences are paired.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from jaxtyping import Float
from quality import PREFIXES
from quality_table import interval
from quality_worlds import BATCH, HELD_OUT, SAMPLES, WORLDS
from torch import Tensor

from interp.models.synthetic import SyntheticWorld
from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.evaluation import evaluate
from saes.feature_choice import FeatureChoice
from saes.gradient import GradientTopK
from saes.metrics.absorption import absorption
from saes.metrics.mmcs import mmcs
from saes.mutual_choice import MutualChoice
from saes.penalties.aux_zipf import AuxZipf
from saes.probes.linear import fit_linear
from saes.probes.samples import gather
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

Found = dict[str, dict[str, float]]  # Numbers by name, by method.
K, D_SAE, LR = 5, 256, 1e-2


def trained(sae: SAE, store: MemoryStore, seed: int, penalties: tuple | None = None) -> SAE:
    """One pass over a store."""
    config = TrainConfig(tokens=len(store), batch_size=BATCH, seed=seed)
    return Trainer([Job(sae, lr=LR, penalties=penalties)], config, store, progress=False).run()[0]


def gradient(quiet: int, seed: int, n: int = 300_000) -> Found:
    """What TopK and g-SAE lose of a readout: of one quiet feature by its logit, of several by half their squares."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(80, 80, generator=draw))[0][: 64 + quiet]
    often = torch.tensor([1.2 / 64] * 64 + [0.1 if quiet == 1 else 0.04] * quiet)
    fires = torch.rand(n + HELD_OUT, 64 + quiet, generator=draw) < often
    sizes = torch.tensor([2.0] * 64 + [1.0] * quiet)
    codes = fires * (1 + 0.25 * torch.randn(fires.shape, generator=draw)).abs() * sizes
    x = codes @ directions + 0.02 * torch.randn(len(codes), 80, generator=draw)
    readout = directions[64:]
    grads = readout.expand_as(x).contiguous() if quiet == 1 else (x @ readout.T) @ readout
    index = torch.arange(n)
    store = MemoryStore(Activations(x[:n], index, torch.zeros_like(index), grads[:n]))
    return {
        method.__name__: _lost(
            trained(method(d_in=80, d_sae=128, k=1, seed=seed), store, seed), x[n:], grads[n:], readout
        )
        for method in (TopK, GradientTopK)
    }


@torch.no_grad()
def _lost(
    sae: SAE, x: Float[Tensor, "n d"], grads: Float[Tensor, "n d"], readout: Float[Tensor, "q d"]
) -> dict[str, float]:
    error = x - sae.decode(sae.encode(x, grads) if isinstance(sae, GradientTopK) else sae.encode(x))
    spread = (x @ readout.T).var(dim=0).sum()
    lost = (error @ readout.T).square().sum(1).mean() / spread
    return {"readout lost": float(lost), "FVU": float(error.square().sum() / (x - x.mean(0)).square().sum())}


def zipf(seed: int) -> Found:
    """Dead features and similarity in a world of Zipf 1.2."""
    world = SyntheticWorld(zipf=1.2, seed=seed)
    rows, held = world.store(SAMPLES), world.store(HELD_OUT, offset=SAMPLES)
    shape = {"d_in": world.d_in, "d_sae": D_SAE, "k": K, "seed": seed}
    makers: dict[str, tuple[Callable[..., SAE], tuple | None]] = {
        "TopK without AuxK": (TopK, ()),
        "TopK": (TopK, None),
        "TopK with AuxZipf": (TopK, (AuxZipf(),)),
        "BatchTopK": (BatchTopK, None),
        "MutualChoice": (MutualChoice, None),
        "FeatureChoice, alike": (FeatureChoice, None),
        "FeatureChoice, Zipf 1": (lambda **of: FeatureChoice(zipf=1.0, **of), None),
    }
    fired = world.sample(HELD_OUT, offset=SAMPLES)[1].fired() > 0
    found = {"the true features": {"dead %": 100 * float((~fired).float().mean())}}
    for name, (maker, penalties) in makers.items():
        sae = trained(maker(**shape), rows, seed, penalties)
        of = evaluate(sae, held, resamples=0)
        similarity = float(mmcs(world.features, sae.W_dec.detach()))
        found[name] = {
            "dead %": 100 * of["dead"].value,
            "MMCS": similarity,
            "FVU": of["fvu"].value,
            "L0": of["l0"].value,
        }
    return found


def absorbed(seed: int) -> Found:
    """How far parents are absorbed by their children."""
    world = SyntheticWorld(**WORLDS["hierarchical"], seed=seed)
    rows, held = world.store(SAMPLES), world.store(HELD_OUT, offset=SAMPLES)
    fires = world.sample(HELD_OUT, offset=SAMPLES)[1].dense() != 0
    samples = [gather(held, fires[:, parent].long()).versus_rest("1") for parent in world.children_of]
    told = [(sample, fit_linear(sample, penalties=[1e-3])) for sample in samples]
    found = {}
    for method in (TopK, BatchTopK):
        for prefixes in (None, PREFIXES):
            sae = trained(method(d_in=world.d_in, d_sae=D_SAE, k=K, seed=seed, prefixes=prefixes), rows, seed)
            of = [absorption(sae, sample, probe, resamples=0) for sample, probe in told]
            found[f"Matryoshka {method.__name__}" if prefixes else method.__name__] = {
                "rate": statistics.fmean(one.rate.value for one in of),
                "fraction": statistics.fmean(one.fraction.value for one in of),
                "MMCS": float(mmcs(world.features, sae.W_dec.detach())),
            }
    return found


def table(title: str, runs: list[Found], against: dict[str, str]) -> str:
    """Means over seeds, and the paired differences of some methods from others."""
    columns = list(dict.fromkeys(name for of in runs[0].values() for name in of))
    lines = [f"**{title}**", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]

    def row(label: str, values: dict[str, list[float]]) -> None:
        lines.append(f"| {label} | {' | '.join(_text(values[name]) if name in values else '' for name in columns)} |")

    for method, first in runs[0].items():
        row(method, {name: [run[method][name] for run in runs] for name in first})
    for method, other in against.items():
        row(
            f"{method} less {other}",
            {name: [run[method][name] - run[other][name] for run in runs] for name in runs[0][method]},
        )
    return "\n".join(lines)


def _text(values: list[float]) -> str:
    found = interval(values)
    return f"{found.value:.3f}" + ("" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]")


def main() -> None:
    """Tables of the worlds asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", nargs="*", default=[], metavar="{gradient,zipf,absorption}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    worlds = asked.worlds or ["gradient", "zipf", "absorption"]
    if unknown := set(worlds) - {"gradient", "zipf", "absorption"}:
        parser.error(f"no world {', '.join(sorted(unknown))}: give gradient, zipf or absorption")
    torch.set_num_threads(1)
    pairs: list[tuple[str, str, Callable[[int], Found], dict[str, str]]] = [
        ("gradient", "one quiet feature", lambda seed: gradient(1, seed), {"GradientTopK": "TopK"}),
        ("gradient", "four quiet features", lambda seed: gradient(4, seed), {"GradientTopK": "TopK"}),
        (
            "zipf",
            "Zipf 1.2",
            zipf,
            {"TopK with AuxZipf": "TopK", "MutualChoice": "BatchTopK", "FeatureChoice, Zipf 1": "TopK"},
        ),
        ("absorption", "hierarchical", absorbed, {f"Matryoshka {name}": name for name in ("TopK", "BatchTopK")}),
    ]
    for world, title, run, against in pairs:
        if world in worlds:
            print(table(title, [run(seed) for seed in asked.seeds], against), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
