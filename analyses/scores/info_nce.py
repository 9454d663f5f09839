"""InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748), the loss of SimCLR (Chen et al. 2020)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from analyses.scores.base import Pass, Score


@dataclass(frozen=True, eq=False)
class InfoNCE(Score):
    """How badly another view of each example is told from the other examples: a loss that needs no label, in nats.

    The cross-entropy of the softmax of cosines, by temperature. Everything that an example is compared with is held
    fixed, so that its loss depends neither on the batch that it runs in nor on the others' gradients. The score is the
    loss itself: a map is positive where a position raises it, and negative where it helps to tell the view.

    Embeddings are those that the model gives: a projection head takes part if it is part of the model.

    Args:
        views: Embedding of another view of each example, in order: `analyses.embeddings.embedding_of` makes them.
        embeddings: Embeddings of the examples themselves, whose own is left out: SimCLR compares with these too. None
            to compare with `views` alone.
        temperature: Divides the cosines.

    Raises:
        ValueError: If the temperature is not positive, or both have different shapes; in use, if widths or numbers of
            examples differ.
    """

    views: Float[Tensor, "n d"]
    embeddings: Float[Tensor, "m e"] | None = None
    temperature: float = 0.2

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, but it divides cosines: give a positive one.")
        if self.embeddings is not None and self.embeddings.shape != self.views.shape:
            raise ValueError(
                f"embeddings have shape {list(self.embeddings.shape)}, but views {list(self.views.shape)}: make both "
                "of the same examples with the same model."
            )

    def __call__(self, run: Pass) -> Float[Tensor, " b"]:
        """The losses."""
        given = run.embedding()
        if self.views.shape[1] != given.shape[1]:
            raise ValueError(
                f"views have width {self.views.shape[1]}, but {run.model.name} embeds in {given.shape[1]}: make them "
                "with the same model."
            )
        own = run.own("views", torch.arange(len(self.views)), "the embedding of one view an example").to(given.device)
        rows = functional.normalize(given, dim=1)
        cosines = rows @ functional.normalize(self.views.detach().to(given), dim=1).T
        if self.embeddings is not None:
            others = rows @ functional.normalize(self.embeddings.detach().to(given), dim=1).T
            cosines = torch.cat([cosines, others.scatter(1, own[:, None], -torch.inf)], dim=1)
        return functional.cross_entropy(cosines / self.temperature, own, reduction="none")

    def loss(self, run: Pass) -> Float[Tensor, " b"]:
        """The score, which is a loss already."""
        return self(run)
