"""The `unweave` command: finds the subcommand, reads its arguments, turns errors into one line."""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

from analyses.commands.discovering import module_of, subcommands
from analyses.commands.nearness import meant

_DONE, _BUG, _WRONG = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: The words after `unweave`; those of the process by default.

    Returns:
        The exit code: 0; 1 for a bug of ours or what `doctor` finds broken; 2 for what the user can mend; 130 after
        Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return _DONE if words else _WRONG
    if words[0] in ("-V", "--version"):
        from analyses.commands.requirements import version

        print(f"unweave {version()}")
        return _DONE
    known = subcommands()
    if words[0] not in known:
        return _say("unweave", f"{words[0]!r} is no subcommand: {meant(words[0], known)}", _WRONG)
    prog = f"unweave {words[0]}"
    return _guarded(lambda: _call(words[0], words[1:], prog), prog, words[0], debug="--debug" in words)


def _overview() -> str:
    known = subcommands()
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {summary}" for name, summary in known.items()]
    return "\n".join(
        [
            "usage: unweave SUBCOMMAND [OPTIONS]",
            "",
            "Read what self-supervised models compute, learn the directions they compute with, explain with them.",
            "",
            *lines,
            "",
            "unweave SUBCOMMAND --help lists its options; unweave --version prints the version.",
        ]
    )


def _call(name: str, words: Sequence[str], prog: str) -> None:
    from analyses.commands import resolving, yaml_file
    from analyses.commands.plain import to_plain

    general, rest = resolving.split(words)
    module = importlib.import_module(module_of(name))
    arguments = resolving.resolved(module, rest, general.config, prog=prog)
    if general.print_config:
        print(yaml_file.written(to_plain(arguments)), end="")
    else:
        module.run(arguments)


def _guarded(call: Callable[[], None], prog: str, name: str, *, debug: bool) -> int:
    """Call, and give the exit code that its end deserves."""
    try:
        call()
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _DONE if end.code is None else _say(prog, end.code, _WRONG)
    except KeyboardInterrupt:
        how = getattr(sys.modules.get(module_of(name)), "GO_ON", "run the same command again to start over")
        return _say(prog, f"stopped; {how}.", 128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader (head, less) has gone; the interpreter's last flush must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if debug:
            raise
        return _say(prog, _message(error, prog), _WRONG)
    except Exception:
        print(f"{prog}: this is a bug of unweave; please report it with what follows.", file=sys.stderr)
        raise
    return _DONE


def _message(error: Exception, prog: str) -> str:
    way = "Install unweave again" if prog.endswith("doctor") else "unweave doctor says what is missing"
    if isinstance(error, ImportError):
        return f"{error}. {way}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _say(prog: str, message: object, code: int) -> int:
    print(f"{prog}: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
