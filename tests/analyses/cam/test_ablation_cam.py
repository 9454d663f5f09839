from typing import Any

import pytest
import torch

from analyses.cam.ablation_cam import AblationCAM
from analyses.cam.grad_cam import GradCAM


@pytest.mark.parametrize("relative", [False, True])
def test_equals_the_papers_loop(pictures: Any, relative: bool) -> None:
    runner = pictures(site="second")
    net, x = runner.scorer.model.module, runner.inputs.tensors["x"]
    maps, _ = AblationCAM(relative=relative).measured(runner)
    with torch.no_grad():
        for b in range(4):
            acts = net.second(net.first(x[b : b + 1]).tanh())
            base = net.head(acts.relu().mean((2, 3)))[0, 1]
            expected = torch.zeros(3, 4, dtype=torch.float64)
            for channel in range(5):
                without = acts.clone()
                without[:, channel] = 0
                fall = base - net.head(without.relu().mean((2, 3)))[0, 1]
                expected += (fall / base if relative else fall) * acts[0, channel]
            torch.testing.assert_close(maps[b], expected)


def test_of_one_linear_layer_it_weights_by_gradient_times_sum(pictures: Any) -> None:
    """Where the score is linear in each channel's sum, taking a channel away costs its gradient times that sum."""
    runner = pictures(score=lambda output: output[:, 0])
    runner.scorer.model.module.forward = lambda x: (x.sum((2, 3)) * torch.tensor([2.0, -3.0])).sum(1, keepdim=True)
    maps, _ = AblationCAM().measured(runner)
    acts, grads = runner.values.movedim(1, -1), runner.gradients()[1].movedim(1, -1)
    torch.testing.assert_close(maps, GradCAM()(acts, grads * acts.sum((1, 2), keepdim=True)))


def test_a_score_of_0_has_no_parts(pictures: Any) -> None:
    maps, _ = AblationCAM(relative=True).measured(pictures(score=lambda output: 0 * output[:, 0]))
    assert not maps.any()
