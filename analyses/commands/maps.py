"""Map where a score comes from in some pictures or texts, and draw the maps.

unweave maps glyph-resnet pictures --out runs/maps --methods NormGrad GradCAM
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from analyses.commands import devices, map_files, map_inputs, map_scores

if TYPE_CHECKING:
    from torch import Tensor

    from analyses.maps import Maps

GO_ON = "nothing was written; run the same command again to start over"
# At the embedding of tokens, a gradient alone often has the wrong sign; that of the whole way from 0 has not.
_METHODS = {"pictures": ("NormGrad", "HiResCAM"), "texts": ("NormGrad", "IntegratedGradients")}
_FEATURES = 8


@dataclass(frozen=True)
class Arguments:
    """What to explain, of which examples.

    Args:
        model: A local folder, a Hugging Face id, all-minilm-l6-v2 (comes with `unweave[demo]`), glyph-vit or
            glyph-resnet.
        dataset: A folder of pictures or one picture, a file of text (an example a line) or JSON lines, scenes, or what
            `unweave harvest` takes (glyphs, documentation, a Hugging Face dataset).
        out: Folder to make: maps.safetensors, maps.json, and pictures of the maps.
        sites: Where maps are made, such as blocks.3; `input` for pixels. By default the embedding of texts, the last
            block that the score depends on of pictures, and where a dictionary was made.
        methods: Which, of `analyses.cam` and `analyses.attribution`. By default NormGrad, and of texts
            IntegratedGradients, else HiResCAM.
        score: What is explained: the logit of a class, the norm of the embedding, its similarity to that of a
            reference, a feature of a dictionary, or the loss of the next token. By default the highest logit where the
            model has trained ones, else the norm.
        class_index: Class whose logit is explained; each example's highest by default.
        reference: File of the picture or text that embeddings are compared with.
        sae: File of the dictionary that has the feature; that of `through` by default.
        feature: Feature of it that is explained.
        through: File of a dictionary whose features are mapped, instead of the layer.
        features: How many of them, those that the score owes most to; 8 by default.
        scale: Whether maps of a site and method are drawn on one scale, or each by its own largest value; what is
            written as numbers stays as it is.
        judge: Also judge the methods, by sanity checks and by what hiding positions does, and print the table.
        limit: First examples that are taken.
        batch_size: Examples that run at once.
        split: Part of the dataset.
        text: Column of the text.
        image: Column of the picture.
        on_error: Whether a picture that cannot be read ends the command, or is left out.
        max_length: Tokens kept of each text.
        device: Where the model runs.
        overwrite: Replace maps that are at OUT.
        quiet: No progress bars of datasets.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    out: Path
    sites: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    score: Literal["class", "norm", "similarity", "latent", "loss"] | None = None
    class_index: int | None = None
    reference: Path | None = None
    sae: Path | None = None
    feature: int | None = None
    through: Path | None = None
    features: int | None = None
    scale: Literal["shared", "own"] = "shared"
    judge: bool = False
    limit: int = 16
    batch_size: int = 32
    split: str = "train"
    text: str = "text"
    image: str = "image"
    on_error: Literal["raise", "skip"] = "raise"
    max_length: int = 128
    device: str = "cpu"
    overwrite: bool = False
    quiet: bool = False


def run(arguments: Arguments) -> None:
    """Make the maps, write them, print what was explained and where to look."""
    if arguments.quiet:  # Read when datasets is imported, which loading a model does.
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from analyses.attributing import attribute
    from interp.loading import load_model
    from saes.loading import load

    _check(arguments)
    device = devices.checked(arguments.device)
    through = load(arguments.through) if arguments.through else None
    model = load_model(arguments.model, device=device)
    sites = [model.site(site) for site in arguments.sites]
    given = map_inputs.read(model, arguments)
    question = map_scores.asked(model, given, arguments)
    if not sites and (through is None or through.site is None):
        sites = [map_scores.default_site(model, given.inputs, question.score)]
    asked: Any = {"score": question.score, "batch_size": arguments.batch_size}
    methods = arguments.methods or _METHODS["pictures" if given.tokens is None or through is not None else "texts"]
    features = _FEATURES if arguments.features is None else arguments.features
    maps = attribute(model, given.inputs, sites or None, methods=methods, through=through, features=features, **asked)
    verdict = None
    if arguments.judge:
        from analyses.judging import judge

        verdict = judge(methods, model, given.inputs, sites, truth=given.truth, **asked)
    opened = map_files.write(arguments, model, maps, given, question, verdict)
    print(_told(maps, given, question))
    if verdict is not None:
        print(f"\n{verdict}\n")
    print(f"open {opened}")


def _check(arguments: Arguments) -> None:
    """Said before anything is loaded."""
    from analyses.methods import chosen

    map_files.check(arguments.out, overwrite=arguments.overwrite)
    map_scores.check(arguments)
    if arguments.through is None and arguments.features is not None:
        raise ValueError("--features is given, but it counts features of a dictionary: give its file with --through.")
    if arguments.through is not None and arguments.judge:
        raise ValueError("--judge judges maps of layers, but --through gives maps of features: leave one out.")
    if arguments.methods:
        chosen(arguments.methods)
    for flag, number in (("--limit", arguments.limit), ("--batch-size", arguments.batch_size)):
        if number < 1:
            raise ValueError(f"{flag} is {number}, but it counts examples: give 1 or more.")


def _told(maps: "Maps", given: map_inputs.Given, question: map_scores.Question) -> str:
    """What was mapped; a line an example."""
    of = "" if maps.features is None else f" of features {', '.join(map(str, maps.features))}"
    head = f"{', '.join(maps.methods)}{of} at {', '.join(maps.sites)}: {question.about}"
    lines = []
    for number, name in enumerate(given.names):
        score = "" if maps.scores is None else f"{float(maps.scores[number]):10.4g}"
        lines.append(f"{number:4d}{score}  {question.of(number)}{name}")
    if question.name == "norm" and maps.scores is not None and _alike(maps.scores):
        lines.append("these norms are nearly the same, so they say little: compare embeddings with --reference.")
    return "\n".join([head, *lines])


def _alike(scores: "Tensor") -> bool:
    """Whether several scores differ by less than 1 %, as norms behind a LayerNorm do."""
    return len(scores) > 1 and float(scores.max() - scores.min()) < 0.01 * float(scores.max())
