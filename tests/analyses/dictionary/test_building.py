import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyses.dictionary.bundle import FeatureDictionary

build = FeatureDictionary.build


class StoppedError(Exception):
    pass


@pytest.fixture
def interrupted(planted):
    """Directions that fail after a number of calls of `encode`."""

    def make(calls):
        directions = planted()
        encode, left = directions.encode, [calls]

        def failing(x):
            if left[0] == 0:
                raise StoppedError
            left[0] -= 1
            return encode(x)

        directions.encode = failing
        return directions

    return make


def test_equal_builds_give_equal_bytes_whatever_the_batches_and_the_memory(planted, store, tmp_path, contents):
    assert len(store) > 2048
    expected = contents(build(planted(), store, tmp_path / "first", progress=False).path)
    for name, options in {
        "again": {},
        "batches": {"batch_rows": 1024},
        "odd": {"batch_rows": 1500, "checkpoint_rows": 1},
    }.items():
        assert contents(build(planted(), store, tmp_path / name, progress=False, **options).path) == expected, name


def test_codes_that_do_not_fit_are_encoded_again(planted, store, tmp_path, contents, monkeypatch):
    expected = contents(build(planted(), store, tmp_path / "first", progress=False).path)
    monkeypatch.setattr("analyses.dictionary.building.Build._keep", lambda self, start, codes: None)
    assert contents(build(planted(), store, tmp_path / "second", progress=False).path) == expected


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 4, 5])
def test_a_build_interrupted_anywhere_ends_with_the_same_bytes(
    calls, interrupted, planted, store, tmp_path, contents, monkeypatch
):
    expected = contents(build(planted(), store, tmp_path / "first", progress=False).path)
    monkeypatch.setattr("analyses.dictionary.building.Build._keep", lambda self, start, codes: None)
    path = tmp_path / "second"
    options = {"batch_rows": 1024, "checkpoint_rows": 1, "progress": False}
    with pytest.raises(StoppedError):
        build(interrupted(calls), store, path, **options)
    assert not path.exists()
    assert contents(build(planted(), store, path, batch_rows=2048, progress=False).path) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]


def test_what_is_there_is_kept_unless_overwritten(planted, interrupted, make_store, store, tmp_path, contents):
    path = tmp_path / "dict"
    before = contents(build(planted(), store, path, progress=False).path)
    assert (
        contents(build(interrupted(0), store, path, progress=False).path) == before
    )  # The same build: opened as it is.
    with pytest.raises(ValueError, match="dict exists and is not this build: choose another path, or pass overwrite"):
        build(planted(seed=4), store, path, progress=False)
    with pytest.raises(ValueError, match="overwrite=True"):
        build(planted(), make_store(seed=9), path, progress=False)
    with pytest.raises(StoppedError):
        build(interrupted(0), store, path, overwrite=True, progress=False)
    assert contents(path) == before
    after = contents(build(planted(seed=4), store, path, overwrite=True, progress=False).path)
    assert after != before and [p.name for p in tmp_path.iterdir()] == ["dict"]


def test_an_unfinished_build_is_not_continued_with_something_else(interrupted, planted, store, tmp_path):
    path = tmp_path / "dict"
    with pytest.raises(StoppedError):
        build(interrupted(2), store, path, batch_rows=1024, checkpoint_rows=1, progress=False)
    with pytest.raises(ValueError, match=r"dict\.building is an unfinished build of other directions, data"):
        build(planted(seed=4), store, path, progress=False)
    with pytest.raises(ValueError, match="unfinished build"):
        build(planted(), store, path, top=3, progress=False)
    build(planted(), store, path, top=3, overwrite=True, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["dict"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_what_was_there_and_a_way_on(call, request, planted, store, tmp_path, contents):
    failing_disk = request.getfixturevalue("failing_disk")
    expected = contents(build(planted(), store, tmp_path / "first", progress=False).path)
    path = tmp_path / "second"
    before = contents(build(planted(seed=4), store, path, progress=False).path)
    options = {"batch_rows": 1024, "checkpoint_rows": 1, "progress": False, "overwrite": True}
    for index in itertools.count():
        try:
            with failing_disk(call=call, index=index, error=(errno.ENOSPC, errno.EIO)[index % 2]):
                build(planted(), store, path, **options)
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EIO)
            assert "run the same command again" in str(error)
            # Only where the bundle itself is said to be in place is it the new one; a checkpoint may be, too.
            replaced = f"could not write {path}: " in str(error) and "in place" in str(error)
            assert contents(path) == (expected if replaced else before)
        else:
            break
    assert index > 1
    assert contents(build(planted(), store, path, **options).path) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from tests.analyses.dictionary.conftest import Planted, planted_store
from analyses.dictionary.bundle import FeatureDictionary
print("ready", flush=True)
FeatureDictionary.build(
    Planted(), planted_store(examples=300), sys.argv[1], batch_rows=1024, checkpoint_rows=1, progress=False
)
"""


def killed_builds(path: Path, kills: int, seed: int) -> None:
    """Start the build and kill it at a random moment, a number of times; then let it end."""
    program = PROGRAM.format(root=str(Path(__file__).resolve().parents[3]))
    draw = random.Random(seed)
    for left in range(kills, -1, -1):
        process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        if left:
            time.sleep(draw.uniform(0, 0.5))
            os.kill(process.pid, signal.SIGKILL)
        code = process.wait()
        process.stdout.close()
    assert code == 0


def test_a_killed_build_ends_with_the_same_bytes(planted, make_store, tmp_path, contents):
    expected = contents(build(planted(), make_store(examples=300), tmp_path / "first", progress=False).path)
    killed_builds(tmp_path / "second", kills=1, seed=0)
    assert contents(tmp_path / "second") == expected


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_many_kills_end_with_the_same_bytes(seed, planted, make_store, tmp_path, contents):
    expected = contents(build(planted(), make_store(examples=300), tmp_path / "first", progress=False).path)
    killed_builds(tmp_path / "second", kills=20, seed=seed)
    assert contents(tmp_path / "second") == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]
