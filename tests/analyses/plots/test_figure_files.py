import warnings

import matplotlib.pyplot as plt

from analyses.plots.figure_files import png


def test_equal_figures_are_equal_bytes_and_closed() -> None:
    def drawn() -> bytes:
        figure = plt.figure(figsize=(1, 1))
        figure.text(0, 0.5, "日")  # a character that may have no font
        return png(figure)

    before = plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = drawn()
    assert first == drawn()
    assert first.startswith(b"\x89PNG") and b"matplotlib" not in first.lower()
    assert plt.get_fignums() == before
