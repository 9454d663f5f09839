from typing import Any

import pytest
import torch
from torch.nn import functional

from analyses.cam.score_cam import ScoreCAM


@pytest.mark.parametrize("site", ["first", "input"])
def test_equals_the_papers_loop(pictures: Any, site: str) -> None:
    runner = pictures(site=site)
    net, x = runner.scorer.model.module, runner.inputs.tensors["x"]
    maps, _ = ScoreCAM().measured(runner)
    with torch.no_grad():
        for b in range(4):
            image = x[b : b + 1]
            acts = image if site == "input" else net.first(image)
            rises = []
            for channel in acts[0]:
                grown = functional.interpolate(channel[None, None], size=(6, 7), mode="bilinear", align_corners=False)
                mask = (grown - grown.min()) / (grown.max() - grown.min())
                rises.append((net(image * mask) - net(torch.zeros_like(image)))[0, 1])
            weights = torch.stack(rises).softmax(0)
            torch.testing.assert_close(maps[b], (weights[:, None, None] * acts[0]).sum(0))


def test_a_constant_channel_lets_nothing_through(pictures: Any) -> None:
    runner = pictures()
    runner.inputs.tensors["x"][:, 0] = 2.0
    first, second = ScoreCAM()._shown(runner, runner.at_input(), runner.vectors(runner.values))
    assert not first.any() and second.any()
    assert ScoreCAM().measured(runner)[0].isfinite().all()
