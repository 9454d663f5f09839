"""Maps and segmentation on glyph scenes, whose objects have exact masks; writes a line of JSON for each figure.

    python benchmarks/scenes.py maps glyph-resnet --table benchmarks/results/scenes.jsonl
    python benchmarks/scenes.py segments --table ...
    python benchmarks/scenes.py latents --table ...
    python benchmarks/scenes_table.py benchmarks/results/scenes.jsonl > docs/maps.md

Scenes have 64 x 64 pixels, glyphs that no encoder has seen, and a textured ground. Scores: `class`, a linear probe on
the embedding for a glyph against the same ground without one; `similarity`, the cosine to the first of two glyphs alone
on black; `principal`, the first principal axis of embeddings; `InfoNCE`, the loss of telling an example's view from
those of others. Intervals are over the scenes of all seeds.
"""

import argparse
import itertools
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.attributing import NoGradient
from analyses.attribution.occlusion import Occlusion
from analyses.attribution.rise import RISE
from analyses.attribution.smooth_grad import SmoothGrad
from analyses.embeddings import embedding_of
from analyses.faithfulness.localisation_iou import LocalisationIoU
from analyses.faithfulness.parameter_randomisation import ParameterRandomisation
from analyses.faithfulness.pointing_game import PointingGame
from analyses.judging import Judgement, judge, mean
from analyses.methods import Method
from analyses.scores.base import Pass, Score
from analyses.scores.info_nce import InfoNCE
from analyses.scores.projection import Projection
from analyses.scores.similarity import Similarity
from interp import load_model
from interp.data.scenes import scenes
from interp.models.vision import VisionModel
from interp.types import Inputs

SEEDS, SIZE = (0, 1, 2), 64
SITES = {"glyph-resnet": ("stages.0", "stages.1"), "glyph-vit": ("blocks.0", "blocks.2")}
LOCAL = ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM", "ElementwiseCAM", "EigenCAM"]
LOCAL += ["EigenGradCAM", "NormGrad"]
RUNNING = ["AblationCAM", "ScoreCAM"]
AT_PIXELS: list[str | Method] = ["Gradient", "InputXGradient", SmoothGrad(samples=10)]
AT_PIXELS += ["IntegratedGradients"]
AT_PIXELS += [Occlusion(window=8, stride=4), RISE(masks=100)]
OWN: dict[str, list[str | Method]] = {
    "glyph-resnet": ["LRP"],
    "glyph-vit": ["AttnLRP"],
}
_HITS = "PointingGame"
# CAM exists only before average pooling.
AVERAGED = {"glyph-resnet": "stages.1"}
JUDGES = (PointingGame(), LocalisationIoU())


def encoder(name: str, **options: Any) -> VisionModel:
    """A packaged encoder that is given scenes as they are."""
    model = load_model(name, **options)
    model.preprocessing = replace(model.preprocessing, size=(SIZE, SIZE), resize=(SIZE, SIZE))
    return model


def drawn(n: int, seed: int, objects: int, split: str = "held_out", **options: Any) -> list[dict[str, Any]]:
    """Scenes of just so many objects."""
    rows = scenes(2 * n + 50, seed=seed, split=split, size=SIZE, objects=(objects, objects), **options)
    return list(itertools.islice((row for row in rows if len(row["mask"]) == objects), n))


def given(model: VisionModel, rows: list[dict[str, Any]]) -> Inputs:
    return model.collate([row["image"] for row in rows])


def probe(model: VisionModel, seed: int) -> tuple[Float[Tensor, " d"], float]:
    """The direction that tells a glyph from its ground alone, by ridge, and its accuracy on held-out glyphs."""
    parts = []
    for split, n in (("train", 600), ("held_out", 200)):
        both = [
            embedding_of(model, given(model, list(scenes(n, seed=100 + seed, split=split, objects=(k, k)))))
            for k in (1, 0)
        ]
        parts.append((torch.cat(both).double(), torch.cat([torch.ones(n), -torch.ones(n)]).double()))
    (x, y), (held, truth) = parts
    middle, spread = x.mean(0), x.std(0) + 1e-6
    z = (x - middle) / spread
    weights = torch.linalg.solve(z.T @ z + 10 * torch.eye(z.shape[1], dtype=z.dtype), z.T @ y) / spread
    accuracy = float((((held - middle) @ weights > 0) == (truth > 0)).double().mean())
    return weights.float(), accuracy


@dataclass(frozen=True, eq=False)
class _Size(Projection):
    """How far an example lies along an axis, whose sign is arbitrary."""

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        return super().__call__(run).abs()


@dataclass(frozen=True, eq=False)
class _Told(InfoNCE):
    """How well a view is told from others: minus the loss."""

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        return -super().__call__(run)


