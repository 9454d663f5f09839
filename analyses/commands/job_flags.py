"""The flags of `train`: its own, and those of the chosen method, whose names its constructor gives."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from analyses.commands import flags, jobs
from analyses.commands.jobs import JobSpec

T = TypeVar("T")


def read(kind: type[T], argv: Sequence[str], *, prog: str, description: str, default: Any) -> tuple[T, list[JobSpec]]:
    """Read flags into arguments and jobs.

    Flags describe a single job: a new one where `--method` is given, else the only one of the file.

    Args:
        kind: The arguments of `train`.
        argv: The words after the subcommand.
        prog: How the command is called.
        description: Shown above the options.
        default: The arguments where no flag is given, with the file's `jobs`.

    Raises:
        ValueError: If a flag does not fit, or belongs to a job and there is none or more than one.
    """
    base = _base(argv, default.jobs)
    if base is None:
        _refuse_job_flags(argv, len(default.jobs))
    own = [f for f in dataclasses.fields(kind) if f.init]  # type: ignore[arg-type]
    job = _job(base, {f.name for field in own for f in (field, *_nested(field))})
    nested = tyro.conf.OmitArgPrefixes[type(job)]  # type: ignore[misc]  # made just now
    wanted: Any = dataclasses.make_dataclass("Flags", [("job", nested, job)], bases=(kind,), frozen=True)
    filled = wanted(**{f.name: getattr(default, f.name) for f in own})
    found = flags.parse(wanted, argv, prog=prog, description=description, default=filled)
    values = {f.name: getattr(found, f.name) for f in own}
    return kind(**values), list(default.jobs) if base is None else [_spec(base, found.job)]


def _base(argv: Sequence[str], listed: Sequence[JobSpec]) -> JobSpec | None:
    """The job that flags change."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--method=") else [word])]
    if "--method" in words[:-1]:
        return JobSpec(method=jobs.method(words[words.index("--method") + 1]).__name__)
    return listed[0] if len(listed) == 1 else None


def _job(base: JobSpec | None, taken: set[str]) -> Any:
    """A record whose fields are the flags of a job, with the values it has so far."""
    from saes.axes import Axes

    about = f"One job.\n\nArgs:\n    method: File or class of the method, of {', '.join(jobs.method_names())}."
    fields: list[tuple[str, Any]] = [("method", str | None)]
    values: dict[str, Any] = {"method": None}
    if base is not None:
        method = jobs.method(base.method)
        # The run has a seed too, so an SAE's own is given in a file; so is a parametrization, which has keywords.
        taken = taken | {"parametrization"}
        keywords = {name: both for name, both in jobs.keywords(method).items() if name not in taken}
        fields += [("name", str | None), ("lr", float | None), ("target_l0", float | None)]
        fields += [*((name, kind) for name, (kind, _) in keywords.items())]
        values = {
            n: tyro.MISSING if default is dataclasses.MISSING else default for n, (_, default) in keywords.items()
        }
        values |= {name: value for name, value in base.arguments.items() if name in keywords}
        values |= {"method": base.method, "name": base.name, "lr": base.lr, "target_l0": base.target_l0}
        about += "\n    name: Names its file; the class in small letters by default."
        about += "\n    lr: Peak learning rate; by the width where none is given."
        about += "\n    target_l0: L0 that training brings about, for methods that no k fixes."
        for documented in (method, Axes):
            about += "\n" + inspect.cleandoc(documented.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    kind = dataclasses.make_dataclass("Job", fields, frozen=True)
    kind.__doc__ = about
    return kind(**values)


def _nested(field: "dataclasses.Field[Any]") -> tuple["dataclasses.Field[Any]", ...]:
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
    return dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()


def _spec(base: JobSpec, read: Any) -> JobSpec:
    values = {f.name: getattr(read, f.name) for f in dataclasses.fields(read) if f.name != "method"}
    own = {key: values.pop(key) for key in ("name", "lr", "target_l0")}
    return dataclasses.replace(base, **own, arguments=base.arguments | values)


def _refuse_job_flags(argv: Sequence[str], listed: int) -> None:
    """Explain a method's flag where it is not known which job it belongs to."""
    names = {"name", "lr", "target_l0"}.union(*(jobs.keywords(jobs.method(name)) for name in jobs.method_names())) - {
        "seed"
    }
    for word in argv:
        flag = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and flag in names:
            way = f"the file has {listed} jobs, so change it there" if listed else "give --method too"
            raise ValueError(f"{word} belongs to a job, and it is not known which: {way}.")
