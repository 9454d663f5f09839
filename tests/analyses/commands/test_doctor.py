import subprocess
import sys
from pathlib import Path

import pytest

from analyses.commands import environment, requirements

ROOT = Path(__file__).parents[3]


def lines(said):
    return {tuple(line.split()[:2]): line for line in said.splitlines()}


def test_all_is_well_here(unweave):
    code, said, complaint = unweave("doctor")
    assert (code, complaint) == (0, "")
    found = lines(said)
    for subject in ("interp", "saes", "analyses", "python", "torch", "tyro", "threads", "cpu"):
        assert ("ok", subject) in found
    assert str(ROOT / "saes") in found["ok", "saes"]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (["torch>=99"], r"but torch>=99 is needed: pip install 'torch>=99'"),
        (["no-such-package>=1"], r"not installed: pip install 'no-such-package>=1'"),
    ],
)
def test_a_missing_or_old_dependency_ends_with_1_and_the_way_out(unweave, monkeypatch, asked, line):
    monkeypatch.setattr(requirements, "dependencies", lambda: asked)
    code, said, _ = unweave("doctor")
    assert code == 1
    assert line in said
    assert said.splitlines()[-1].startswith("1 broken")


def test_an_old_python_and_a_torch_that_does_not_load(unweave, monkeypatch):
    def broken():
        raise OSError("libcudart.so: cannot open\nmore")

    monkeypatch.setattr(requirements, "python", lambda: ">=99")
    monkeypatch.setattr(environment, "torch_devices", broken)
    code, said, _ = unweave("doctor")
    assert code == 1
    assert "but >=99 is needed" in lines(said)["broken", "python"]
    assert "cannot be imported (libcudart.so: cannot open): install it anew" in lines(said)["broken", "torch"]


@pytest.mark.parametrize("shape", ["saes/__init__.py", "saes.py"])
def test_what_shadows_our_packages_is_named(tmp_path, shape):
    other = tmp_path / shape
    other.parent.mkdir(exist_ok=True)
    other.write_text("")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
        "from analyses.commands import environment; "
        "print(*(f'{place.name} {place.problem}' for place in environment.own_packages()), sep='\\n')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    shadow = other.parent if shape.endswith("__init__.py") else other
    way = f"saes is shadowed by {shadow}: rename that, or start from another folder (ours is {ROOT / 'saes'})"
    assert ended.stdout.splitlines() == ["interp ", way, "analyses "], ended.stderr


def test_a_shadowed_package_is_broken(unweave, monkeypatch):
    place = environment.Place("saes", None, "is shadowed by x: rename that")
    monkeypatch.setattr(environment, "own_packages", lambda: iter([place]))
    code, said, _ = unweave("doctor")
    assert code == 1
    assert "is shadowed by x: rename that" in lines(said)["broken", "saes"]


def test_a_distribution_that_brings_our_names_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(environment.metadata, "packages_distributions", lambda: {"saes": ["saes", "unweave"]})
    monkeypatch.setattr(environment, "_found", lambda name: [tmp_path / "site-packages" / name])
    problems = {place.name: place.problem for place in environment.own_packages()}
    assert problems["saes"].endswith("of the distribution 'saes': pip uninstall saes")
    assert "rename that, or start from another folder" in problems["interp"]
    monkeypatch.setattr(environment, "_found", lambda _name: [])
    assert "cannot be found" in next(iter(environment.own_packages())).problem


def test_copies_later_on_the_path_are_noted(monkeypatch, tmp_path, unweave):
    (tmp_path / "interp").mkdir()
    (tmp_path / "interp" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    code, said, _ = unweave("doctor")
    assert code == 0
    assert f"another one is at {tmp_path / 'interp'}" in lines(said)["note", "interp"]
