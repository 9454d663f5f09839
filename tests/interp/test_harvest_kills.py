import contextlib
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.harvesting import harvest
from interp.stores.disk import DiskStore

SITES = ["blocks.0", "blocks.1"]
OPTIONS: dict[str, Any] = {"labels": ["kind"], "loss": "next_token", "max_norm_ratio": 3.0, "chunk_examples": 8}
ROOT = Path(__file__).parents[2]

# Imports once, then forks a process for every line of input. Pauses are put where a kill hurts: inside a file.
_SERVER = """
import importlib.util, json, os, sys, time
root, sites, options = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, root)
spec = importlib.util.spec_from_file_location("tiny_text", root + "/tests/tiny_text.py")
tiny = sys.modules["tiny_text"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
import torch
import interp.stores.disk
from interp import durability
from interp.harvesting import harvest
torch.set_num_threads(1)
class Slow:
    pause = 0.0
    def __getattr__(self, name): return getattr(os, name)
    def write(self, fd, data):
        time.sleep(self.pause)
        return os.write(fd, data[: max(1, len(data) // 2)])
durability.os = Slow()
print(0, flush=True)
for line in sys.stdin:
    path, n, Slow.pause = json.loads(line)
    child = os.fork()
    if not child:
        try:
            harvest(tiny.TinyText(), tiny.sentences(n), sites, path, rows_per_shard=40, **options)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class _Server:
    """Starts harvests in processes of their own."""

    def __init__(self) -> None:
        arguments = [sys.executable, "-c", _SERVER, str(ROOT), json.dumps(SITES), json.dumps(OPTIONS)]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )
        self._line()  # it has imported all it needs

    def start(self, path: Path, n: int, pause: float) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(path), n, pause]) + "\n")
        self._process.stdin.flush()
        return self._line()

    def status(self) -> int:
        """Of the process started last, when it has ended: 0, or the signal that killed it."""
        return self._line()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    server = _Server()
    yield server
    server.close()


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _kill_and_go_on(server: _Server, tmp_path: Path, *, kills: int, seed: int, n: int) -> None:
    """Kill one harvest again and again at random moments, let it end, and compare every byte."""
    pause, rng = 0.002, random.Random(seed)
    start = time.perf_counter()
    server.start(tmp_path / "whole", n, pause)
    assert server.status() == 0
    duration, killed = time.perf_counter() - start, 0
    for _ in range(kills):
        process = server.start(tmp_path / "killed", n, pause)
        time.sleep(rng.uniform(0, 3 * duration / kills))
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(process, signal.SIGKILL)
        killed += server.status() == signal.SIGKILL
    server.start(tmp_path / "killed", n, pause)
    assert server.status() == 0
    assert killed > 0
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["killed", "whole"]


def test_kills_at_random_moments_leave_no_trace(server: _Server, tmp_path: Path) -> None:
    _kill_and_go_on(server, tmp_path, kills=3, seed=0, n=30)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_many_kills_leave_no_trace(server: _Server, tmp_path: Path, seed: int) -> None:
    _kill_and_go_on(server, tmp_path, kills=20, seed=seed, n=200)


class _Killed(BaseException):
    """Stands for a kill: nothing that cleans up may count on catching it."""


@pytest.mark.parametrize(("call", "error"), [("write", errno.ENOSPC), ("fsync", errno.EIO), ("replace", errno.EIO)])
def test_a_failing_disk_costs_no_byte(
    tiny_text: Any, sentences: Any, tmp_path: Path, failing_disk: Any, call: str, error: int
) -> None:
    """Each call in turn fails; the message helps, the earlier store stays, and the same command ends the same."""
    items, options = sentences(8), OPTIONS | {"rows_per_shard": 60}
    harvest(tiny_text, items, SITES, tmp_path / "whole", **options)
    harvest(tiny_text, items, SITES, tmp_path / "old", **options | {"max_length": 8})
    whole, old = _bytes(tmp_path / "whole"), _bytes(tmp_path / "old")
    index, failed = 0, True
    while failed:
        path = tmp_path / f"{call}-{index}"
        harvest(tiny_text, items, SITES, path, **options | {"max_length": 8})
        with failing_disk(call, index, error) as disk:
            try:
                harvest(tiny_text, items, SITES, path, overwrite=True, **options)
            except OSError as refused:
                assert "run the same command again to go on" in str(refused)  # where it fails varies
        failed = disk.failed
        if path.exists():  # between two renames neither store has the name; the new one is complete beside it
            assert _bytes(path) in (old, whole)
            DiskStore(path, SITES[0]).verify()
        harvest(tiny_text, items, SITES, path, overwrite=_bytes(path) == old if path.exists() else True, **options)
        assert _bytes(path) == whole
        assert not list(tmp_path.glob("*.partial"))
        assert not list(tmp_path.glob("*.replaced"))
        index += 1
    assert index > 10


def test_a_kill_between_any_two_files(
    tiny_text: Any, sentences: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill before each rename, without any clean-up: half-written files and stale progress must not matter."""
    items, options = sentences(16), OPTIONS | {"rows_per_shard": 50}
    harvest(tiny_text, items, SITES, tmp_path / "whole", **options)
    whole = _bytes(tmp_path / "whole")
    for after in range(len(whole)):
        path = tmp_path / f"{after}"
        with monkeypatch.context() as patch:
            _dies_after(patch, after)
            with pytest.raises(_Killed):
                harvest(tiny_text, items, SITES, path, **options)
        with pytest.raises(ValueError, match="run the same command again"):
            DiskStore(path, SITES[0])
        harvest(tiny_text, items, SITES, path, **options)
        assert _bytes(path) == whole
        assert not path.with_name(f"{after}.partial").exists()


