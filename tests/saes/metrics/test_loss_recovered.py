import pytest
import torch

from saes.metrics.loss_recovered import LossRecovered
from saes.metrics.splicing import Splice


def spliced(model, store, directions):
    return Splice.of(model, store, directions, range(12), store.span(0, len(store)).values.mean(dim=0))


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_equals_a_loop_over_texts_without_padding(causal, orthogonal, text_store, ablation):
    store, directions, metric = text_store(causal), orthogonal(8, 3), LossRecovered(ablation)
    splice = spliced(causal, store, directions)
    losses = torch.zeros(3, dtype=torch.double)
    for i in range(12):
        ids = store.items[i].tokens[None]
        embedded = causal.module.embed(ids).detach()
        recon, nothing = embedded.clone(), embedded.clone()
        recon[0, 1:] = directions.decode(directions.encode(embedded[0, 1:]))
        nothing[0, 1:] = 0 if ablation == "zero" else splice.mean
        for j, vectors in enumerate((embedded, recon, nothing)):
            hook = causal.module.embed.register_forward_hook(lambda *_, v=vectors: v)
            logits = causal.module(ids, torch.ones_like(ids, dtype=torch.bool)).logits
            hook.remove()
            losses[j] += torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
    with torch.no_grad():
        totals = metric.statistics(splice).sum(dim=0)
    assert torch.allclose(totals, losses, rtol=1e-5)
    assert float(metric.value(totals)) == pytest.approx(
        float((losses[2] - losses[1]) / (losses[2] - losses[0])), rel=1e-4
    )


def test_ends_of_the_scale():
    metric = LossRecovered()
    totals = torch.tensor([[2.0, 2.0, 5.0], [2.0, 5.0, 5.0], [2.0, 8.0, 5.0], [2.0, 3.5, 5.0]])
    assert metric.value(totals).tolist() == [1, 0, -1, 0.5]


def test_directions_that_give_back_nothing_recover_nothing(causal, orthogonal, text_store):
    directions = orthogonal(8, 8)
    directions.decode = lambda latents: torch.zeros(len(latents), 8)
    with torch.no_grad():
        totals = LossRecovered().statistics(spliced(causal, text_store(causal), directions)).sum(dim=0)
    assert float(LossRecovered().value(totals)) == 0


def test_applies_to_causal_models_only(causal, encoder):
    assert LossRecovered().applies(causal)
    assert not LossRecovered().applies(encoder)
