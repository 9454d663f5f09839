"""The coordinate of an example along a direction of the embedding: a principal axis, a concept, a probe's weights."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.scores.base import Pass, Score


@dataclass(frozen=True, eq=False)
class Projection(Score):
    """Inner product of each example's embedding with a direction, after a mean is subtracted.

    Args:
        direction: The direction, as long as it is.
        mean: What is subtracted first; nothing by default.
    """

    direction: Float[Tensor, " d"]
    mean: Float[Tensor, " d"] | None = None

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The coordinates.

        Raises:
            ValueError: If the direction has another width.
        """
        embedding = run.embedding()
        if len(self.direction) != embedding.shape[1]:
            raise ValueError(
                f"direction has width {len(self.direction)}, but {run.model.name} embeds in {embedding.shape[1]}: "
                "take it from embeddings of this model."
            )
        moved = embedding if self.mean is None else embedding - self.mean.detach().to(embedding)
        return moved @ self.direction.detach().to(embedding)
