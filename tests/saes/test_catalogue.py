from pathlib import Path

from saes.catalogue import table
from saes.loading import methods

README = Path(__file__).parents[2] / "README.md"


def test_readme_shows_the_methods_that_there_are() -> None:
    shown = README.read_text().partition("<!-- methods -->\n")[2].partition("\n<!-- /methods -->")[0]
    assert shown == table(), "run `python -m saes.catalogue` and put what it prints between the marks"


def test_every_method_has_a_line_with_its_paper() -> None:
    lines = table().splitlines()
    for name in methods():
        (line,) = [line for line in lines if f".{name}`" in line]
        assert "](http" in line
        assert "`k`" in line or "`target_l0`" in line or "`mass`" in line
