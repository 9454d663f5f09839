import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses.plots.training_curves import METRICS, read_metrics, training_curves


def write_run(folder, jobs=("topk", "relu"), steps=5, end="\n"):
    folder.mkdir(parents=True)
    records = [
        {"step": s, "tokens": 100 * s, "job": job, "loss": 2.0 / (s + 1), "fvu": 0.5 / (s + j + 1), "l0": 8.0 + j}
        | {"dead": 0.01 * s, "grad_norm": 1.0, "lr": 1e-3, "skipped": 0}
        for s in range(steps)
        for j, job in enumerate(jobs)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(record) for record in records) + end)
    return folder


@pytest.mark.parametrize("against", ["tokens", "step"])
@pytest.mark.parametrize("metric", list(METRICS))
def test_lines_hold_the_records(tmp_path, metric, against):
    run = write_run(tmp_path / "run")
    ax = training_curves([run], metric=metric, against=against)
    assert [line.get_label() for line in ax.lines] == ["topk", "relu"]
    for line, records in zip(ax.lines, read_metrics(run).values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [r[against] for r in records])
        np.testing.assert_array_equal(line.get_ydata(), [r[metric] for r in records])
    assert ax.get_ylabel() == METRICS[metric]
    assert ax.get_xlabel().startswith(against)


def test_several_runs_are_told_apart(tmp_path):
    runs = [write_run(tmp_path / name, jobs=("topk",)) for name in ("a", "b")]
    given = Figure().add_subplot()
    ax = training_curves(runs, ax=given)
    assert ax is given
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a topk", "b topk"]
    named = training_curves({"first": runs[0], "second": runs[1] / "metrics.jsonl"})
    assert [line.get_label() for line in named.lines] == ["first topk", "second topk"]


def test_a_skipped_step_is_a_gap(tmp_path):
    run = write_run(tmp_path / "run", jobs=("topk",), steps=2)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "tokens": 200, "job": "topk", "fvu": None}) + "\n")
    assert np.isnan(training_curves([run]).lines[0].get_ydata()[2])


def test_a_torn_last_line_is_left_out_and_a_damaged_one_refused(tmp_path):
    torn = write_run(tmp_path / "torn", jobs=("topk",), end='\n{"step": 5, "tok')
    assert len(read_metrics(torn)["topk"]) == 5
    damaged = write_run(tmp_path / "damaged", jobs=("topk",), end='\n{"step": 5, "tok\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl line 6 is no record of a job"):
        read_metrics(damaged)


def test_refusals_name_the_way_out(tmp_path):
    run = write_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"none.* does not exist: give the folder of a run"):
        training_curves([tmp_path / "none"])
    with pytest.raises(ValueError, match="runs has two folders of one name"):
        training_curves([run, run])
    with pytest.raises(ValueError, match="takes a list of runs"):
        training_curves(str(run))
