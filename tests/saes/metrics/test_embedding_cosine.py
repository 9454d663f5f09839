import pytest
import torch

from saes.metrics.embedding_cosine import EmbeddingCosine
from saes.metrics.splicing import Splice


def test_equals_a_loop_over_texts_without_padding(encoder, orthogonal, text_store):
    store, directions, metric = text_store(encoder), orthogonal(8, 3), EmbeddingCosine()
    cosines = []
    for i in range(10):
        ids = store.items[i].tokens[None]
        embedded = encoder.module.embed(ids).detach()
        recon = embedded.clone()
        recon[0, 1:] = directions.decode(directions.encode(embedded[0, 1:]))
        pooled = []
        for vectors in (embedded, recon):
            hook = encoder.module.embed.register_forward_hook(lambda *_, v=vectors: v)
            pooled.append(encoder.module(ids, torch.ones_like(ids, dtype=torch.bool)).hidden[0].mean(dim=0))
            hook.remove()
        cosines.append(torch.cosine_similarity(*pooled, dim=0).item())
    with torch.no_grad():
        statistics = metric.statistics(Splice.of(encoder, store, directions, range(10), torch.zeros(8)))
    assert statistics[:, 0].tolist() == pytest.approx(cosines, rel=1e-5)
    assert float(metric.value(statistics.sum(dim=0))) == pytest.approx(sum(cosines) / 10, rel=1e-5)


def test_applies_to_encoders_only(causal, encoder):
    assert EmbeddingCosine().applies(encoder)
    assert not EmbeddingCosine().applies(causal)
