"""The norm of the embedding: a score that needs no label (Chen et al. 2020, https://arxiv.org/abs/2001.06538)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.scores.base import Pass, Score


@dataclass(frozen=True)
class EmbeddingNorm(Score):
    """Euclidean norm of each example's embedding.

    Behind a LayerNorm the norm is nearly the same whatever the example, and says little: choose Similarity there.
    """

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The norms."""
        return run.embedding().norm(dim=1)
