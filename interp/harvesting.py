"""A dataset -> stores of activations: one forward pass a batch for all sites, resumable after any kill."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from interp.harvest_plan import Plan, estimated
from interp.harvest_policy import Loss
from interp.harvest_request import requested
from interp.harvest_running import Harvest, Stores
from interp.models.base import Model
from interp.types import Inputs, Site


@overload
def harvest(
    model: Model,
    dataset: Any,
    sites: str | Site | Sequence[str | Site],
    path: Path | str | None = None,
    *,
    dry_run: Literal[True],
    **options: Any,
) -> Plan: ...
@overload
def harvest(
    model: Model,
    dataset: Any,
    sites: str | Site | Sequence[str | Site],
    path: Path | str | None = None,
    *,
    dry_run: Literal[False] = False,
    **options: Any,
) -> Stores: ...
def harvest(  # type: ignore[misc]  # it names what the overloads pass on as options
    model: Model,
    dataset: Any,
    sites: str | Site | Sequence[str | Site],
    path: Path | str | None = None,
    *,
    text: str = "text",
    image: str = "image",
    labels: Sequence[str] = (),
    max_length: int = 128,
    max_tokens: int | None = None,
    exclude: Sequence[str] | None = None,
    first: Literal["keep", "drop"] = "keep",
    max_norm_ratio: float | None = None,
    loss: Loss = None,
    collate: Callable[[list[Any]], Inputs] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    thumbnails: int = 96,
    dtype: str = "bfloat16",
    chunk_examples: int = 512,
    batch_tokens: int = 4096,
    rows_per_shard: int | None = None,
    overwrite: bool = False,
    exact: bool = True,
    dry_run: bool = False,
    progress: bool = True,
) -> Stores | Plan:
    """Run a model over a dataset and keep its activations.

    Rows, shards and bytes are a function of the arguments: killed at any moment and called again, the folder ends
    with the same bytes as without the kill. While it grows, it is called `path` + `.partial`.

    Args:
        model: What is read.
        dataset: A Hugging Face dataset, streamed or not, or any sequence or iterable of texts, of pictures (for a model
            with a `preprocessing`), or of mappings.
        sites: Where; all are read in one forward pass and share one address table.
        path: The folder to make; None keeps the rows in memory, in float32.
        text: The column that holds the text; without it, token ids are taken from `input_ids` or `tokens`.
        image: The column that holds the picture, in any form that the model's `preprocessing` takes.
        labels: Columns kept as the labels of each item.
        max_length: Tokens kept of each text, at most what the model takes; longer texts are cut.
        max_tokens: Stop after the item that reaches this many tokens, counted as the model is given them.
        exclude: Positions left out: those of special tokens (pad, bos, eos, cls, sep, unk, mask), and `prefix` for what
            stands before a picture's grid (class token, registers). By default pad for texts and prefix for pictures,
            whose other rows each have a place in the picture; () keeps all.
        first: Whether the first position of each example is kept; causal models put their attention sink there.
        max_norm_ratio: Leave out positions whose norm, at any of the sites, is over this many medians of the first
            chunk (attention sinks elsewhere); None keeps all.
        loss: Also store its gradient at each row: `next_token`, `embedding_norm`, or a function of what the model's
            forward returns, to be summed over examples, not averaged: batches must not change it.
        collate: Makes a batch from a list of items that are neither texts nor pictures; one item is one example.
        on_error: Whether a picture that cannot be read ends the harvest, or stays as an item without rows, listed in
            the manifest. A harvest that it ended goes on with `skip`.
        thumbnails: Most pixels a side of what is kept to show of each picture; 0 keeps nothing.
        dtype: How rows are stored.
        chunk_examples: Items sorted by length together, and kept in memory together.
        batch_tokens: Tokens of one forward pass, padding counted; a picture has one for each position, and at least
            one for 256 pixels. 4096 stay in a CPU's caches (a fifth faster than 8192); a GPU takes as many as fit.
        rows_per_shard: Rows a file; None for about 64 MB.
        overwrite: Replace a harvest of something else, once this one is complete.
        exact: Refuse to go on under another device, thread count or torch, which would change the last bits.
        dry_run: Only run the first examples and estimate.
        progress: Show a bar on a terminal.

    Returns:
        A store for each site; with `dry_run`, the estimate.

    Raises:
        ValueError: If an argument does not fit, the dataset gives no row, a picture cannot be read, a row is not
            finite, or `path` holds something else.
        OSError: If the disk refuses; what is finished stays, and the same call goes on.
    """
    places = [model.site(site) for site in ([sites] if isinstance(sites, str | Site) else sites)]
    places = list(dict.fromkeys(places))
    policy, source, reader = requested(
        model,
        dataset,
        places,
        text=text,
        image=image,
        labels=labels,
        max_length=max_length,
        max_tokens=max_tokens,
        exclude=exclude,
        first=first,
        max_norm_ratio=max_norm_ratio,
        loss=loss,
        collate=collate,
        on_error=on_error,
        thumbnails=thumbnails,
        dtype=dtype,
        chunk_examples=chunk_examples,
        batch_tokens=batch_tokens,
        rows_per_shard=rows_per_shard,
    )
    if dry_run:
        return estimated(source, reader, policy)
    run = Harvest(model, places, policy, source, reader, shown=progress)
    return run.to_memory() if path is None else run.to_disk(Path(path), overwrite=overwrite, exact=exact)
