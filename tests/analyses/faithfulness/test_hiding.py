"""Curves against a loop, and closed forms where the score is a sum of positions."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from analyses.faithfulness.base import Case
from analyses.faithfulness.deletion import Deletion
from analyses.faithfulness.hiding import areas, covered, random_cells
from analyses.faithfulness.insertion import Insertion
from interp.models.torch_module import TorchModel
from interp.types import Inputs, Site


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.sum((1, 2, 3))


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_curves_equal_a_loop_over_pictures_and_steps(baseline: Any, case: Any) -> None:
    given = case()
    ((runner, maps),) = given.runs()
    found = Deletion(steps=5, baseline=baseline).curve(runner, maps)
    for i, x in enumerate(given.inputs.tensors["x"]):
        order = sorted(range(42), key=lambda place: -float(maps[i].flatten()[place]))
        for step in range(6):
            hidden = x.clone().flatten(1)
            for place in order[: round(step * 42 / 5)]:
                hidden[:, place] = 0 if baseline == "zero" else x.flatten(1).mean(1)
            score = given.model.module(hidden.view(1, 2, 6, 7))[0, int(given.score.index[i])]
            torch.testing.assert_close(found[i, step], score.detach(), rtol=1e-12, atol=1e-12)


def test_the_true_map_has_the_best_areas_of_a_sum() -> None:
    """Of a sum of positions, no order hides more, or less, at each step than that of their values."""
    x = torch.rand(3, 1, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = Case(lambda *_: x[:, 0], TorchModel(Sums()), Inputs({"x": x}), lambda output: output, Site("input"))
    deletion, insertion = Deletion(20, "zero")(best), Insertion(20, "zero")(best)
    ordered = x.flatten(1).sort(dim=1, descending=True).values
    left = torch.cat([ordered.sum(1, keepdim=True), ordered.sum(1, keepdim=True) - ordered.cumsum(1)], dim=1)
    torch.testing.assert_close(deletion, areas(left))
    torch.testing.assert_close(insertion, ordered.sum(1) - areas(left))
    for seed in range(1, 6):
        draw = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other = Case(lambda *_, draw=draw: draw, best.model, best.inputs, best.score, best.site)
        assert bool((Deletion(20, "zero")(other) > deletion).all())
        assert bool((Insertion(20, "zero")(other) < insertion).all())


def test_blur_is_a_gaussian_of_reflected_pictures(case: Any) -> None:
    given = case()
    ((runner, _),) = given.runs()
    (found,) = covered(runner, iter([torch.ones(4, 42, dtype=torch.bool)]), "blur")
    x = given.inputs.tensors["x"]
    for axis, reach in ((2, 5), (3, 6)):
        weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / 5) ** 2)
        lines = functional.pad(x.movedim(axis, -1), (reach, reach, 0, 0), mode="reflect")
        windows = lines.unfold(-1, 2 * reach + 1, 1)
        x = ((windows * weights).sum(-1) / weights.sum()).movedim(-1, axis)
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)


def test_a_text_has_no_blur(text_case: Any) -> None:
    with pytest.raises(ValueError, match="a grid of 1 axes is no picture: choose 'mean'"):
        Insertion(baseline="blur")(text_case())


def test_cells_are_whole_and_drawn_by_the_seed_alone() -> None:
    drawn = torch.stack([random_cells(i, (6, 9), 3, 0.4, 0) for i in range(400)]).view(400, 3, 2, 3, 3)
    assert bool((drawn == drawn[:, :, :1, :, :1]).all())
    assert abs(float(drawn.double().mean()) - 0.4) < 0.03
    assert torch.equal(random_cells(7, (6, 9), 3, 0.4, 0), drawn[7].flatten())
    assert not torch.equal(random_cells(7, (6, 9), 3, 0.4, 1), drawn[7].flatten())


def test_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="steps is 0 and baseline 'mean', but"):
        Deletion(steps=0)
