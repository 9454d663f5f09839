"""Relevance of attention against loops, and where it can be told by hand."""

from typing import Any

import torch
from torch import Tensor

from analyses.attribution.attention_relevance import AttentionRelevance


def _pairs(blocks: int = 3, b: int = 2, h: int = 2, p: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(2, b, h, p, p, generator=draw, dtype=torch.float64) for _ in range(blocks)]
    return [part[0].softmax(-1) for part in made], [part[1] for part in made]


def _by_loops(patterns: list[Tensor], grads: list[Tensor]) -> Tensor:
    """One example, as the paper writes it: R = I, then R = R + E_h[(grad * A)^+] R in each block."""
    h, p, _ = patterns[0].shape
    relevance = torch.eye(p).double()
    for pattern, grad in zip(patterns, grads, strict=True):
        new = relevance.clone()
        for i in range(p):
            for k in range(p):
                own = sum(max(float(pattern[head, i, k] * grad[head, i, k]), 0.0) for head in range(h)) / h
                for j in range(p):
                    new[i, j] += own * relevance[k, j]
        relevance = new
    return relevance - torch.eye(p).double()


def test_equals_loops_and_is_never_negative() -> None:
    patterns, grads = _pairs()
    found = AttentionRelevance().relevance(patterns, grads)
    for i in range(2):
        expected = _by_loops([part[i] for part in patterns], [part[i] for part in grads])
        torch.testing.assert_close(found[i], expected)
    assert found.min() >= 0


def test_of_one_block_it_is_a_mean_and_scales_with_the_score() -> None:
    (pattern,), (grad,) = _pairs(1)
    found = AttentionRelevance().relevance([pattern], [grad])
    torch.testing.assert_close(found, (grad * pattern).relu().mean(1))
    torch.testing.assert_close(AttentionRelevance().relevance([pattern], [3 * grad]), 3 * found)
    assert not AttentionRelevance().relevance([pattern], [-pattern]).any()  # all of it lowers the score


def test_a_planted_path_leads_to_the_planted_token() -> None:
    first, second = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    first[0, 0, 3, 1], second[0, 0, 0, 3] = 1, 1
    found = AttentionRelevance().relevance([first, second], [2 * first, 5 * second])
    assert found[0, 0].tolist() == [0, 10, 0, 5]


def test_a_linear_score_of_uniform_attention_is_told_by_hand(patches: Any) -> None:
    """All attend alike in the last block, and the score is what the class token takes of each: values times weights."""
    runner = patches(score=lambda output: output[:, 1])
    module = runner.scorer.model.module
    for block in module.blocks:
        torch.nn.init.zeros_(block.attn.q.weight), torch.nn.init.zeros_(block.attn.q.bias)
        torch.nn.init.zeros_(block.mlp[2].weight)
    torch.nn.init.zeros_(module.blocks[0].attn.o.weight)  # the first block hands on what it is given
    maps, _ = AttentionRelevance().measured(runner)
    with torch.no_grad():
        x = module.embed(runner.inputs.tensors["x"]).flatten(2).mT
        x = (
            torch.cat([module.token.expand(4, -1, -1), x], 1)
            + module.blocks[0].attn.o.bias
            + module.blocks[0].mlp[2].bias
        )
        attn = module.blocks[1].attn
        values = attn.v(module.blocks[1].ln1(x)).unflatten(-1, (2, 3))
        weights = (module.head.weight[1] @ attn.o.weight).view(2, 3)
        taken = (values * weights).sum(-1) / 13  # of each position, by each head
    torch.testing.assert_close(maps, taken.relu().mean(-1)[:, 1:].view(4, 3, 4))


def test_a_map_equals_autograd_by_hand(patches: Any, words: Any) -> None:
    for runner, site in ((patches(), "patches"), (words(), "words")):
        module, caught = runner.scorer.model.module.eval(), []
        handles = [
            block.attn.register_forward_hook(lambda _m, _a, out, caught=caught: caught.append(out[1]))
            for block in module.blocks
        ]
        scores = module(**runner.inputs.tensors)[:, 1]
        for handle in handles:
            handle.remove()
        grads = torch.autograd.grad(scores.sum(), caught)
        expected = AttentionRelevance().relevance([part.detach() for part in caught], list(grads))
        maps, details = AttentionRelevance().measured(runner)
        assert not details
        if site == "patches":
            torch.testing.assert_close(maps, expected[:, 0, 1:].view(4, 3, 4))
            continue
        for i, length in enumerate((5, 2, 4, 1)):
            torch.testing.assert_close(maps[i, :length], expected[i, :length, :length].mean(0))
            assert not maps[i, length:].any()
        last = AttentionRelevance(position=-1).measured(runner)[0]
        torch.testing.assert_close(last[2, :4], expected[2, 3, :4])


def test_a_bridged_text_encoder_and_what_it_attends_to() -> None:
    from transformers import BertConfig, BertForMaskedLM

    from analyses.attributing import attribute
    from interp.loading import load_model

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    model = load_model(BertForMaskedLM(BertConfig(vocab_size=30, **small)).eval())
    inputs = model.collate([torch.tensor([3, 9, 4, 11]), torch.tensor([5, 7, 2])])
    methods = [AttentionRelevance(position=0), "AttentionRollout"]
    maps = attribute(model, inputs, "blocks.0", score=lambda output: output.hidden[:, 0, 3], methods=methods)
    for values in maps.values.values():
        assert values.shape == (2, 4) and values[0].min() > 0 and values[1, :3].min() > 0 and values[1, 3] == 0
