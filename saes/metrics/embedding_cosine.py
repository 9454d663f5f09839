"""Embedding cosine: how far an encoder's final embedding turns when a site is reconstructed."""

import torch
from jaxtyping import Float
from torch import Tensor

from saes.metrics.base import ModelMetric, Splice


class EmbeddingCosine(ModelMetric):
    """Cosine between the embeddings of an example with and without the reconstruction, averaged over examples.

    Only positions that the store holds are replaced. 1 is as good as the activations themselves.
    """

    name = "embedding_cosine"

    def applies(self, model: object) -> bool:
        """For encoders; models that predict the next token have `loss_recovered`."""
        return not getattr(model, "is_causal", False)

    def statistics(self, splice: Splice) -> Float[Tensor, "b 2"]:
        """The cosine of each example, and 1."""
        clean, spliced = (
            splice.model.embedding(output, splice.inputs).double()
            for output in (splice.clean(), splice.reconstructed())
        )
        cosine = torch.cosine_similarity(clean, spliced, dim=1)
        return torch.stack([cosine, torch.ones_like(cosine)], dim=1)

    def value(self, totals: Float[Tensor, "*resamples 2"]) -> Float[Tensor, "*resamples"]:
        """Their ratio."""
        return totals[..., 0] / totals[..., 1]
