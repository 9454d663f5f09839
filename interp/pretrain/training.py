"""The one loop that trains the glyph encoders, and the recipes of those that come with the package."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.data.glyphs import Glyphs, glyphs
from interp.durability import write_json, writing_folder
from interp.models.glyph_encoders import Architecture, GlyphEncoder, random_encoder, write_encoder
from interp.pretrain.base import Objective, objectives
from interp.pretrain.judging import diagnosis
from interp.pretrain.views import GlyphViews, seeded
from interp.progress import Progress
from interp.types import JSON

_WEIGHTS, _DRAWS = 0x31, 0x32
_LOGGED = 50  # Steps whose mean loss is one line of the log.


@dataclass(frozen=True)
class Recipe:
    """What an encoder is a function of.

    Args:
        objective: A file of this folder.
        architecture: `resnet` or `vit`.
        steps: Updates.
        batch_size: Code points a step.
        learning_rate: Of AdamW, after the warm-up; it falls to 0 along a cosine.
        weight_decay: Of matrices and kernels; vectors have none.
        warmup: Steps in which the learning rate rises.
        degrees: Largest rotation of a view to either side.
        scale: Largest factor by which a view grows or shrinks.
        shift: Largest shift of a view along each axis, in pixels.
        arguments: The objective's own.
        seed: Names the weights, the views and what the objective draws.
    """

    objective: str = "barlow_twins"
    architecture: Architecture = "resnet"
    steps: int = 1500
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 100
    degrees: float = 20.0
    scale: float = 1.3
    shift: float = 4.0
    arguments: JSON = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        known = objectives()
        if self.objective not in known:
            raise ValueError(f"objective is {self.objective!r}, but there are {', '.join(known)}: name one.")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but training needs at least 1: give more.")


RECIPES = {
    "glyph-resnet": Recipe(objective="simclr", architecture="resnet", steps=3000),
    # Larger moves than these a ViT of this size does not learn in an hour: see docs/encoders.md.
    "glyph-vit": Recipe(
        objective="simclr",
        architecture="vit",
        steps=2400,
        learning_rate=1e-3,
        warmup=200,
        degrees=5.0,
        scale=1.1,
        shift=1.0,
    ),
}


def start(recipe: Recipe) -> tuple[GlyphEncoder, Objective]:
    """The encoder and the objective of a recipe, before the first step."""
    encoder = random_encoder(recipe.architecture, seed=recipe.seed)
    with torch.random.fork_rng(devices=[]):  # torch.nn draws weights from the global generator.
        torch.manual_seed(seeded(recipe.seed, _WEIGHTS).initial_seed())
        return encoder, objectives()[recipe.objective](encoder, **recipe.arguments)


def pretrain(recipe: Recipe, out: Path | str, *, images: Glyphs | None = None, progress: bool = True) -> GlyphEncoder:
    """Train an encoder and write it: a Hugging Face folder in float16, with `pretraining.json`: the recipe,
    the losses, and RankMe and cross-correlation on held-out glyphs before and after.

    Nothing is written before the end, and the folder appears whole or not at all.

    Args:
        recipe: What to do.
        out: Folder to make.
        images: Glyphs to train on; those of the training split by default.
        progress: Show a bar where someone watches.

    Returns:
        The encoder, in eval mode.

    Raises:
        ValueError: If `out` is there already.
        FloatingPointError: If the loss is not finite.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"out is {out}, but that is there already: choose another folder or remove it.")
    ranges: dict[str, Any] = {
        "degrees": recipe.degrees,
        "scale": recipe.scale,
        "shift": recipe.shift,
        "seed": recipe.seed,
    }
    views = GlyphViews(glyphs("train") if images is None else images, **ranges)
    held_out = GlyphViews(glyphs("held_out"), **ranges)
    encoder, objective = start(recipe)
    before = diagnosis(encoder, objective, held_out)
    losses = train(encoder, objective, views, recipe, progress=progress)
    after = diagnosis(encoder, objective, held_out)
    with writing_folder(out) as folder:
        write_encoder(encoder, folder)
        found = {"recipe": asdict(recipe), "losses": losses, "before": before, "after": after}
        write_json(folder / "pretraining.json", found)
    return encoder


def train(
    encoder: GlyphEncoder, objective: Objective, views: GlyphViews, recipe: Recipe, *, progress: bool = False
) -> list[float]:
    """Update encoder and objective in place.

    Returns:
        The mean loss of each 50 steps.
    """
    optimizer = _optimizer(encoder, objective, recipe)
    encoder.train()
    objective.train()
    losses = []
    with Progress(f"pretraining with {recipe.objective}", total=recipe.steps, unit="step", shown=progress) as bar:
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, recipe)
            batch = views.batch(step, recipe.batch_size, objective.views)
            loss = objective.loss(encoder, batch, seeded(recipe.seed, _DRAWS, step))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}: lower learning_rate.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            bar.update(1)
    return [round(_mean(losses[i : i + _LOGGED]), 4) for i in range(0, len(losses), _LOGGED)]


def _optimizer(encoder: nn.Module, objective: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [p for module in (encoder, objective) for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _schedule(step: int, recipe: Recipe) -> float:
    """Factor of the learning rate: a line up to 1, then half a cosine down to 0."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
