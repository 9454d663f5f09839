from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from analyses.attribution.attention_rollout import AttentionRollout
from analyses.patterns import checked_patterns, pattern_sites, row
from interp.models.torch_module import TorchModel
from interp.types import Place, Site


def test_patterns_come_in_the_order_of_blocks() -> None:
    net = nn.ModuleList(nn.Identity() for _ in range(12))
    names = [f"blocks.{i}.attn.hook_pattern" for i in (10, 2, 0, 11, 1, 3, 4, 5, 6, 7, 8, 9)]
    parts = {name: Place(net[0], index=1) for name in [*names, "stages.0.blocks.0.attn.hook_pattern"]}
    model = TorchModel(net, parts=parts, aliases={"encoder.0.pattern": names[2]})
    assert [str(site) for site in pattern_sites(model)] == [f"blocks.{i}.attn.hook_pattern" for i in range(12)]


def test_a_model_without_patterns_says_the_way_out(pictures: Any) -> None:
    with pytest.raises(
        ValueError, match=r"Convolutions shows no attention patterns .*load_model\(..., attention='eager'\)"
    ):
        AttentionRollout().measured(pictures())


def test_blocks_that_attend_to_other_positions_are_refused() -> None:
    a, b = Site("blocks.0.attn.hook_pattern"), Site("blocks.1.attn.hook_pattern")
    square = torch.zeros(2, 3, 5, 5)
    assert all(torch.equal(one, square) for one in checked_patterns({a: square, b: square}, [a, b]))
    for other in (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 5, 4), torch.zeros(2, 5, 5)):
        with pytest.raises(
            ValueError, match=r"blocks.1.attn.hook_pattern holds a pattern of shape .* same 5 positions"
        ):
            checked_patterns({a: square, b: other}, [a, b])


def test_a_site_of_other_positions_is_refused(patches: Any) -> None:
    for site, found in (("input", 48), ("embed", 12), ("head", 1)):
        with pytest.raises(
            ValueError, match=rf"{site} has {found} positions, but the attention of Patches is over 13, prefix tokens"
        ):
            AttentionRollout().measured(patches(site=site))


def test_a_row_is_that_of_a_position_that_is_there(patches: Any, words: Any) -> None:
    matrices = torch.arange(4 * 13 * 13.0).view(4, 13, 13)
    runner = patches()
    torch.testing.assert_close(row(runner, matrices, None), matrices[:, 0, 1:].view(4, 3, 4))
    torch.testing.assert_close(row(runner, matrices, -1), matrices[:, -1, 1:].view(4, 3, 4))
    for position in (13, -14):
        with pytest.raises(ValueError, match=f"position is {position}, but an example has 13 positions"):
            row(runner, matrices, position)
    matrices, runner = matrices[:, :5, :5], words()
    torch.testing.assert_close(row(runner, matrices, -1)[0], matrices[0, 4])
    torch.testing.assert_close(row(runner, matrices, -1)[1, :2], matrices[1, 1, :2])
    torch.testing.assert_close(row(runner, matrices, None)[2, :4], matrices[2, :4, :4].mean(0))
    with pytest.raises(ValueError, match="position is 1, but an example has 1 positions"):
        row(runner, matrices, 1)


def test_padding_before_the_data_is_no_position(words: Any) -> None:
    matrices, runner = torch.arange(4 * 25.0).view(4, 5, 5), words()
    held = runner.held.flip(1)
    turned: Any = SimpleNamespace(
        geometry=runner.geometry, values=runner.values, vectors=runner.vectors, held=held, site=runner.site
    )
    unchecked: Any = getattr(row, "__wrapped__", row)
    torch.testing.assert_close(unchecked(turned, matrices, 0)[1, 3:], matrices[1, 3, 3:])
    torch.testing.assert_close(unchecked(turned, matrices, -1)[1, 3:], matrices[1, 4, 3:])
    assert not unchecked(turned, matrices, None)[1, :3].any()
