"""What is asked of a harvest or of a stream: the policy, checked, and the dataset and reader for it."""

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
    sites: Sequence[Site],
    *,
    text: str,
    image: str,
    labels: Sequence[str],
    max_length: int,
    exclude: Sequence[str] | None,
    loss: Loss,
    collate: Callable[[list[Any]], Inputs] | None,
    on_error: Literal["raise", "skip"],
    thumbnails: int = 0,
    **kept: Any,
) -> tuple[Policy, Source, RowReader]:
    """Fill in what depends on the model, and check.

    Args:
        model: What is read.
        dataset: As `harvest` takes it.
        sites: Where; the others are arguments of `harvest` too.
        kept: What the policy takes as it is given.

    Raises:
        ValueError: If an argument does not fit.
    """
    pictures = collate is None and takes_images(model)
    preprocessing: Any = getattr(model, "preprocessing", None)
    policy = Policy(
        text=text,
        labels=tuple(labels),
        max_length=min(max_length, getattr(model, "longest", max_length)),
        exclude=tuple(((PREFIX,) if pictures else ("pad",)) if exclude is None else exclude),
        loss=named(loss, argument="loss"),
        collate=named(collate, argument="collate"),
        images={"column": image, "thumbnails": thumbnails, "preprocessing": preprocessing.to_json()}
        if pictures
        else None,
        **kept,
    )
    policy.check(tuple(getattr(model, "special_ids", {})))
    checked_loss(loss, model)
    if not sites:
        raise ValueError("sites is empty: name at least one of model.sites().")
    source = Source(dataset, text=text, labels=labels, whole=collate is not None, image=image if pictures else None)
    return policy, source, RowReader(model, sites, policy, loss, collate, on_error)
