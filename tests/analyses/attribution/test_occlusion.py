from typing import Any

import pytest
import torch

from analyses.attribution.occlusion import Occlusion


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 2), (4, 3), (9, 9)])
def test_equals_the_loop_over_windows_and_examples(pictures: Any, window: int, stride: int) -> None:
    runner = pictures()
    net, x = runner.scorer.model.module, runner.inputs.tensors["x"]

    def starts(size: int) -> list[int]:
        found = list(range(0, max(size - window, 0), stride))
        return [*found, max(size - window, 0)]

    falls, times = torch.zeros(4, 6, 7, dtype=torch.float64), torch.zeros(6, 7, dtype=torch.float64)
    with torch.no_grad():
        for i in starts(6):
            for j in starts(7):
                times[i : i + window, j : j + window] += 1
                for b in range(4):
                    covered = x[b : b + 1].clone()
                    covered[:, :, i : i + window, j : j + window] = 0.2
                    falls[b, i : i + window, j : j + window] += (net(x[b : b + 1]) - net(covered))[0, 1]
    torch.testing.assert_close(Occlusion(window, stride, baseline=0.2).measured(runner)[0], falls / times)


def test_a_linear_score_falls_by_what_is_covered(pictures: Any) -> None:
    weights = torch.randn(2, 6, 7, dtype=torch.float64)
    runner = pictures(score=lambda output: output[:, 0])
    runner.scorer.model.module.forward = lambda x: (x * weights).sum((1, 2, 3))[:, None]
    maps, _ = Occlusion(1, 1).measured(runner)
    torch.testing.assert_close(maps, (runner.inputs.tensors["x"] * weights).sum(1))


def test_windows_that_leave_gaps_are_refused() -> None:
    for window, stride in ((2, 3), (0, 0), (2, 0)):
        with pytest.raises(
            ValueError, match=f"window is {window} and stride {stride}, but windows cover every position"
        ):
            Occlusion(window, stride)
