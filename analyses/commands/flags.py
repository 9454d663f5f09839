"""Flags of a dataclass, read by tyro; whatever does not fit becomes one line."""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from analyses.commands.nearness import meant

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], *, prog: str, description: str, default: Any) -> T:
    """Read flags on top of defaults; `--help` prints and ends the process.

    Args:
        kind: The dataclass; nested ones take flat flags (`OmitArgPrefixes`).
        argv: The words after the subcommand.
        prog: How the command is called.
        description: Shown above the options.
        default: Values where no flag is given; `tyro.MISSING` where one must be.

    Raises:
        ValueError: If a flag is unknown (with 'did you mean'), missing or of a wrong type.
    """
    if not {"-h", "--help"} & set(argv):
        _check_known(flags_of(kind), argv, prog)
        _check_given(kind, argv, default)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(argv), prog=prog, description=description, default=default)
    except SystemExit as end:
        if not end.code:
            raise
        raise ValueError(f"{_one_line(said.getvalue())} See {prog} --help.") from None


def flags_of(kind: Any) -> dict[str, bool]:
    """The flags of a dataclass, nested ones with it; whether each can be negated."""
    found: dict[str, bool] = {}
    for name, annotation in typing.get_type_hints(kind, include_extras=True).items():
        markers = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()
        bare = typing.get_args(annotation)[0] if markers else annotation
        if tyro.conf.Positional in markers or tyro.conf.Suppress in markers:
            continue
        if dataclasses.is_dataclass(bare):
            found |= flags_of(bare)
        else:
            found["--" + name.replace("_", "-")] = bare is bool
    return found


def _check_known(flags: Mapping[str, bool], argv: Sequence[str], prog: str) -> None:
    known = {*flags, *("--no-" + flag[2:] for flag, negated in flags.items() if negated)}
    for word in argv:
        if word == "--":
            return
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            near = meant(flag, known)
            raise ValueError(f"{word} is no option: {near if near.startswith('did') else f'see {prog} --help.'}")


def _check_given(kind: Any, argv: Sequence[str], default: Any) -> None:
    given = {word.partition("=")[0].replace("_", "-") for word in argv}
    flags = flags_of(kind)
    missing = [flag for flag in _wanted(default) if flag in flags and flag not in given]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given, as a flag or in the file of --config.")


def _wanted(default: Any) -> Iterator[str]:
    """The flags that have no default."""
    for field in dataclasses.fields(default):
        value = getattr(default, field.name)
        if value is tyro.MISSING:
            yield "--" + field.name.replace("_", "-")
        elif dataclasses.is_dataclass(value):
            yield from _wanted(value)


def _one_line(boxed: str) -> str:
    """What tyro says in the first part of a box: without the box, its title and the help it repeats."""
    lines = [line.strip("╭╰│╮╯ ") for line in boxed.splitlines()]
    rules = [number for number, line in enumerate(lines) if len(line) > 3 and not line.strip("─-")]
    if boxed.lstrip().startswith("╭"):  # The title stands in the box's first line.
        first, last = 1, rules[0] if rules else len(lines)
    else:  # A terminal without Unicode: the title stands above a rule.
        first, last = rules[0] + 1 if rules else 0, rules[1] if len(rules) > 1 else len(lines)
    text = " ".join(" ".join(lines[first:last]).split())
    text = re.sub(r"^Error parsing \w+: (?=\w+ is )", "", text)  # Our own dataclasses' messages.
    return text if text.endswith((".", "!")) else f"{text}."
