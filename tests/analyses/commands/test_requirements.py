import tomllib
from importlib import metadata
from pathlib import Path

from analyses.commands import requirements

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


def test_a_checkout_and_an_installation_ask_for_the_same(monkeypatch):
    def missing(_name):
        raise metadata.PackageNotFoundError

    for name in ("version", "metadata", "requires"):
        monkeypatch.setattr(metadata, name, missing)
    assert requirements.version() == PROJECT["version"]
    assert requirements.python() == PROJECT["requires-python"]
    assert requirements.dependencies() == PROJECT["dependencies"]
    monkeypatch.setattr(metadata, "version", lambda _name: "9.9")
    monkeypatch.setattr(metadata, "metadata", lambda _name: {"Requires-Python": ">=3.11"})
    monkeypatch.setattr(metadata, "requires", lambda _name: ["torch>=2.11", 'gt-model==0.1.0; extra == "demo"'])
    assert requirements.version() == "9.9"
    assert requirements.python() == ">=3.11"
    assert requirements.dependencies() == ["torch>=2.11"]
