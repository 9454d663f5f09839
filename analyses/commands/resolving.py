"""A subcommand's arguments: flag over file over default."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro

from analyses.commands import flags, yaml_file
from analyses.commands.plain import MisfitError, record_from_plain

_EVERYWHERE = "Every subcommand also takes --config FILE.yaml (its arguments; a flag wins over the file), "
_EVERYWHERE += "--print-config (print them resolved and end) and --debug (show where an error comes from)."


@dataclass(frozen=True)
class General:
    """What every subcommand takes.

    Args:
        config: The file of arguments.
        print_config: Print the resolved arguments and end.
        debug: Let errors show their trace.
    """

    config: Path | None = None
    print_config: bool = False
    debug: bool = False


def split(argv: Sequence[str]) -> tuple[General, list[str]]:
    """Take the general options out of the words after a subcommand.

    Raises:
        ValueError: If `--config` is given twice, or without a file.
    """
    rest: list[str] = []
    files: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            files.append(next(words, ""))
        elif word.startswith("--config="):
            files.append(word.removeprefix("--config="))
        elif word not in ("--print-config", "--debug"):
            rest.append(word)
    if len(files) > 1 or files == [""]:
        raise ValueError(f"--config takes one file, but {len(files) if files[0] else 'none'} came: give one YAML file.")
    return General(Path(files[0]) if files else None, "--print-config" in argv, "--debug" in argv), rest


def resolved(module: ModuleType, argv: Sequence[str], file: Path | None, *, prog: str) -> Any:
    """The arguments of one call.

    A module whose flags depend on values (`train`: on the method) gives `read_flags`, called like `flags.parse` without
    the dataclass; one whose files come in several shapes gives `adapted`, which turns any into the usual one.

    Raises:
        ValueError: If the file or a flag does not fit; the message names the file and the key, or the flag.
    """
    kind = module.Arguments
    plain = yaml_file.read(file) if file else {}
    try:
        default = record_from_plain(kind, getattr(module, "adapted", dict)(plain), missing=tyro.MISSING)
        return _flagged(module, argv, prog, default)
    except MisfitError as error:
        raise ValueError(f"{file}: {error}" if file else str(error)) from error


def _flagged(module: ModuleType, argv: Sequence[str], prog: str, default: Any) -> Any:
    description = f"{inspect.getdoc(module)}\n\n{_EVERYWHERE}"
    if hasattr(module, "read_flags"):
        return module.read_flags(argv, prog=prog, description=description, default=default)
    return flags.parse(module.Arguments, argv, prog=prog, description=description, default=default)
