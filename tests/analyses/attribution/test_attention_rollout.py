"""Attention rollout against loops, and where it can be told by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from analyses.attributing import attribute
from analyses.attribution.attention_rollout import AttentionRollout
from interp.capturing import capture
from interp.types import Inputs


def _patterns(blocks: int = 3, b: int = 2, h: int = 2, p: int = 5) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(b, h, p, p, generator=draw, dtype=torch.float64).softmax(-1) for _ in range(blocks)]


def _by_loops(patterns: list[Tensor], fuse: str = "mean", residual: float = 0.5, drop: int = 0) -> list[list[float]]:
    """One example, as the paper writes it: A = r I + (1 - r) W, rows renormalised; rollout_l = A_l rollout_(l-1)."""
    p = patterns[0].shape[-1]
    rolled = [[float(i == j) for j in range(p)] for i in range(p)]
    for heads in patterns:
        block = []
        for i in range(p):
            looks = [[float(head[i, j]) for head in heads] for j in range(p)]
            fused = [{"mean": sum(part) / len(part), "max": max(part), "min": min(part)}[fuse] for part in looks]
            for j in sorted(range(p), key=lambda j: fused[j])[:drop]:
                fused[j] = 0.0
            line = [residual * (i == j) + (1 - residual) * fused[j] for j in range(p)]
            block.append([part / sum(line) for part in line])
        rolled = [[sum(block[i][k] * rolled[k][j] for k in range(p)) for j in range(p)] for i in range(p)]
    return rolled


@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
@pytest.mark.parametrize(("residual", "discard", "drop"), [(0.5, 0.0, 0), (0.0, 0.0, 0), (0.3, 0.5, 2), (0.0, 0.9, 4)])
def test_equals_loops_and_rows_are_shares(fuse: Any, residual: float, discard: float, drop: int) -> None:
    patterns = _patterns()
    found = AttentionRollout(fuse=fuse, residual=residual, discard=discard).rollout(patterns)
    for i in range(2):
        expected = _by_loops([pattern[i] for pattern in patterns], fuse, residual, drop)
        torch.testing.assert_close(found[i], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 5).double())
    assert found.min() >= 0


def test_attention_that_is_alike_everywhere_gives_a_flat_map_and_attention_to_oneself_none() -> None:
    uniform = [torch.full((1, 2, 5, 5), 0.2).double()] * 4
    for discard in (0.0, 0.6):  # what is equal stays together
        rolled = AttentionRollout(discard=discard).rollout(uniform)
        away = (1 - 0.5**4) / 5
        torch.testing.assert_close(rolled[0], away + 0.5**4 * torch.eye(5).double())
    alone = [torch.eye(5).double().expand(1, 2, 5, 5)] * 4
    torch.testing.assert_close(AttentionRollout().rollout(alone)[0], torch.eye(5).double())


def test_a_planted_path_leads_to_the_planted_token() -> None:
    """The class token looks at 3 in the last block, and 3 at 1, at 4 in the one before it."""
    first, second = (torch.eye(5).double().expand(1, 1, 5, 5).clone() for _ in range(2))
    first[0, 0, 3] = torch.tensor([0, 1.0, 0, 0, 0])
    second[0, 0, 0] = torch.tensor([0, 0, 0, 1.0, 0])
    rolled = AttentionRollout(residual=0.0).rollout([first, second])
    assert rolled[0, 0].tolist() == [0, 1, 0, 0, 0]
    rolled = AttentionRollout().rollout([first, second])
    assert rolled[0, 0].tolist() == [0.5, 0.25, 0, 0.25, 0]


def test_order_of_positions_and_of_heads_does_not_matter() -> None:
    patterns, order = _patterns(), torch.tensor([0, 3, 1, 4, 2])
    method = AttentionRollout(fuse="max", discard=0.4)
    moved = [pattern.flip(1)[:, :, order][..., order] for pattern in patterns]
    torch.testing.assert_close(method.rollout(moved), method.rollout(patterns)[:, order][..., order])


def test_padding_is_as_if_it_were_not_there() -> None:
    patterns, held = _patterns(p=6), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    short = [(pattern[1:, :, :4, :4] / pattern[1:, :, :4, :4].sum(-1, keepdim=True)) for pattern in patterns]
    padded = [
        torch.cat([p[:1], torch.nn.functional.pad(s, (0, 2, 0, 2))]) for p, s in zip(patterns, short, strict=True)
    ]
    for method in (AttentionRollout(), AttentionRollout(discard=0.5, residual=0.0)):
        torch.testing.assert_close(method.rollout(padded, held)[1:, :4, :4], method.rollout(short))
        torch.testing.assert_close(method.rollout(padded, held)[:1], method.rollout([p[:1] for p in patterns]))


def test_a_map_is_the_class_tokens_row_and_without_one_the_mean_of_all(patches: Any, words: Any) -> None:
    runner = patches()
    sites = ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    patterns = list(capture(runner.scorer.model, runner.inputs, sites).values.values())
    rolled = AttentionRollout().rollout(patterns)
    torch.testing.assert_close(AttentionRollout().measured(runner)[0], rolled[:, 0, 1:].view(4, 3, 4))
    torch.testing.assert_close(AttentionRollout(position=5).measured(runner)[0], rolled[:, 5, 1:].view(4, 3, 4))
    # Nothing is asked of the score, and at whichever block, the map is the whole model's.
    torch.testing.assert_close(AttentionRollout().measured(patches(site="blocks.1"))[0], rolled[:, 0, 1:].view(4, 3, 4))
    runner = words()
    maps, details = AttentionRollout().measured(runner)
    assert not details
    for i, length in enumerate((5, 2, 4, 1)):
        alone = Inputs({name: value[i : i + 1, :length] for name, value in runner.inputs.tensors.items()})
        rolled = AttentionRollout().rollout(list(capture(runner.scorer.model, alone, sites).values.values()))
        torch.testing.assert_close(maps[i, :length], rolled[0].mean(0))
        assert not maps[i, length:].any()
        torch.testing.assert_close(AttentionRollout(position=-1).measured(runner)[0][i, :length], rolled[0, -1])
        torch.testing.assert_close(AttentionRollout(position=0).measured(runner)[0][i, :length], rolled[0, 0])


def test_models_of_transformers(patches: Any) -> None:
    """A ViT with registers, through the driver; one that shows no patterns says how it would."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    from interp.loading import load_model

    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        image_size=12, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_register_tokens=2
    )
    plain = Dinov2WithRegistersModel(config).eval()
    inputs = Inputs({"pixel_values": torch.randn(3, 3, 12, 12)})
    with pytest.raises(ValueError, match=r"which makes no pattern: load_model\(..., attention='eager'\)"):
        attribute(load_model(plain), inputs, "blocks.1", methods=["AttentionRollout"])
    model = load_model(plain, attention="eager")
    maps = attribute(model, inputs, ["blocks.1", "embed"], methods=["AttentionRollout"], batch_size=2)
    own = model.module(inputs.tensors["pixel_values"], output_attentions=True).attentions
    rolled = AttentionRollout().rollout([part.detach() for part in own])
    for site in ("blocks.1", "embed"):
        torch.testing.assert_close(maps[site, "AttentionRollout"], rolled[:, 0, 3:].view(3, 3, 3))
    assert maps.upsampled()["blocks.1", "AttentionRollout"].shape == (3, 12, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": 1.0}, "residual is 1.0 and discard 0.0, but both are shares"),
        ({"discard": -0.1}, "residual is 0.5 and discard -0.1, but both are shares"),
        ({"fuse": "sum"}, "fuse"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        AttentionRollout(**options)