def asked(model: VisionModel, n: int, seed: int) -> Iterator[tuple[str, Score, Inputs, Bool[Tensor, "b h w"], float]]:
    """Each score with its scenes and where its object is; and how well the probe tells its class."""
    rows = drawn(n, seed, 1)
    inputs, truth = given(model, rows), torch.stack([torch.from_numpy(row["mask"][0] > 0) for row in rows])
    direction, accuracy = probe(model, seed)
    yield "class", Projection(direction), inputs, truth, accuracy
    embeddings = embedding_of(model, given(model, drawn(400, 200 + seed, 1, "train")))
    axis = torch.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False).Vh[0]
    yield "principal", _Size(axis, embeddings.mean(0)), inputs, truth, 0.0
    other = [np.roll(row["image"], (2, 3), (0, 1)) for row in rows]
    views = embedding_of(model, model.collate(other))
    yield "InfoNCE", _Told(views, embedding_of(model, inputs)), inputs, truth, 0.0
    pairs = drawn(n, 50 + seed, 2)
    alone = embedding_of(model, model.collate([row["image"] * row["mask"][0] for row in pairs]))
    truth = torch.stack([torch.from_numpy(row["mask"][0] > 0) for row in pairs])
    yield "similarity", Similarity(alone), given(model, pairs), truth, 0.0


def maps(name: str, n: int, few: int) -> Iterator[dict[str, Any]]:
    """Every method at every site for every score, judged on the scenes of all seeds."""
    model = encoder(name)
    found: dict[tuple[str, str, str], list[Judgement]] = {}
    told: dict[str, list[float]] = {}
    for seed in SEEDS:
        for score_name, score, inputs, truth, accuracy in asked(model, n, seed):
            told.setdefault(score_name, []).append(accuracy)
            cut = Inputs({key: value[:few] for key, value in inputs.tensors.items()})
            runs: list[tuple[Any, Any, Inputs, Any]] = [(LOCAL, SITES[name], inputs, truth)]
            if name in AVERAGED:
                runs.append((["CAM"], AVERAGED[name], inputs, truth))
            at_pixels = ["FullGrad", *AT_PIXELS, *OWN[name]] if score_name in ("class", "similarity") else ["FullGrad"]
            runs += [(RUNNING, SITES[name], cut, truth[:few]), (at_pixels, "input", cut, truth[:few])]
            for methods, sites, these, where in runs:
                short = _first(score, few) if len(these) == few and len(inputs) != few else score
                judges = (*JUDGES, ParameterRandomisation(draws=1, seed=seed))  # weights of their own for each seed
                judged = judge(methods, model, these, sites, score=short, truth=where, judges=judges, batch_size=64)
                for site, method in judged.values:
                    found.setdefault((score_name, site, method), []).append(judged)
            print(name, seed, score_name, flush=True)
    for (score_name, site, method), parts in found.items():
        for place, title in enumerate(parts[0].judges):
            values = torch.cat([list(part.values[site, method].values())[place] for part in parts])
            line = {"kind": "maps", "encoder": name, "score": score_name, "site": site, "method": method}
            line["judge"] = title.partition("(")[0]
            yield line | _mean(values) | {"accuracy": sum(told[score_name]) / len(SEEDS)}
        if method == "NormGrad":
            other = found[score_name, site, "GradCAM"]
            pairs = zip(parts, other, strict=True)
            values = torch.cat([a.values[site, method][_HITS] - b.values[site, "GradCAM"][_HITS] for a, b in pairs])
            line = {"kind": "difference", "encoder": name, "score": score_name, "site": site}
            yield line | {"method": "NormGrad less GradCAM", "judge": _HITS, **_mean(values)}


def _first(score: Any, few: int) -> Any:
    """A score of the first examples alone."""
    if isinstance(score, InfoNCE):
        return replace(score, views=score.views[:few], embeddings=score.embeddings[:few])  # told from each other
    return replace(score, reference=score.reference[:few]) if isinstance(score, Similarity) else score


def _mean(values: Float[Tensor, " b"]) -> dict[str, Any]:
    interval = mean(values)
    return {"mean": interval.value, "low": interval.low, "high": interval.high, "n": len(values)}


def main() -> None:
    warnings.simplefilter("ignore", NoGradient)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("maps", "segments", "latents"))
    parser.add_argument("encoders", nargs="*", default=list(SITES))
    parser.add_argument("--n", type=int, default=48, help="scenes a seed")
    parser.add_argument("--few", type=int, default=12, help="scenes a seed for methods that run the model often")
    parser.add_argument("--table", type=Path, help="file that lines are appended to")
    options = parser.parse_args()
    for name in options.encoders:
        if options.what == "maps":
            lines = maps(name, options.n, options.few)
        else:
            from scenes_objects import latents, segments

            lines = segments(name, options.n) if options.what == "segments" else latents(name, options.n)
        for line in lines:
            print(json.dumps(line), flush=True)
            if options.table:
                with options.table.open("a") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
