import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyses.commands import doctor, main

ROOT = Path(__file__).parents[3]


def process(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, check=False, **options
    )


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["hravest"]])
def test_the_overview_imports_nothing_heavy_and_is_quick(words):
    code = (
        "import sys; from analyses.commands.main import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'tyro', 'yaml', 'numpy', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    start = time.perf_counter()
    ended = process("-c", code, *words)
    assert ended.returncode == 0, ended.stderr
    assert time.perf_counter() - start < 1


def test_it_runs_as_a_module_from_anywhere(tmp_path):
    ended = process("-m", "analyses.commands.main", "--version", cwd=tmp_path)
    assert ended.stdout.startswith("unweave ")
    assert process("-m", "analyses.commands.main", cwd=tmp_path).returncode == 2


def test_a_closed_pipe_ends_quietly():
    code = (
        "import os, sys; from analyses.commands import main, doctor\n"
        "doctor.run = lambda _: (os.close(1), os.dup2(os.pipe()[1], 1), print('x' * 100000, flush=True))\n"
        "r, w = os.pipe(); os.close(r)\n"
        "doctor.run = lambda _: (os.dup2(w, 1), print('x' * 100000, flush=True))\n"
        "sys.exit(main.main(['doctor']))"
    )
    ended = process("-c", code)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_help_lists_every_subcommand(unweave):
    code, said, _ = unweave("--help")
    assert code == 0
    assert "\n  harvest     Run a model over a dataset" in said
    assert unweave()[0] == 2


@pytest.mark.parametrize(
    ("word", "said"), [("hravest", "did you mean harvest?"), ("qqq", "known are demo, diagnose, dictionary")]
)
def test_a_mistyped_subcommand(unweave, word, said):
    code, _, complaint = unweave(word, "--help")
    assert code == 2
    assert complaint.startswith(f"unweave: {word!r} is no subcommand: {said}")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("x is 3,\n  but not 4: give 4."), "x is 3, but not 4: give 4."),
        (FileNotFoundError(2, "No such file or directory", "a/b"), "No such file or directory: a/b"),
        (OSError("no hub here"), "no hub here"),
        (OSError(28, "could not write x: make room"), "could not write x: make room"),
        (FloatingPointError("no finite loss"), "no finite loss"),
        (ModuleNotFoundError("No module named 'x'"), "No module named 'x'. Install unweave again"),
    ],
)
def test_what_the_user_can_mend_is_one_line(unweave, monkeypatch, error, said):
    def run(_arguments):
        raise error

    monkeypatch.setattr(doctor, "run", run)
    assert unweave("doctor") == (2, "", f"unweave doctor: {said}\n")
    with pytest.raises(type(error)):
        main.main(["doctor", "--debug"])


def test_a_missing_package_sends_to_the_doctor(unweave, monkeypatch):
    from analyses.commands import demo

    def run(_arguments):
        raise ModuleNotFoundError("No module named 'x'")

    monkeypatch.setattr(demo, "run", run)
    assert unweave("demo") == (2, "", "unweave demo: No module named 'x'. unweave doctor says what is missing\n")


def test_a_bug_keeps_its_trace(monkeypatch, capsys):
    def run(_arguments):
        raise KeyError("ours")

    monkeypatch.setattr(doctor, "run", run)
    with pytest.raises(KeyError, match="ours"):
        main.main(["doctor"])
    assert capsys.readouterr().err.startswith("unweave doctor: this is a bug of unweave")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("harvest", "run the same command again to go on"),
        ("train", "run the same command again with --resume to go on"),
        ("dictionary", "run the same command again to go on"),
        ("doctor", "run the same command again"),
    ],
)
def test_ctrl_c_says_how_to_go_on(unweave, monkeypatch, name, way):
    from analyses.commands import resolving

    def stop(*_words, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(resolving, "resolved", stop)
    code, said, complaint = unweave(name)
    assert (code, said) == (130, "")
    assert complaint.startswith(f"unweave {name}: stopped; {way}")
    assert complaint.count("\n") == 1
