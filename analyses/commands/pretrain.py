"""Train a small encoder of glyphs without labels, or judge encoders on glyphs they never saw.

unweave pretrain glyph-resnet --out runs/glyph-resnet
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from analyses.commands.nearness import meant

if TYPE_CHECKING:
    from interp.pretrain.judging import Judgement
    from interp.pretrain.training import Recipe

GO_ON = "nothing was written; run the same command again to start over"
_CHANGED = ("objective", "architecture", "steps", "batch_size", "learning_rate", "seed")
_MARKS = ("<!-- judged by `unweave pretrain --judge` -->", "<!-- end of what was judged -->")
_MEASURES = {"probe": "category", "patch": "category, one patch", "retrieval": "other font, moved"}
_COLLAPSE = {"rankme": 1, "mean_diagonal": 3, "rms_off_diagonal": 3}


@dataclass(frozen=True)
class Arguments:
    """What to train, and what to judge.

    Args:
        recipe: glyph-resnet or glyph-vit, to train one as the one that comes with the package was.
        out: Folder to make.
        objective: barlow_twins, simclr, simmim or rotnet, instead of the recipe's.
        architecture: resnet or vit, instead of the recipe's.
        steps: Updates, instead of the recipe's.
        batch_size: Code points a step, instead of the recipe's.
        learning_rate: After the warm-up, instead of the recipe's.
        seed: Names weights and views, instead of the recipe's.
        judge: Encoders to judge, instead of training: glyph-resnet, glyph-vit, or folders that this command made.
        table: Markdown file whose table between the marks is written anew with what was judged.
        quiet: No progress bar.
    """

    recipe: tyro.conf.Positional[str | None] = None
    out: Path | None = None
    objective: str | None = None
    architecture: Literal["resnet", "vit"] | None = None
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int | None = None
    judge: tuple[str, ...] = ()
    table: Path | None = None
    quiet: bool = False


def run(arguments: Arguments) -> None:
    """Train and say what was written, or judge and print the table."""
    if arguments.judge:
        _judge(arguments)
        return
    from interp.pretrain.training import pretrain

    if arguments.recipe is None or arguments.out is None:
        raise ValueError("nothing to do: name a recipe and --out to train, or encoders with --judge.")
    recipe = _recipe(arguments)
    pretrain(recipe, arguments.out, progress=not arguments.quiet)
    print(f"{arguments.out}: {recipe.architecture} after {recipe.steps:,} steps of {recipe.objective}.")


def _recipe(arguments: Arguments) -> "Recipe":
    from interp.pretrain.training import RECIPES

    if arguments.recipe not in RECIPES:
        raise ValueError(f"recipe is {arguments.recipe!r}: {meant(str(arguments.recipe), RECIPES)}")
    changed = {name: getattr(arguments, name) for name in _CHANGED if getattr(arguments, name) is not None}
    return dataclasses.replace(RECIPES[arguments.recipe], **changed)


def _judge(arguments: Arguments) -> None:
    from interp.data.glyphs import glyphs
    from interp.durability import write_bytes
    from interp.models.glyph_encoders import load_encoder, random_encoder
    from interp.pretrain.judging import Judge, raw_pixels
    from interp.pretrain.packaged import packaged

    # Read before an hour of judging: all of it is there, and the file has its marks.
    folders = {name: packaged(name) or Path(name) for name in arguments.judge}
    encoders = {name: load_encoder(folder) for name, folder in folders.items()}
    around = _around(arguments.table) if arguments.table else None
    judge = Judge(glyphs("train"), glyphs("held_out"))
    judged = {"raw pixels": judge.judge(raw_pixels)}
    bases = {}
    for name, encoder in encoders.items():
        bases[name] = f"{encoder.architecture}, random weights"
        if bases[name] not in judged:
            judged[bases[name]] = judge.judge(judge.settled(random_encoder(encoder.architecture, seed=0)))
        judged[name] = judge.judge(encoder)
    said = "\n\n".join([_shares(judged), _margins(judged, bases), _collapse(folders)])
    print(said)
    if arguments.table and around:
        write_bytes(arguments.table, f"{around[0]}{_MARKS[0]}\n\n{said}\n\n{_MARKS[1]}{around[1]}".encode())


def _around(path: Path) -> tuple[str, str]:
    """What stands before and after the marks of a file."""
    text = path.read_text()
    before, first, rest = text.partition(_MARKS[0])
    _, last, after = rest.partition(_MARKS[1])
    if not first or not last:
        raise ValueError(f"table is {path}, but holds no {_MARKS[0]} and {_MARKS[1]}: put the marks where it goes.")
    return before, after


def _shares(judged: "dict[str, Judgement]") -> str:
    rows = [["embeddings", "width", *_MEASURES.values(), "RankMe", "RankMe of patches"]]
    for name, found in judged.items():
        ranks = [f"{rank:.1f} of {width}" for rank, width in zip(found.ranks, found.widths, strict=True)]
        rows.append([name, str(found.widths[0]), *(str(found.share(measure)) for measure in _MEASURES), *ranks])
    return _table(rows)


def _margins(judged: "dict[str, Judgement]", bases: dict[str, str]) -> str:
    rows = [["difference", *_MEASURES.values()]]
    for name, base in bases.items():
        for other in ("raw pixels", base):
            margins = [judged[name].above(judged[other], measure) for measure in _MEASURES]
            rows.append([f"{name} less {other}", *map(str, margins)])
    return _table(rows)


def _collapse(folders: dict[str, Path]) -> str:
    rows = [["layer", "width", "RankMe", "mean diagonal", "rms off the diagonal"]]
    for name, folder in folders.items():
        found = json.loads((folder / "pretraining.json").read_text())
        for number, (before, after) in enumerate(zip(found["before"], found["after"], strict=True)):
            layer = f"{name}, {f'layer {number} of the head' if number else 'encoder'}"
            numbers = [f"{before[key]:.{digits}f} -> {after[key]:.{digits}f}" for key, digits in _COLLAPSE.items()]
            rows.append([layer, str(before["width"]), *numbers])
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    """Markdown, aligned so that it reads as text too."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows
    )
