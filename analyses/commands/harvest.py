"""Run a model over a dataset and keep its activations in a folder.

unweave harvest --model all-minilm-l6-v2 --dataset documentation --sites blocks.3 --out runs/store --max-tokens 300000
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from analyses.commands import devices
from analyses.commands.nearness import meant

if TYPE_CHECKING:
    from interp.stores.disk import DiskStore

GO_ON = "run the same command again to go on with the next chunk"
_EMBEDDED = ("documentation", "glyphs")
_SAME_NAME = (
    *(
        "text",
        "image",
        "on_error",
        "thumbnails",
        "max_length",
        "max_tokens",
        "exclude",
        "first",
        "max_norm_ratio",
        "loss",
        "dtype",
    ),
    *("chunk_examples", "batch_tokens", "rows_per_shard", "overwrite", "dry_run"),
)
_SPLITS = ("train", "held_out", "all")
# Kept texts have 550 characters on average: so many docstrings hold the tokens asked for several times over.
_FEWEST_TOKENS = 25


@dataclass(frozen=True)
class Arguments:
    """What to read, where, and what to keep.

    Args:
        model: A local folder, a Hugging Face id, all-minilm-l6-v2 (comes with `unweave[demo]`), glyph-vit or
            glyph-resnet.
        dataset: documentation or documentation:held_out (docstrings of the installed packages), glyphs or
            glyphs:held_out (characters as images), a Hugging Face id, a folder (of pictures too), or a file of JSON
            lines, CSV, Parquet, Arrow or text.
        sites: Where to read, such as blocks.3; all in one forward pass.
        out: Folder to make.
        split: Part of the dataset.
        dataset_config: Name of the dataset's configuration, where it has several.
        revision: Commit of the dataset on the hub.
        streaming: Read rows as they are needed instead of downloading first.
        text: Column of the text.
        image: Column of the picture.
        on_error: Whether a picture that cannot be read ends the harvest, or is left out and listed in the manifest.
        thumbnails: Most pixels a side of what is kept to show of each picture; 0 keeps nothing.
        labels: Columns kept as labels; for documentation, glyphs and folders of pictures those that they have.
        max_length: Tokens kept of each text.
        max_tokens: Stop after the item that reaches this many tokens.
        exclude: Special tokens left out (of pad, bos, eos, cls, sep, unk, mask) and, as prefix, what stands before a
            picture's patches. By default pad of texts and prefix of pictures.
        first: Whether the first position of each example is kept.
        max_norm_ratio: Leave out positions whose norm is over this many medians.
        loss: Also store the gradient of this loss at each row.
        dtype: How rows are stored.
        chunk_examples: Items sorted by length together.
        batch_tokens: Tokens of one forward pass.
        rows_per_shard: Rows a file; about 64 MB by default.
        device: Where the model runs.
        overwrite: Replace a harvest of something else.
        inexact: Go on under another device, thread count or torch, which changes the last bits.
        dry_run: Only run the first examples and estimate rows, bytes and minutes.
        quiet: No progress bar.
    """

    model: str
    dataset: str
    sites: tuple[str, ...]
    out: Path
    split: str = "train"
    dataset_config: str | None = None
    revision: str | None = None
    streaming: bool = False
    text: str = "text"
    image: str = "image"
    on_error: Literal["raise", "skip"] = "raise"
    thumbnails: int = 96
    labels: tuple[str, ...] = ()
    max_length: int = 128
    max_tokens: int | None = None
    exclude: tuple[str, ...] | None = None
    first: Literal["keep", "drop"] = "keep"
    max_norm_ratio: float | None = None
    loss: Literal["next_token", "embedding_norm"] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    chunk_examples: int = 512
    batch_tokens: int = 4096
    rows_per_shard: int | None = None
    device: str = "cpu"
    overwrite: bool = False
    inexact: bool = False
    dry_run: bool = False
    quiet: bool = False


def run(arguments: Arguments) -> None:
    """Harvest and say what is there."""
    if arguments.quiet:  # Read when datasets is imported, which loading a model does.
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from interp.harvesting import harvest
    from interp.loading import load_model

    device = devices.checked(arguments.device)
    model = load_model(arguments.model, device=device)
    for site in arguments.sites:  # A mistyped one is found before a dataset is read.
        model.site(site)
    dataset, labels = dataset_of(arguments, pictures=hasattr(model, "preprocessing"))
    options: dict[str, Any] = {name: getattr(arguments, name) for name in _SAME_NAME}
    exact, progress = not arguments.inexact, not arguments.quiet
    found: Any = harvest(
        model, dataset, arguments.sites, arguments.out, labels=labels, exact=exact, progress=progress, **options
    )
    print(found if arguments.dry_run else _told(arguments.out, found))


def dataset_of(arguments: Arguments, *, pictures: bool) -> tuple[Any, tuple[str, ...]]:
    """The dataset that the arguments name, and the columns kept as labels.

    Args:
        arguments: Of the command.
        pictures: Whether a folder is one of pictures.

    Raises:
        ValueError: If a split is unknown, or nothing can be read there.
    """
    name, colon, split = arguments.dataset.partition(":")
    if name in _EMBEDDED and not Path(arguments.dataset).exists():
        split = split if colon else arguments.split
        if split not in _SPLITS:
            raise ValueError(f"dataset is {arguments.dataset!r} of split {split!r}: {meant(split, _SPLITS)}")
        rows, labels = _embedded(name, split, arguments.max_tokens)
        return rows, arguments.labels or labels
    folder = Path(arguments.dataset)
    if pictures and folder.is_dir() and not list(folder.glob("*.json")):  # not one that `save_to_disk` wrote
        from interp.data.images import images

        return images(folder), arguments.labels or ("class",)
    from interp.data.hugging_face import load

    streaming, config, revision = arguments.streaming, arguments.dataset_config, arguments.revision
    loaded = load(arguments.dataset, split=arguments.split, streaming=streaming, config=config, revision=revision)
    return loaded, arguments.labels


def _embedded(name: str, split: Any, tokens: int | None) -> tuple[Any, tuple[str, ...]]:
    """A dataset that needs no download, and its labels."""
    if name == "glyphs":
        from interp.data.glyphs import glyphs

        return glyphs(split), ("character", "name", "category", "script", "block", "font")
    from interp.data.documentation import documentation

    most = None if tokens is None else max(tokens // _FEWEST_TOKENS, 200)
    return documentation(split=split, max_items=most), ("package", "module", "kind")


def _told(out: Path, stores: "dict[Any, DiskStore]") -> str:
    lines = [f"{out}: {len(s):,} rows of width {s.d_in} at {site}" for site, s in stores.items()]
    return "\n".join(lines)
