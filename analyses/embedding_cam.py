"""EmbeddingCAM (Bachhawat 2024, https://arxiv.org/abs/2402.00909), for each subspace of an embedding."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from analyses.attributing import attribute
from analyses.embeddings import embedding_of
from analyses.maps import Maps
from analyses.scores.similarity import Similarity
from interp.models.base import Model
from interp.types import Inputs, Site


def embedding_cam(
    model: Model,
    inputs: Inputs,
    references: Inputs,
    sites: str | Site | Sequence[str | Site],
    *,
    subspaces: Sequence[Sequence[int]] | None = None,
    batch_size: int = 32,
) -> Maps:
    """Map where examples are like others: Grad-CAM of the inner product of their embeddings.

    No class is asked for. Maps of subspaces (one a learner, say) that share out the channels of the embedding add up to
    that of the whole.

    Args:
        model: The model.
        inputs: The examples that are mapped.
        references: What they are compared with, one for each or one for all; held fixed.
        sites: Where maps are made.
        subspaces: Channels of the embedding, for each subspace; None for all of them as one.
        batch_size: Examples that run at once.

    Returns:
        Grad-CAM's maps, in units of the inner product; with `subspaces` their second axis counts these, and the scores
        are sums over them.

    Raises:
        ValueError: If there are neither one reference nor as many as examples, or a subspace has no channel, or one
            that does not exist.
    """
    fixed = embedding_of(model, references, batch_size=batch_size)
    if len(fixed) not in (1, len(inputs)):
        raise ValueError(
            f"references are {len(fixed)} for {len(inputs)} examples, but each is compared with one: give one for "
            "each, or one for all."
        )
    fixed = fixed[0] if len(fixed) == 1 else fixed
    width = fixed.shape[-1]
    for channels in subspaces if subspaces is not None else ():
        if not len(channels) or not all(0 <= channel < width for channel in channels):
            raise ValueError(
                f"subspaces hold {list(channels)}, but the embedding has channels 0 to {width - 1}: give some of these "
                "for each."
            )
    parts = [
        attribute(
            model, inputs, sites, score=Similarity(fixed, "dot", channels), methods=["GradCAM"], batch_size=batch_size
        )
        for channels in ([None] if subspaces is None else subspaces)
    ]
    if subspaces is None:
        return parts[0]
    values = {key: torch.stack([part.values[key] for part in parts], dim=1) for key in parts[0].values}
    scores = torch.stack([part.scores for part in parts if part.scores is not None]).sum(dim=0)
    return replace(parts[0], values=values, scores=scores, features=tuple(range(len(parts))))
