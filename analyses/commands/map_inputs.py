"""The examples of `unweave maps`, from what `unweave harvest` takes as a dataset."""

import itertools
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.commands import harvest
from analyses.commands.nearness import meant

if TYPE_CHECKING:
    from torch import Tensor

    from analyses.commands.maps import Arguments
    from interp.harvest_inputs import Ready
    from interp.models.base import Model
    from interp.types import Inputs

_SPLITS = ("train", "held_out", "all")
_TOKENS = 25  # of each text of the documentation that is asked for, so that no more are read
_LONGEST_NAME = 60
_SCENE = 16  # pixels a side that a scene has at least


@dataclass(frozen=True)
class Given:
    """What the model runs on.

    Args:
        inputs: The examples.
        names: What each is called: its file, or how it begins.
        tokens: What each token of each text shows; None for pictures.
        truth: Where the objects of scenes are, as the model sees them; None where nobody knows.
    """

    inputs: "Inputs"
    names: list[str]
    tokens: list[tuple[str, ...]] | None
    truth: "Tensor | None" = None


def read(model: "Model", arguments: "Arguments") -> Given:
    """The first examples of a dataset that can be read.

    Args:
        model: What they are for.
        arguments: Of the command.

    Raises:
        ValueError: If the model takes neither pictures nor texts, there is no such dataset, a picture cannot be read,
            or no example is left.
    """
    from interp.harvest_dataset import Source
    from interp.harvest_inputs import Pictures, Texts, takes_images

    pictures = takes_images(model)
    if not pictures and not hasattr(model, "tokenize"):
        raise ValueError(
            f"model is {model.name}, which takes neither pictures nor texts: map it from Python, analyses.attribute."
        )
    of_scenes = arguments.dataset.partition(":")[0] == "scenes" and not Path(arguments.dataset).exists()
    rows, labels = _scenes(model, arguments) if of_scenes else _rows(arguments, pictures=pictures)
    source = Source(rows, text=arguments.text, labels=labels, whole=False, image=arguments.image if pictures else None)
    longest = min(arguments.max_length, getattr(model, "longest", arguments.max_length))
    reader = Pictures(model, 1, 0) if pictures else Texts(model, longest)
    kept: list[tuple[str, Ready]] = []
    for number, raw in enumerate(source.read(0)):
        (ready,) = reader.prepare([raw])
        if _fits(ready, number, arguments.on_error):
            kept.append((_name(ready, raw.content, number), ready))
        if len(kept) == arguments.limit:
            break
    if not kept:
        raise ValueError(f"dataset is {arguments.dataset!r}, but no example of it can be read: give another.")
    inputs: Any = reader.collate([ready.content for _, ready in kept])
    tokens = None if pictures else [ready.item.pieces for _, ready in kept]
    return Given(inputs, [name for name, _ in kept], tokens, _truth(model, rows) if of_scenes else None)


def _rows(arguments: "Arguments", *, pictures: bool) -> tuple[Any, tuple[str, ...]]:
    """The dataset as a harvest reads it, or one picture; and the columns kept as labels."""
    kind, _ = mimetypes.guess_type(arguments.dataset)
    if pictures and str(kind).startswith("image/") and Path(arguments.dataset).is_file():
        return [{arguments.image: arguments.dataset}], ()
    if str(kind).startswith(("image/", "text/")) and not Path(arguments.dataset).exists():
        raise ValueError(
            f"dataset is {arguments.dataset!r}, but there is no such file: give a picture, a folder of pictures or "
            "a file of texts."
        )
    asked = harvest.Arguments(
        model=arguments.model,
        dataset=arguments.dataset,
        sites=(),
        out=arguments.out,
        split=arguments.split,
        max_tokens=arguments.limit * _TOKENS,
    )
    return harvest.dataset_of(asked, pictures=pictures)


def _scenes(model: Any, arguments: "Arguments") -> tuple[Sequence[Any], tuple[str, ...]]:
    """Scenes of the model's size, or of the smallest that there are; they have no labels that name them."""
    from interp.data.scenes import scenes

    if not hasattr(model, "preprocessing"):
        raise ValueError(f"dataset is {arguments.dataset!r}, but {model.name} takes texts: give a file of them.")
    height, width = (max(side, _SCENE) for side in model.preprocessing.size)
    split: Any = arguments.dataset.partition(":")[2] or arguments.split
    if split not in _SPLITS:
        raise ValueError(f"dataset is {arguments.dataset!r} of split {split!r}: {meant(split, _SPLITS)}")
    drawn = scenes(2 * arguments.limit, seed=0, size=(height, width), split=split)
    # An object at the edge may not be there any more once the model's preprocessing has cut its part out.
    shown = (row for row in drawn if len(row["mask"]) and bool(_mask(model, row).any()))
    return list(itertools.islice(shown, arguments.limit)), ()


def _truth(model: Any, rows: Sequence[Any]) -> "Tensor":
    """The union of each scene's masks, brought to the model's size as its picture is."""
    import torch

    return torch.stack([_mask(model, row) for row in rows])


def _mask(model: Any, row: Any) -> "Tensor":
    whole = row["mask"].any(axis=0).astype("uint8") * 255
    return model.preprocessing.fitted(whole).pixels[..., 0] > 127


def _fits(ready: "Ready", number: int, on_error: str) -> bool:
    if ready.skipped is not None and on_error == "raise":
        file, reason = ready.skipped
        named = f" ({file})" if file else ""
        raise ValueError(
            f"item {number}{named} cannot be read as a picture: {reason}. Mend it, or pass --on-error skip."
        )
    return ready.skipped is None and ready.length > 0


def _name(ready: "Ready", content: Any, number: int) -> str:
    from interp.pictures import name_of

    if isinstance(content, str):
        text = " ".join(content.split())
        return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
    labels = ready.item.labels
    return name_of(content) or labels.get("name") or f"item {number}"
