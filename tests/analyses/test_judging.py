"""`judge`: what is held fixed, which judges run, and the table."""

from typing import Any

import pytest
import torch

from analyses.attributing import attribute
from analyses.faithfulness.class_sensitivity import ClassSensitivity
from analyses.faithfulness.deletion import Deletion
from analyses.judging import judge, mean
from analyses.scores.class_logit import ClassLogit
from analyses.scores.embedding_norm import EmbeddingNorm

TRUTH = torch.zeros(4, 6, 7, dtype=torch.bool)
TRUTH[:, 2:5, 1:4] = True
SANITY = {"ClassSensitivity", "Deletion", "Insertion", "ParameterRandomisation"}


def test_sanity_checks_run_by_default_and_the_rest_with_the_truth(pictures: Any) -> None:
    model, inputs = pictures().scorer.model, pictures().inputs
    found = judge(["GradCAM", "EigenCAM"], model, inputs, ["first", "second"])
    assert set(found.judges) == SANITY
    assert list(found.values) == [(s, m) for s in ("first", "second") for m in ("GradCAM", "EigenCAM")]
    assert found.failed("second", "EigenCAM")[0] == "ClassSensitivity"
    more = judge("GradCAM", model, inputs, "second", truth=TRUTH)
    assert set(more.judges) == SANITY | {"PointingGame", "EnergyPointingGame", "LocalisationIoU"}
    less = judge("GradCAM", model, inputs, "second", score=lambda output: output[:, 0])
    assert set(less.judges) == SANITY - {"ClassSensitivity"}


def test_a_class_of_the_examples_own_choice_is_held_fixed(pictures: Any) -> None:
    model, inputs = pictures().scorer.model, pictures().inputs
    best = model.module(inputs.tensors["x"]).argmax(1)
    least = model.module(inputs.tensors["x"]).argmin(1)
    own = judge("GradCAM", model, inputs, "second", judges=["Deletion", "ClassSensitivity"], batch_size=3)
    given = judge("GradCAM", model, inputs, "second", judges=["Deletion", "ClassSensitivity"], score=ClassLogit(best))
    for name in ("Deletion", "ClassSensitivity"):
        torch.testing.assert_close(own.values["second", "GradCAM"][name], given.values["second", "GradCAM"][name])
    other = judge(
        "GradCAM", model, inputs, "second", judges=[ClassSensitivity()], score=ClassLogit(best), other=ClassLogit(least)
    )
    assert torch.equal(
        other.values["second", "GradCAM"]["ClassSensitivity"], given.values["second", "GradCAM"]["ClassSensitivity"]
    )


def test_functions_are_judged_like_methods(pictures: Any) -> None:
    model, inputs = pictures().scorer.model, pictures().inputs

    def ours(model: Any, inputs: Any, score: Any) -> torch.Tensor:
        return attribute(model, inputs, "second", score=score, methods=["GradCAM"])["second"]

    one = judge(ours, model, inputs, "second", judges=["Deletion"])
    assert list(one.values) == [("second", "ours")]
    several = judge({"a": ours, "b": lambda *_: torch.rand(4, 6, 7)}, model, inputs, "second", judges=["Deletion"])
    method = judge("GradCAM", model, inputs, "second", judges=["Deletion"])
    for found, key in ((one, "ours"), (several, "a")):
        torch.testing.assert_close(
            found.values["second", key]["Deletion"], method.values["second", "GradCAM"]["Deletion"]
        )


def test_the_table_has_means_intervals_arrows_and_failures(pictures: Any) -> None:
    model, inputs = pictures().scorer.model, pictures().inputs
    found = judge(["GradCAM", "EigenCAM"], model, inputs, "second", judges=[ClassSensitivity(), Deletion(steps=4)])
    lines = str(found).splitlines()
    assert lines[0] == "| site | method | ClassSensitivity ↓ | Deletion(steps=4) ↓ | fails |"
    assert lines[3] == (
        "| second | EigenCAM | 1 [1, 1] | "
        + "{0.value:.3g} [{0.low:.3g}, {0.high:.3g}]".format(found.interval("second", "EigenCAM", "Deletion(steps=4)"))
        + " | ClassSensitivity |"
    )
    assert lines[2].endswith("| - |")
    assert found.best("ClassSensitivity") == ("second", "GradCAM")
    paired = found.difference("ClassSensitivity", ("second", "GradCAM"), ("second", "EigenCAM"))
    assert paired.value < 0 and paired.high is not None and paired.low is not None and paired.low <= paired.value


def test_a_mean_has_the_interval_of_resampled_examples() -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = mean(values)
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(values.std()) / 200**0.5, rel=0.1)


def test_unknown_and_repeated_judges_are_refused(pictures: Any) -> None:
    model, inputs = pictures().scorer.model, pictures().inputs
    with pytest.raises(ValueError, match="judges names 'Delation', but known are ClassSensitivity"):
        judge("GradCAM", model, inputs, "second", judges=["Delation"])
    with pytest.raises(ValueError, match="but at least one is needed, and each once"):
        judge("GradCAM", model, inputs, "second", judges=["Deletion", Deletion()])
    with pytest.raises(ValueError, match="truth is None"):
        judge("GradCAM", model, inputs, "second", judges=["PointingGame"])


def test_passes_for_choices_are_made_one_at_a_time_and_only_where_there_is_a_choice(pictures: Any) -> None:
    runner = pictures()
    model, inputs, sizes = runner.scorer.model, runner.inputs, []
    handle = model.module.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    spots = {"spot": lambda *_: torch.rand(4, 6, 7, dtype=torch.float64)}
    for score, expected in ((ClassLogit(), [3, 1, 3, 1]), (EmbeddingNorm(), [])):
        sizes.clear()
        judge(spots, model, inputs, "input", score=score, truth=TRUTH, judges=["PointingGame"], batch_size=3)
        assert sizes == expected
    handle.remove()
    assert model.module.training  # as it was
