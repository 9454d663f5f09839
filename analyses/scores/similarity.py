"""Similarity to a reference: an explanation of an embedding (Chen et al. 2020, https://arxiv.org/abs/2001.06538)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.scores.base import Pass, Score


@dataclass(frozen=True, eq=False)
class Similarity(Score):
    """How near each example's embedding lies to that of a reference, which is held fixed.

    GradCAM of it, by the dot product, is EmbeddingCAM (`analyses.embedding_cam`): the reference is the paper's proxy,
    the embedding of one example or the mean of a group's normalised ones. Where an embedding is the mean of a layer's
    positions, the map is each position's inner product with the reference, over their number, and HiResCAM's is the
    same. Both are linear in the score, so that maps of subspaces (`channels`, one a learner) add up.

    Args:
        reference: One embedding for all, or one an example: `analyses.embeddings.embedding_of` makes them.
        measure: The cosine, or the dot product.
        channels: Channels of a subspace that is compared alone, for the dot product: over channels that make up the
            embedding, scores add up to that of all of them.

    Raises:
        ValueError: If `channels` are given for the cosine; in use, if widths or numbers differ.
    """

    reference: Float[Tensor, "*b d"]
    measure: Literal["cosine", "dot"] = "cosine"
    channels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.channels is not None and self.measure == "cosine":
            raise ValueError("channels are given, but cosines of subspaces do not add up: choose measure='dot'.")

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The similarities."""
        embedding = run.embedding()
        reference = self.reference.detach().to(embedding)
        if reference.shape[-1] != embedding.shape[1]:
            raise ValueError(
                f"reference has width {reference.shape[-1]}, but {run.model.name} embeds in {embedding.shape[1]}: "
                "make it with the same model."
            )
        if reference.ndim > 1:
            reference = run.own("reference", reference, "one embedding an example, or one for all")
        if self.measure == "cosine":
            return torch.cosine_similarity(embedding, reference.expand_as(embedding), dim=1)
        product = embedding * reference
        return (product if self.channels is None else product[:, list(self.channels)]).sum(dim=1)
