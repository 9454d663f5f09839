import torch

from analyses.faithfulness.deletion import Deletion
from analyses.faithfulness.parameter_randomisation import ParameterRandomisation
from analyses.judging import Judgement
from analyses.plots.judgement import judgement


def _found() -> Judgement:
    draw = torch.Generator().manual_seed(0)
    values = {
        ("a", "GradCAM"): {"Deletion": 2 + torch.rand(20, generator=draw), "ParameterRandomisation": torch.zeros(20)},
        ("a", "EigenCAM"): {"Deletion": 1 + torch.rand(20, generator=draw), "ParameterRandomisation": torch.ones(20)},
    }
    return Judgement(values, {"Deletion": Deletion(), "ParameterRandomisation": ParameterRandomisation()})


def test_a_panel_a_judge_with_means_intervals_and_failures() -> None:
    found = _found()
    figure = judgement(found)
    first, second = figure.axes
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["GradCAM", "EigenCAM"]  # the best is on top
    assert first.get_title() == "Deletion ←" and second.get_title() == "ParameterRandomisation ←"
    dots = [line for line in second.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == [0, 1]  # type: ignore[index]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]
    interval = found.interval("a", "GradCAM", "Deletion")
    assert list(first.lines[0].get_xdata()) == [interval.low, interval.high]
    assert second.lines[-1].get_linestyle() == "--" and set(second.lines[-1].get_xdata()) == {0.5}
