import inspect
import json.decoder
import sys
from pathlib import Path

import pytest

from interp.data import documentation as module
from interp.data.documentation import documentation


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """A site-packages of its own: 3 packages, one of them ours, one file broken, copies of one docstring."""
    for package, size in (("large", 64), ("small", 1), ("interp", 2)):
        folder = tmp_path / package
        (folder / "tests").mkdir(parents=True)
        (folder / "tests" / "test_it.py").write_text('"""A unit test that nobody should ever read as text."""')
        for i in range(size):
            body = f'class C:\n    """Class {i} of {package}, described at some length."""\n'
            (folder / f"m{i}.py").write_text(f'"""A copy that stands in every module of all packages."""\n{body}')
    (tmp_path / "large" / "broken.py").write_text('"""Old."""\nprint "hello"')
    (tmp_path / "single.py").write_text('def f():\n    """A function of a package that is one file."""')
    (tmp_path / "data-1.0.dist-info").mkdir()
    monkeypatch.setattr(module.sysconfig, "get_path", lambda kind: str(tmp_path))
    return tmp_path


def test_every_docstring_once_with_its_labels(installed):
    rows = documentation(split="all")
    assert len({row["text"] for row in rows}) == len(rows) == 64 + 1 + 1 + 1  # classes, the function, the copy once
    assert {row["package"] for row in rows} == {"large", "small", "single"}
    assert rows.skipped == 1
    row = next(row for row in rows if row["package"] == "single")
    assert row == {
        "text": "A function of a package that is one file.",
        "package": "single",
        "module": "single",
        "kind": "function",
    }


def test_a_short_prefix_touches_small_packages_and_equals_the_whole_cut(installed):
    rows = documentation(split="all")
    assert {"small", "single"} <= {row["package"] for row in rows[:12]}
    prefix = documentation(split="all", max_items=12)
    assert list(prefix) == list(rows[:12])
    assert prefix.fingerprint == rows[:12].fingerprint != rows.fingerprint


def test_splits_are_by_module_and_share_no_text(installed):
    train, held_out = documentation(held_out=0.3), documentation(split="held_out", held_out=0.3)
    assert not {row["module"] for row in train} & {row["module"] for row in held_out}
    assert not {row["text"] for row in train} & {row["text"] for row in held_out}
    everything = documentation(split="all")
    assert {row["text"] for row in train} | {row["text"] for row in held_out} == {row["text"] for row in everything}
    assert 0.1 < len(held_out) / len(everything) < 0.5
    assert len(documentation(split="held_out", held_out=0.0)) == 0


def test_min_chars_and_named_packages(installed):
    assert all(len(row["text"]) >= 50 for row in documentation(split="all", min_chars=50))
    assert {row["package"] for row in documentation(["interp"], split="all")} == {"interp"}


def test_real_packages_read_as_inspect_sees_them(monkeypatch):
    root = Path(json.decoder.__file__).parents[1]
    monkeypatch.setattr(module.sysconfig, "get_path", lambda kind: str(root))
    before = set(sys.modules)
    rows = [row for row in documentation(["json"], split="all", min_chars=0) if row["module"] == "json.decoder"]
    assert set(sys.modules) == before
    assert inspect.getdoc(json.decoder.JSONDecoder) in {row["text"] for row in rows if row["kind"] == "class"}
    assert inspect.getdoc(json.decoder.JSONDecoder.decode) in {row["text"] for row in rows if row["kind"] == "method"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"packages": ["larg"]}, r"packages names 'larg'.*near: large"),
        ({"split": "test"}, r"'test'"),  # By the shape checker when it is on, by us when it is off.
        ({"held_out": 1.5}, r"held_out is 1.5"),
    ],
)
def test_errors_name_the_way_out(installed, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        documentation(**arguments)
