from dataclasses import dataclass

import pytest
import tyro

from analyses.commands.flags import _one_line, flags_of, parse


@dataclass(frozen=True)
class Shared:
    batch_size: int = 4

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError("batch_size is below 1, but it is positive: give such.")


@dataclass(frozen=True)
class Arguments:
    """Some arguments.

    Args:
        files: What to read.
        store: Where.
        fast: Whether to hurry.
    """

    files: tyro.conf.Positional[tuple[str, ...]]
    store: str
    fast: bool = False
    shared: tyro.conf.OmitArgPrefixes[Shared] = Shared()


def read(*words, **default):
    filled = Arguments(**{"files": tyro.MISSING, "store": tyro.MISSING} | default)
    return parse(Arguments, words, prog="unweave x", description="About.", default=filled)


def test_flags_win_over_defaults_of_any_depth():
    default = {"files": ("a",), "store": "s", "fast": True, "shared": Shared(7)}
    assert read(**default) == Arguments(**default)
    found = read("b", "c", "--batch-size", "9", "--no-fast", "--store=t", **default)
    assert found == Arguments(("b", "c"), "t", False, Shared(9))
    assert flags_of(Arguments) == {"--store": False, "--fast": True, "--batch-size": False}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stroe", "s"], r"^--stroe is no option: did you mean --store\?$"),
        (["--qqqqq"], r"^--qqqqq is no option: see unweave x --help\.$"),
        (["a"], r"^--store must be given, as a flag or in the file of --config\.$"),
        (["a", "--store", "s", "--batch-size", "many"], r"^Error parsing --batch-size: invalid literal .*'many'\. See"),
        (["a", "--store", "s", "--batch-size", "0"], r"^batch_size is below 1, but it is positive: give such\. See"),
        (["a", "--store"], r"^Missing value for argument '--store'"),
    ],
)
def test_errors_are_one_short_line(words, message, capsys):
    with pytest.raises(ValueError, match=message) as caught:
        read(*words)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 160
    assert capsys.readouterr().err == ""


def test_help_shows_what_each_flag_means(capsys):
    with pytest.raises(SystemExit) as end:
        read("--help")
    assert not end.value.code
    said = capsys.readouterr().out
    for words in ("About.", "--store STR", "Whether to hurry.", "--batch-size INT"):
        assert words in said


@pytest.mark.parametrize(
    "box",
    [
        """
╭─ Value error ──────────────────────╮
│ Error parsing training: rate is 0, │
│ but it is positive: give such.     │
│ ────────────────────────────────── │
│ For full helptext, see x --help    │
╰────────────────────────────────────╯
""",
        """
 Value error
 ------------------------------------
  Error parsing training: rate is 0,
  but it is positive: give such.
  -----------------------------------
  For full helptext, see x --help

""",
    ],
)
def test_a_box_is_unpacked_whatever_the_terminal(box):
    assert _one_line(box.lstrip("\n")) == "rate is 0, but it is positive: give such."
