import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses.plots.frontier import frontier, save


def _setting(family, l0, fvu, *, frontier=False, arm=0.0, label="k=8"):
    ends = {
        f"{name}_{end}": v + sign * arm
        for name, v in (("l0", l0), ("fvu", fvu))
        for end, sign in (("low", -1), ("high", 1))
    }
    return {"family": family, "label": label, "l0": l0, "fvu": fvu, "frontier": frontier, **ends}


SETTINGS = [
    _setting("TopK", 4.0, 0.2, frontier=True, label="k=4"),
    _setting("TopK", 8.0, 0.1, label="k=8"),
    _setting("TopK", 9.0, 0.15, label="beaten"),
    _setting("BatchTopK", 7.0, 0.09, frontier=True, arm=0.01, label="k=7"),
]


def test_a_method_is_a_line_through_what_none_of_its_own_beats():
    ax = frontier(SETTINGS, ax=Figure().add_subplot())
    lines = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "None" and len(line.get_xdata())]
    assert lines[:2] == [[[4.0, 0.2], [8.0, 0.1]], [[7.0, 0.09]]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["TopK", "BatchTopK"]
    assert "L0" in ax.get_xlabel()
    assert "FVU" in ax.get_ylabel()


def test_the_frontier_is_full_and_has_labels_and_intervals_their_arms():
    ax = frontier(SETTINGS, ax=Figure().add_subplot())
    full = {tuple(c.lines[0].get_xydata()[0]): c.lines[0].get_markerfacecolor() != "white" for c in ax.containers}
    assert full == {(s["l0"], s["fvu"]): s["frontier"] for s in SETTINGS}
    assert {text.get_text() for text in ax.texts} == {"k=4", "k=7"}
    (arms,) = [c.lines[2] for c in ax.containers if tuple(c.lines[0].get_xydata()[0]) == (7.0, 0.09)]
    across, up = (bar.get_segments()[0] for bar in arms)
    np.testing.assert_allclose(across[:, 0], [6.99, 7.01])
    np.testing.assert_allclose(up[:, 1], [0.08, 0.10])


def test_labels_lie_inside_and_not_over_one_another():
    many = [_setting("M", 4.0 * 1.03**i, 0.2 * 0.98**i, frontier=True, label=f"d_sae=6144, k={i}") for i in range(36)]
    ax = frontier(many)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert 5 < len(boxes) < 36
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert min(box.x0 for box in boxes) >= ax.get_window_extent().x0


def test_scales_are_logarithmic_only_over_large_factors():
    assert frontier(SETTINGS).get_xscale() == "linear"
    wide = frontier([*SETTINGS, _setting("TopK", 99.0, 0.01)])
    assert (wide.get_xscale(), wide.get_yscale()) == ("log", "log")
    assert frontier([*SETTINGS, _setting("TopK", 99.0, 0.0)]).get_yscale() == "linear"


def test_what_was_not_trained_is_left_out_and_nothing_is_refused():
    failed = SETTINGS[0] | {"family": "ReLU", "l0": None, "fvu": None, "frontier": False}
    assert len(frontier([*SETTINGS, failed]).containers) == 4
    with pytest.raises(ValueError, match="settings has none that was trained to the end"):
        frontier([failed])


def test_equal_figures_are_equal_files(tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(frontier(SETTINGS), tmp_path / name)
        found.append([(tmp_path / name / f"frontier.{kind}").read_bytes() for kind in ("png", "svg")])
    assert found[0] == found[1]