def _dies_after(patch: pytest.MonkeyPatch, renames: int) -> None:
    real, calls = os.replace, itertools.count()

    def replace(a: Path, b: Path) -> None:
        if next(calls) >= renames:
            raise _Killed
        real(a, b)

    patch.setattr("interp.durability.os.replace", replace)
    patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up


def _interrupted(model: Any, items: Any, path: Path, failing_disk: Any, **options: Any) -> None:
    with failing_disk("replace", 25), pytest.raises(OSError, match="run the same command again"):
        harvest(model, items, SITES, path, rows_per_shard=40, **OPTIONS | options)
    assert (path.with_name(path.name + ".partial") / "progress.json").exists()


def test_a_resume_refuses_what_would_not_fit(
    tiny_text: Any, sentences: Any, tmp_path: Path, failing_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "h", OPTIONS | {"rows_per_shard": 40}
    _interrupted(tiny_text, sentences(40), path, failing_disk)
    with pytest.raises(ValueError, match=r"policy\.max_length was 64, is 32.*overwrite=True"):
        harvest(tiny_text, sentences(40), SITES, path, **options, max_length=32)
    with pytest.raises(ValueError, match="from another dataset: its first .* Give the same dataset in the same order"):
        harvest(tiny_text, sentences(40, seed=1), SITES, path, **options)
    with monkeypatch.context() as patch:
        patch.setattr("torch.get_num_threads", lambda: 99)
        with pytest.raises(ValueError, match=r"begun with threads was \d+, is 99.*pass exact=False"):
            harvest(tiny_text, sentences(40), SITES, path, **options)
        harvest(tiny_text, sentences(40), SITES, path, **options, exact=False)
    harvest(tiny_text, sentences(40), SITES, tmp_path / "whole", **options)
    assert _bytes(path) == _bytes(tmp_path / "whole")


def test_overwrite_starts_anew_where_a_resume_would_not_fit(
    tiny_text: Any, sentences: Any, tmp_path: Path, failing_disk: Any
) -> None:
    _interrupted(tiny_text, sentences(40), tmp_path / "h", failing_disk)
    options = OPTIONS | {"rows_per_shard": 30}
    harvest(tiny_text, sentences(30, seed=1), SITES, tmp_path / "h", overwrite=True, **options)
    harvest(tiny_text, sentences(30, seed=1), SITES, tmp_path / "whole", **options)
    assert _bytes(tmp_path / "h") == _bytes(tmp_path / "whole")


def test_a_resume_does_no_finished_work_again(
    tiny_text: Any, sentences: Any, tmp_path: Path, failing_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(tiny_text, sentences(40), tmp_path / "h", failing_disk)
    progress = json.loads((tmp_path / "h.partial/progress.json").read_bytes())
    seen: list[str] = []
    real = tiny_text.tokenize
    monkeypatch.setattr(tiny_text, "tokenize", lambda texts, length: seen.extend(texts) or real(texts, length))
    harvest(tiny_text, sentences(40), SITES, tmp_path / "h", rows_per_shard=40, **OPTIONS)
    later = [item["text"] for item in sentences(40)[progress["tally"]["items"] :]]
    assert progress["tally"]["items"] >= 8
    assert seen == [text for text in later if text]


def test_a_damaged_shard_is_not_built_upon(tiny_text: Any, sentences: Any, tmp_path: Path, failing_disk: Any) -> None:
    _interrupted(tiny_text, sentences(40), tmp_path / "h", failing_disk)
    file = tmp_path / "h.partial/blocks.0/values-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"values-00000.*the file was cut"):
        harvest(tiny_text, sentences(40), SITES, tmp_path / "h", rows_per_shard=40, **OPTIONS)
    harvest(tiny_text, sentences(40), SITES, tmp_path / "h", rows_per_shard=40, overwrite=True, **OPTIONS)
    DiskStore(tmp_path / "h", SITES[0]).verify()


def test_two_processes_do_not_share_a_folder(server: _Server, tiny_text: Any, sentences: Any, tmp_path: Path) -> None:
    process = server.start(tmp_path / "h", 40, 0.05)
    while not (tmp_path / "h.partial/address-00000.safetensors").exists():
        time.sleep(0.01)
    try:
        with pytest.raises(ValueError, match="another process is harvesting into"):
            harvest(tiny_text, sentences(40), SITES, tmp_path / "h", rows_per_shard=40, **OPTIONS)
    finally:
        os.kill(process, signal.SIGKILL)
        server.status()
