import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from analyses.plots.diagnosis import diagnosis
from interp.diagnosis import diagnose
from interp.effective_rank import rank_me
from interp.stores.memory import MemoryStore
from interp.types import Activations, Geometry


@pytest.fixture(scope="module")
def planted():
    """Position 0 is a sink, dimension 5 is large, one row is 0."""
    x = torch.randn(1200, 16, generator=torch.Generator().manual_seed(0))
    position = torch.arange(1200) % 6
    x[:, 5] *= 20
    x[position == 0] *= 200
    x[7] = 0
    rows = Activations(x, torch.arange(1200) // 6, position)
    return diagnose(MemoryStore(rows, site="costs.$5_$", geometry=Geometry("grid", (5,), prefix=1)))


def panels(figure):
    return {ax.get_label(): ax for ax in figure.axes}


def lines(ax):
    return {line.get_label(): np.array(line.get_xydata()) for line in ax.lines}


def test_lines_hold_what_was_measured(planted):
    figure, measured = diagnosis(planted), planted.measured
    found = {name: lines(ax) for name, ax in panels(figure).items()}
    np.testing.assert_array_equal(found["position"]["median"][:, 1], measured.norms.quantile(0.5))
    np.testing.assert_array_equal(found["position"]["over twice that of all rows"][:, 0], [0])
    rank = rank_me(measured.centred_spectrum)
    np.testing.assert_array_equal(
        found["spectrum"][f"less the mean: RankMe {rank:.4g}"][:, 1], measured.centred_spectrum
    )
    np.testing.assert_array_equal(
        found["dimension"]["standard deviation"][:, 1], sorted(measured.std.tolist(), reverse=True)
    )
    assert found["dimension"]["over 5 medians"].tolist() == [[1, float(measured.std[5])]]
    assert [text.get_text() for text in panels(figure)["dimension"].texts] == ["5"]
    figure.canvas.draw()  # A dollar sign in a name is no formula.
    assert figure.get_suptitle() == "costs.\\$5_\\$: 1,200 rows of width 16\nwarnings: dimensions, positions, norms"


def test_bars_hold_every_row_that_is_not_zero(planted):
    ax = panels(diagnosis(planted))["norm"]
    assert sum(bar.get_height() for bar in ax.patches) == 1199
    assert ax.get_title() == "Norms (1 rows of 0 left out)"
    far = [bar for bar in ax.patches if bar.get_facecolor() == ax.patches[-1].get_facecolor()]
    assert sum(bar.get_height() for bar in far) == 200
    assert planted.measured.norms.rows.sum() == 1200  # Drawing changes nothing.
    assert diagnosis(planted).axes[3].get_title() == ax.get_title()


def test_rows_without_positions_and_a_given_figure():
    given = Figure()
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    figure = diagnosis(diagnose(MemoryStore.from_values(x)), figure=given)
    assert figure is given
    assert [text.get_text() for text in panels(figure)["position"].texts] == ["all rows are at position 0"]
    assert figure.get_suptitle().endswith("no warnings")
    figure.canvas.draw()


def test_rows_that_are_all_zero_are_drawn():
    figure = diagnosis(diagnose(MemoryStore.from_values(torch.zeros(50, 4))))
    figure.canvas.draw()
    assert panels(figure).keys() >= {"position"} and "constant" in figure.get_suptitle()
