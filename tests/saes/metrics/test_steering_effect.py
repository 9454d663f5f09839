import json

import pytest
import torch

from saes.metrics.steering_effect import steering_effect


def test_equals_a_loop_over_examples(causal, text_store, orthogonal):
    store, directions = text_store(causal), orthogonal(8, 8)
    found = steering_effect(causal, store, directions, [2], length=0.5, randoms=3, max_examples=20)
    step = torch.nn.functional.normalize(directions.W_dec[2], dim=0) * 0.5
    slow = []
    for item in store.items[:20]:
        ids, mask = item.tokens[None], torch.ones(1, len(item.tokens), dtype=torch.bool)
        clean = causal.module(ids, mask).logits.log_softmax(-1)
        shift = torch.zeros(1, len(item.tokens), 8)
        shift[:, 1:] = step  # The store keeps no first positions.
        hook = causal.module.embed.register_forward_hook(lambda _, __, out, shift=shift: out + shift)
        steered = causal.module(ids, mask).logits.log_softmax(-1)
        hook.remove()
        slow.append(float((clean.exp() * (clean - steered)).sum(-1).mean().detach()) / 0.5)
    assert found.effect[2].value == pytest.approx(sum(slow) / 20, rel=1e-4)
    assert found.effect[2].low < found.effect[2].value < found.effect[2].high
    assert found.above[2].value == pytest.approx(found.effect[2].value - found.random.value)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["length"] == 0.5
    assert set(written["effect"]) == {"2"}


def test_encoders_turn_and_lengths_of_rows_do_not_matter(encoder, text_store, orthogonal):
    store, directions = text_store(encoder), orthogonal(8, 8)
    found = steering_effect(encoder, store, directions, [0, 5], resamples=0)
    directions.W_dec = directions.W_dec * 7
    again = steering_effect(encoder, store, directions, [0, 5], resamples=0)
    rows = torch.cat([store.example(i).values for i in range(40)])
    assert found.length == pytest.approx(float((rows - rows.mean(0)).square().sum(1).mean().sqrt()), rel=1e-5)
    assert 0 < found.effect[0].value < 2 / found.length
    assert again.effect[5].value == pytest.approx(found.effect[5].value, rel=1e-4)
    assert found.random.low is None


def test_a_direction_that_the_output_reads_beats_random_ones(causal, text_store, orthogonal):
    """Measured at the last position's logit of one token, along which the gradient is the strongest direction."""
    store, directions = text_store(causal), orthogonal(8, 8)

    def logit(clean, steered, inputs):
        return (steered.logits - clean.logits)[:, 1, 4]

    embedded = torch.zeros(1, 2, 8, requires_grad=True)
    hook = causal.module.embed.register_forward_hook(lambda *_: embedded)
    causal.module(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool)).logits[0, 1, 4].backward()
    hook.remove()
    directions.W_dec[3] = embedded.grad[0, 1]
    found = steering_effect(causal, store, directions, [3], length=0.1, change=logit, randoms=16)
    assert found.above[3].low > 0
    assert found.effect[3].value > 3 * abs(found.random.value)


def test_random_directions_are_a_function_of_the_seed_and_the_model_is_left_alone(causal, text_store, orthogonal):
    store, directions = text_store(causal), orthogonal(8, 8)
    causal.module.train()
    one, same, other = (steering_effect(causal, store, directions, [1], resamples=50, seed=s) for s in (0, 0, 1))
    assert one == same
    assert one.random != other.random
    assert one.effect[1].value == other.effect[1].value
    assert causal.module.training


@pytest.mark.parametrize("arguments", [{"features": [8]}, {"features": []}, {"length": 0.0}, {"randoms": 0}])
def test_errors(causal, text_store, orthogonal, arguments):
    with pytest.raises(ValueError, match=r"give features that exist, and positive numbers"):
        steering_effect(causal, text_store(causal), orthogonal(8, 8), **{"features": [0], **arguments})
