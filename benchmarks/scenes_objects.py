"""Objects without labels, and maps of dictionary features whose meaning is known, on glyph scenes; see scenes.py."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from scenes import JUDGES, SEEDS, _mean, drawn, encoder, given
from torch import Tensor
from torch.nn import functional

from analyses.discovering import described
from analyses.faithfulness.parameter_randomisation import ParameterRandomisation
from analyses.judging import Judgement, judge
from analyses.scores.latent import Latent
from analyses.segmentation.attention_maps import AttentionMaps
from analyses.segmentation.lost import LOST
from analyses.segmentation.token_clusters import TokenClusters
from analyses.segmentation.token_cut import TokenCut
from analyses.segmenting import segment
from interp.harvesting import harvest
from interp.models.vision import VisionModel
from interp.types import Inputs
from saes.topk import TopK
from saes.training import TrainConfig, train

_TAUS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8)
_READ = {
    "glyph-resnet": ("stages.0", "stages.1"),
    "glyph-vit": ("embed", "blocks.0.attn.q", "blocks.0.attn.k", "blocks.1.attn.v", "blocks.2", "blocks.3.attn.k"),
}
_OF_LATENTS = {"glyph-resnet": ("stages.0", "embed"), "glyph-vit": ("blocks.2", "blocks.0")}
_LABEL, _FEATURES = "block", 9


def segments(name: str, n: int) -> Iterator[dict[str, Any]]:
    """Overlap with the exact mask: methods with their defaults, TokenCut tuned on other scenes, and trivial answers."""
    model = encoder(name, **({"attention": "eager"} if name == "glyph-vit" else {}))
    tuning = drawn(n, 90, 1, "train")
    best = max(
        ((site, TokenCut(tau=tau, center=center)) for site in _READ[name] for tau in _TAUS for center in (False, True)),
        key=lambda choice: float(_overlaps(model, tuning, *choice).mean()),
    )
    late = _READ[name][-1]
    other = replace(best[1], center=not best[1].center)
    asked = [(late, TokenCut()), (late, TokenCut(center=True)), best, (best[0], other), (best[0], TokenCut())]
    asked += [(late, LOST()), (best[0], LOST()), (late, TokenClusters(2))]
    if name == "glyph-vit":
        asked.append(("blocks.3.attn.hook_pattern", AttentionMaps()))
    rows = [drawn(n, seed, 1) for seed in SEEDS]
    for site, method in asked:
        values = torch.cat([_overlaps(model, part, site, method) for part in rows])
        tuned = " (tuned on other scenes)" if (site, method) == best else ""
        yield _line(name, site, described(method, ()) + tuned, values)
    grid = model.geometry(model.site(best[0]), given(model, rows[0][:1])).grid
    for title, answer in _TRIVIAL.items():
        yield _line(name, "-", title, torch.cat([_iou(answer(part, grid), _truth(part)) for part in rows]))


def _overlaps(model: VisionModel, rows: list[dict[str, Any]], site: str, method: Any) -> Float[Tensor, " b"]:
    """Of clusters the one that is smallest but not empty: an object is smaller than its ground."""
    masks = segment(model, given(model, rows), site, method=method).upsampled().masks
    sizes = masks.flatten(2).sum(dim=2)
    smallest = torch.where(sizes > 0, sizes, sizes.amax() + 1).argmin(dim=1)
    return _iou(masks[torch.arange(len(masks)), smallest], _truth(rows))


def _truth(rows: list[dict[str, Any]]) -> Bool[Tensor, "b h w"]:
    return torch.stack([torch.from_numpy(row["mask"][0] > 0) for row in rows])


def _iou(masks: Bool[Tensor, "b h w"], truth: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    both, either = (masks & truth).flatten(1).sum(dim=1), (masks | truth).flatten(1).sum(dim=1)
    return both.double() / either


def _bright(rows: list[dict[str, Any]], grid: tuple[int, ...]) -> Bool[Tensor, "b h w"]:
    pixels = torch.stack([torch.from_numpy(row["image"].copy()) for row in rows])
    return _patches(pixels > 140, grid)


def _patches(pixels: Bool[Tensor, "b h w"], grid: tuple[int, ...]) -> Bool[Tensor, "b h w"]:
    """Whole patches of those that hold a pixel."""
    side = pixels.shape[-1] // grid[-1]
    cells = pixels.unflatten(2, (-1, side)).unflatten(1, (-1, side)).any(dim=4).any(dim=2)
    return cells.repeat_interleave(side, 1).repeat_interleave(side, 2)


def _centre(rows: list[dict[str, Any]], grid: tuple[int, ...]) -> Bool[Tensor, "b h w"]:
    truth = torch.zeros_like(_truth(rows))
    quarter = truth.shape[-1] // 4
    truth[:, quarter:-quarter, quarter:-quarter] = True
    return truth


_TRIVIAL = {
    "all patches with ink": lambda rows, grid: _patches(_truth(rows), grid),
    "all patches with a bright pixel": _bright,
    "centre square": _centre,
    "everything": lambda rows, grid: torch.ones_like(_truth(rows)),
}


def _line(name: str, site: str, method: str, values: Tensor) -> dict[str, Any]:
    return {"kind": "segments", "encoder": name, "site": site, "method": method, "judge": "IoU", **_mean(values)}


def latents(name: str, n: int) -> Iterator[dict[str, Any]]:
    """Maps of features that fire for one block of code points, in scenes of such a glyph beside two others."""
    model, (site, before) = encoder(name), _OF_LATENTS[name]
    rows = drawn(1500, 300, 3, "train", label=_LABEL)
    (store,) = harvest(model, [{"image": row["image"]} for row in rows], site, dtype="float32").values()
    sae = TopK(d_in=store.d_in, d_sae=8 * store.d_in, k=8)
    (sae,) = train(sae, store, TrainConfig(tokens=1_000_000, batch_size=2048, seed=0), progress=False)
    meant = _meanings(model, site, sae, rows)
    found: dict[tuple[str, str], list[Judgement]] = {}
    for seed in SEEDS:
        judges = (*JUDGES, ParameterRandomisation(draws=1, seed=seed))
        inputs, truth, features = _shown(model, meant, n, seed)
        score = Latent(sae, features, over="max", site=site, linear=True)
        for methods, where in (
            (["HiResCAM", "GradCAM", "NormGrad", "LayerCAM"], before),
            (["InputXGradient", "IntegratedGradients"], "input"),
        ):
            judged = judge(methods, model, inputs, where, score=score, truth=truth, judges=judges, batch_size=64)
            for _, method in judged.values:
                found.setdefault((where, method), []).append(judged)
        heat = judge(
            {"the feature's own codes": _heat(sae, site, features)},
            model,
            inputs,
            site,
            score=score,
            truth=truth,
            judges=JUDGES[:2],
        )
        found.setdefault((site, "the feature's own codes"), []).append(heat)
    for (where, method), parts in found.items():
        for place, title in enumerate(parts[0].judges):
            own = [part.values[next(key for key in part.values if key[1] == method)] for part in parts]
            values = torch.cat([list(one.values())[place] for one in own])
            line = {"kind": "latents", "encoder": name, "site": where, "method": method}
            line["judge"] = title.partition("(")[0]
            yield line | {**_mean(values), "auc": [f"{label} {auc:.2f}" for _, label, auc in meant]}


def _heat(sae: TopK, site: str, features: Tensor) -> Any:
    """What the dictionary page shows: the code of the feature at each position."""
    from interp.capturing import capture

    def maps(model: VisionModel, inputs: Inputs, score: Any) -> Float[Tensor, "b h w"]:
        rows = capture(model, inputs, site).vectors(site)[:, model.geometry(model.site(site), inputs).prefix :]
        codes = torch.stack([sae.encode(row).columns(features[i : i + 1])[:, 0] for i, row in enumerate(rows)])
        return codes.detach().unflatten(1, model.geometry(model.site(site), inputs).grid)

    return maps


def _meanings(model: VisionModel, site: str, sae: TopK, rows: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    """The feature whose code in patches of an object tells a label from all others best: feature, label, AUC."""
    codes, labels = [], []
    for start in range(0, len(rows), 100):
        part = rows[start : start + 100]
        inside = _inside(model, site, sae, part)
        codes.append(inside)
        labels += [label for row in part for label in row["labels"]]
    table = torch.cat(codes)
    counts = {label: labels.count(label) for label in set(labels)}
    best = []
    for label in sorted(label for label, count in counts.items() if count >= 40):
        auc = _auc(table, torch.tensor([own == label for own in labels]))
        best.append((int(auc.argmax()), label, float(auc.max())))
    return sorted(best, key=lambda one: -one[2])[:_FEATURES]


def _inside(model: VisionModel, site: str, sae: TopK, rows: list[dict[str, Any]]) -> Float[Tensor, "o d_sae"]:
    """The largest code of each feature over the patches that hold ink of each object."""
    from interp.capturing import capture

    inputs = given(model, rows)
    geometry = model.geometry(model.site(site), inputs)
    vectors = capture(model, inputs, site).vectors(site)[:, geometry.prefix :]
    side, before = geometry.stride[0], -min((geometry.start or (0, 0))[0], 0)
    found = []
    for row, own in zip(rows, vectors, strict=True):
        codes = sae.encode(own).dense().detach()
        mask = functional.pad(torch.from_numpy(row["mask"] > 0).float(), (before, 0, before, 0))
        ink = functional.max_pool2d(mask, side, ceil_mode=True)[:, : geometry.grid[0], : geometry.grid[1]] > 0
        found += [codes[one.flatten()].amax(dim=0) for one in ink]
    return torch.stack(found)


def _auc(table: Float[Tensor, "o d_sae"], member: Bool[Tensor, " o"]) -> Float[Tensor, " d_sae"]:
    """The chance that a member's code is above another's, ties counted half."""
    here, there = table[member], table[~member].sort(dim=0).values.T.contiguous()
    below, upto = (torch.searchsorted(there, here.T.contiguous(), right=right) for right in (False, True))
    return (below + upto).double().mean(dim=1) / 2 / there.shape[1]


def _shown(model: VisionModel, meant: list[tuple[int, str, float]], n: int, seed: int) -> tuple[Inputs, Tensor, Tensor]:
    """Held-out scenes in which one object of three has a feature's label: inputs, its mask, and the feature."""
    pictures, truth, features = [], [], []
    for row in drawn(20 * n, 400 + seed, 3, label=_LABEL):
        for feature, label, _ in meant:
            if len(pictures) < n and row["labels"].count(label) == 1 and features.count(feature) < 4:
                pictures.append(row["image"])
                truth.append(torch.from_numpy(row["mask"][row["labels"].index(label)] > 0))
                features.append(feature)
                break
    return model.collate(pictures), torch.stack(truth), torch.tensor(features)
