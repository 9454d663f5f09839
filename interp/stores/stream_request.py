"""What is asked of a stream: what it shares with a harvest, checked, and the dataset and reader for it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from interp.harvest_dataset import Source
from interp.harvest_inputs import takes_images
from interp.harvest_policy import PREFIX, Loss, Policy, checked_loss, named
from interp.harvest_rows import RowReader
from interp.models.base import Model
from interp.types import Inputs, Site


def requested(
    model: Model,
    dataset: Any,
    site: Site,
    *,
    text: str,
    image: str,
    labels: Sequence[str],
    max_length: int,
    exclude: Sequence[str] | None,
    loss: Loss,
    collate: Callable[[list[Any]], Inputs] | None,
    on_error: Literal["raise", "skip"],
    **kept: Any,
) -> tuple[Policy, Source, RowReader]:
    """The policy that a harvest of the same arguments has, with the dataset and the reader for it.

    Raises:
        ValueError: If an argument does not fit, or the dataset can be read only once.
    """
    pictures = collate is None and takes_images(model)
    preprocessing: Any = getattr(model, "preprocessing", None)
    policy = Policy(
        text=text,
        labels=tuple(labels),
        max_length=min(max_length, getattr(model, "longest", max_length)),
        max_tokens=None,
        exclude=tuple(((PREFIX,) if pictures else ("pad",)) if exclude is None else exclude),
        loss=named(loss, argument="loss"),
        collate=named(collate, argument="collate"),
        rows_per_shard=None,
        images={"column": image, "thumbnails": 0, "preprocessing": preprocessing.to_json()} if pictures else None,
        **kept,
    )
    policy.check(tuple(getattr(model, "special_ids", {})))
    checked_loss(loss, model)
    if collate is None and not hasattr(model, "collate"):
        raise ValueError(f"{model.name} takes no text: give collate=, which makes Inputs from a list of items.")
    if hasattr(dataset, "__next__"):
        raise ValueError(
            f"dataset is a {type(dataset).__name__}, which can be read only once, but a stream starts anew for each "
            "epoch and resume: give a sequence, a Hugging Face dataset, or an iterable that begins again each time."
        )
    source = Source(dataset, text=text, labels=labels, whole=collate is not None, image=image if pictures else None)
    return policy, source, RowReader(model, [site], policy, loss, collate, on_error)
