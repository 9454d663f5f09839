from typing import Any

import pytest
import torch

from analyses.baselines import baseline_values
from analyses.ledger import attribute_latents
from analyses.running import Runner
from interp.types import Inputs, Site
from saes.topk import TopK


def test_nothing_a_vector_and_other_inputs(pictures: Any) -> None:
    runner = pictures(site="second")
    net, other = runner.scorer.model.module, torch.randn(4, 2, 6, 7).double()
    assert torch.equal(baseline_values(runner, None), torch.zeros_like(runner.values))
    vector = torch.arange(5.0).double()
    assert torch.equal(baseline_values(runner, vector), vector[:, None, None].expand(4, 5, 3, 4))
    made = net.second(net.first(other).tanh()).detach()
    torch.testing.assert_close(baseline_values(runner, Inputs({"x": other})), made)
    some = torch.tensor([3, 1])
    torch.testing.assert_close(baseline_values(runner.some(some), Inputs({"x": other})), made[some])


def test_padding_is_cut_off_where_the_examples_have_theirs_cut_off(texts: Any) -> None:
    runner = texts()
    mask = runner.inputs.mask
    ids = torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(3))
    other = Inputs({"input_ids": ids, "attention_mask": mask}, mask)
    made = runner.scorer.model.module.embed(ids).detach()
    for group in runner.examples.alike():
        alone = Runner(runner.scorer, group, Site("embed"))
        length = group.inputs.mask.shape[1]
        assert torch.equal(baseline_values(alone, other), made[group.numbers, :length])


def test_examples_of_other_lengths_are_refused_in_a_ledger_too(texts: Any) -> None:
    runner = texts()
    ids, mask = runner.inputs.tensors["input_ids"], torch.arange(5) < torch.tensor([5, 3, 4, 1])[:, None]
    sae = TopK(d_in=6, d_sae=12, k=3).double()
    for other in (Inputs({"input_ids": ids, "attention_mask": mask}, mask), Inputs(dict(runner.inputs.tensors))):
        with pytest.raises(ValueError, match="baseline holds data at other positions than inputs, but each position"):
            attribute_latents(
                runner.scorer.model, runner.inputs, sae, score=runner.scorer.score, site="embed", baseline=other
            )
