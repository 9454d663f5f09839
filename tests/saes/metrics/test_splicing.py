import pytest
import torch

from interp.stores.memory import MemoryStore
from saes.evaluation import evaluate
from saes.metrics.splicing import Splice


def test_only_kept_positions_are_replaced(causal, orthogonal, text_store):
    store = text_store(causal)
    splice = Splice.of(causal, store, orthogonal(8, 8), [0, 3], torch.full((8,), 2.0))
    seen = {}
    causal.module.block.register_forward_pre_hook(lambda module, args: seen.update(mixed=args[0]))
    # Position 0 is not kept and sees only itself: it stays clean. The next one sees half of it and half the mean.
    splice.clean()
    clean = seen["mixed"].clone()
    splice.ablated("mean")
    assert torch.equal(seen["mixed"][:, 0], clean[:, 0])
    assert torch.allclose(seen["mixed"][:, 1], clean[:, 0] / 2 + 1.0, atol=1e-6)
    splice.clean()
    assert torch.equal(seen["mixed"], clean)


def test_identity_changes_nothing_and_zero_is_the_ablation(causal, encoder, orthogonal, text_store):
    for model, name in ((causal, "loss_recovered"), (encoder, "embedding_cosine")):
        store = text_store(model)
        whole = evaluate(orthogonal(8, 8), store, model=model, max_loss_examples=20)
        part = evaluate(orthogonal(8, 2), store, model=model, max_loss_examples=20)
        assert whole[name].value == pytest.approx(1, abs=1e-5)
        assert part[name].value < whole[name].value
        assert part[name].low < part[name].value < part[name].high
        assert part.model_examples == 20
        assert {"loss_recovered", "embedding_cosine"} & set(part.metrics) == {name}
        assert not model.module.embed._forward_hooks


def test_a_model_without_tokens_or_positions_is_refused(causal, orthogonal, text_store):
    bare = MemoryStore.from_values(torch.randn(5, 8), site="embed")
    with pytest.raises(ValueError, match=r"items of the store \(embed\) hold no tokens.*without model="):
        evaluate(orthogonal(8, 8), bare, model=causal)
    store = text_store(causal)
    store.site = causal.site("head")
    with pytest.raises(ValueError, match=r"head holds a tensor of shape \[16, \d+, 13\].*width 8"):
        evaluate(orthogonal(8, 8), store, model=causal)
