from typing import Any

import pytest
import torch
from torch.nn import functional

from analyses.attribution.rise import RISE


def test_equals_the_papers_sum_over_masks(pictures: Any) -> None:
    runner = pictures()
    net, x = runner.scorer.model.module, runner.inputs.tensors["x"]
    method = RISE(masks=6, cells=3, shown=0.4, baseline=0.1, center=False)
    expected = torch.zeros(4, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        for number in range(6):
            mask = method.mask(number, (6, 7)).double()
            for b in range(4):
                expected[b] += net((mask * x[b] + (1 - mask) * 0.1)[None])[0, 1] * mask / (6 * 0.4)
    torch.testing.assert_close(method.measured(runner)[0], expected)


def test_a_constant_in_the_score_is_no_matter(pictures: Any) -> None:
    near, far = (pictures(score=lambda output, c=c: output[:, 1] + c) for c in (0, 1000))
    torch.testing.assert_close(RISE(masks=20, cells=3).measured(near)[0], RISE(masks=20, cells=3).measured(far)[0])
    papers = [RISE(masks=20, cells=3, center=False).measured(runner)[0] for runner in (near, far)]
    assert float((papers[1] - papers[0]).abs().max()) > 100


@pytest.mark.parametrize("grid", [(6, 7), (32, 32), (3, 40), (11,)])
def test_masks_cover_the_grid_and_show_what_they_should(grid: tuple[int, ...]) -> None:
    method = RISE(masks=400, cells=5, shown=0.3)
    masks = torch.stack([method.mask(number, grid) for number in range(400)])
    assert masks.shape == (400, *grid) and masks.amin() >= 0 and masks.amax() < 1 + 1e-5
    assert (masks.mean(0) - 0.3).abs().max() < 0.12  # each position as often as any other
    assert not torch.equal(masks[0], masks[1])


def test_masks_are_smooth_where_cells_are_wide() -> None:
    mask = RISE(cells=4).mask(0, (64, 64))
    step = 64 // 4
    assert mask.diff(dim=0).abs().max() <= 1 / step + 1e-6
    coarse = functional.avg_pool2d(mask[None, None], step)[0, 0]
    assert coarse.std() > 0.05


def test_finds_the_only_place_that_matters(pictures: Any) -> None:
    runner = pictures(score=lambda output: output[:, 0])
    runner.scorer.model.module.forward = lambda x: x[:, :, 4, 5].abs().sum(1, keepdim=True)
    maps, _ = RISE(masks=800, cells=6).measured(runner)
    assert maps.flatten(1).argmax(1).tolist() == [4 * 7 + 5] * 4


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="RISE has 0 masks of 7 cells shown with probability 0.5"):
        RISE(masks=0)
    with pytest.raises(ValueError, match="shown with probability 1.0"):
        RISE(shown=1.0)


def test_in_half_precision_it_is_the_same_map() -> None:
    from analyses.passes import Examples, Scorer
    from analyses.running import Runner
    from interp.models.torch_module import TorchModel
    from interp.types import Inputs, Site

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(144, 1))
    net[3].bias.data.fill_(10)  # what is subtracted is large beside what is left
    x = torch.randn(2, 2, 8, 8)
    maps = []
    for dtype in (torch.float32, torch.bfloat16):
        model = TorchModel(net.to(dtype))
        scorer = Scorer(model, lambda output: output[:, 0].float())
        runner = Runner(scorer, Examples.all(Inputs({"x": x.bfloat16().to(dtype)})), Site("input"))
        maps.append(RISE(masks=300, cells=4).measured(runner)[0].float().flatten())
    assert float(torch.corrcoef(torch.stack(maps))[0, 1]) > 0.7
