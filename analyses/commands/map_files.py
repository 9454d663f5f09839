"""The folder that `unweave maps` writes: raw maps, what they are of, and pictures of them."""

import html
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses.commands.plain import to_plain

if TYPE_CHECKING:
    from analyses.commands.map_inputs import Given
    from analyses.commands.map_scores import Question
    from analyses.commands.maps import Arguments
    from analyses.maps import Maps
    from interp.types import JSON

_PAGE = 8  # examples a picture
_ABOUT = "maps.json"
_NOT_KEPT = ("out", "overwrite", "quiet")


def check(out: Path, *, overwrite: bool) -> None:
    """Keep what is there from being replaced unasked, and what is no folder of maps from being replaced at all.

    Args:
        out: The folder to make.
        overwrite: Whether maps may be replaced.

    Raises:
        ValueError: If it is something else, or maps that are to stay.
    """
    if (out / _ABOUT).is_file():
        if not overwrite:
            raise ValueError(f"--out is {out}, but maps are there already: give another folder, or --overwrite.")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"--out is {out}, which holds something that is no maps: give a new folder, or empty this one."
        )


def write(arguments: "Arguments", model: Any, maps: "Maps", given: "Given", question: "Question", verdict: Any) -> Path:
    """Write the folder, whole or not at all.

    Args:
        arguments: Of the command.
        model: What was explained.
        maps: The maps.
        given: The examples.
        question: The score.
        verdict: What judges said; None where they were not asked.

    Returns:
        The file to look at first.

    Raises:
        OSError: If the disk refuses; a folder that is there is untouched.
    """
    import safetensors.torch

    from interp.durability import write_bytes, write_json, writing_folder

    parts = {f"{site}/{method}": values for (site, method), values in maps.values.items()}
    parts |= {name: part for name, part in (("scores", maps.scores), ("mask", maps.mask)) if part is not None}
    plain = {name: part.detach().cpu().contiguous() for name, part in parts.items()}
    with writing_folder(arguments.out) as folder:
        write_bytes(folder / "maps.safetensors", safetensors.torch.save(plain))
        for name, data in _drawn(maps if arguments.scale == "shared" else _alike(maps), given, arguments.model):
            write_bytes(folder / name, data)
        if verdict is not None:
            write_bytes(folder / "judgement.md", f"{verdict}\n".encode())
        write_json(folder / _ABOUT, _about(arguments, model, maps, given, question))
    return arguments.out / ("maps.png" if given.tokens is None else "maps.html")


def _alike(maps: "Maps") -> "Maps":
    """Each map divided by its largest size."""
    lead = 1 if maps.features is None else 2
    most = {key: values.flatten(lead).abs().amax(dim=-1) for key, values in maps.values.items()}
    divided = {
        key: values / most[key].where(most[key] > 0, 1).view(*most[key].shape, *(1,) * (values.ndim - lead))
        for key, values in maps.values.items()
    }
    return replace(maps, values=divided)


def _about(arguments: "Arguments", model: Any, maps: "Maps", given: "Given", question: "Question") -> "JSON":
    examples: list[JSON] = [{"name": name} for name in given.names]
    for number, example in enumerate(examples):
        if maps.scores is not None:
            example["score"] = float(maps.scores[number])
        if question.classes:
            example["class"] = question.classes[number]
        if given.tokens is not None:
            example["tokens"] = list(given.tokens[number])
    return {
        "arguments": {name: value for name, value in to_plain(arguments).items() if name not in _NOT_KEPT},
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "score": question.about,
        "sites": list(maps.sites),
        "methods": list(maps.methods),
        "features": None if maps.features is None else list(maps.features),
        "geometries": {site: maps.geometries[site].to_json() for site in maps.sites},
        "details": {
            "/".join(key): {name: part.tolist() for name, part in found.items()}
            for key, found in maps.details.items()
            if found
        },
        "examples": examples,
    }


def _drawn(maps: "Maps", given: "Given", title: str) -> Iterator[tuple[str, bytes]]:
    """Each picture with its name, a page of examples at a time; texts as a page for a browser too."""
    from analyses.plots.figure_files import png
    from analyses.plots.map_matrix import map_examples
    from analyses.plots.map_texts import as_html, map_texts

    for page, start in enumerate(range(0, len(maps), _PAGE), 1):
        shown = range(start, min(start + _PAGE, len(maps)))
        if given.tokens is None:
            figure = map_examples(maps, given.inputs.tensors["pixel_values"], examples=list(shown))
        else:
            figure = map_texts(maps, given.tokens, examples=list(shown))
        yield ("maps.png" if page == 1 else f"maps-{page}.png"), png(figure)
    if given.tokens is not None:
        head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        yield "maps.html", (head + as_html(maps, given.tokens, examples=range(len(maps))).text + "\n").encode()
