import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp import durability
from interp.harvesting import harvest
from interp.stores.appended import appended
from interp.stores.appending import append
from interp.stores.disk import DiskStore, open_stores
from interp.stores.paired import paired
from interp.types import Activations

SITES = ("blocks.0", "blocks.1")
OPTIONS: dict[str, Any] = {"labels": ["kind"], "loss": "next_token", "chunk_examples": 16}


def _equal(a: Activations, b: Activations) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("values", "example", "position", "grads"))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def made(tiny_text: Any, sentences: Any, tmp_path: Path, tmp_path_factory: Any) -> dict[str, Path]:
    """Three harvests of one model: a of 24 examples, b of 10 at the sites in another order, c of 8."""
    once = tmp_path_factory.getbasetemp() / "appending"
    for name, n, sites, rows in (("a", 24, SITES, 90), ("b", 10, SITES[::-1], 70), ("c", 8, SITES, 200)):
        items = sentences(n, seed=ord(name))
        if not (once / name).exists():
            harvest(tiny_text, items, sites, once / name, rows_per_shard=rows, **OPTIONS)
        shutil.copytree(once / name, tmp_path / name)
    return {name: tmp_path / name for name in "abc"}


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)


def test_rows_on_disk_are_those_appended_in_memory(made: dict[str, Path]) -> None:
    parts = {name: open_stores(path) for name, path in made.items()}
    expected = {site: appended([parts[name][site] for name in "abc"]) for site in parts["a"]}
    append(made["a"], made["b"])
    for site, store in append(made["a"], made["c"]).items():
        twin = expected[site]
        assert len(store) == len(twin)
        for seed in (None, 0, 1):
            pairs = zip(store.batches(64, seed=seed, epochs=2), twin.batches(64, seed=seed, epochs=2), strict=True)
            assert all(_equal(a, b) for a, b in pairs)
        assert _equal(next(store.batches(64, seed=1, start_step=5)), next(twin.batches(64, seed=1, start_step=5)))
        for index in range(42):
            assert _equal(store.example(index), twin.example(index))
            assert (store.items[index].pieces, store.items[index].labels) == (
                twin.items[index].pieces,
                twin.items[index].labels,
            )
        assert len(store.items) == 42
        assert store.provenance == twin.provenance
        assert store.fingerprint != parts["a"][site].fingerprint
        store.verify()
    paired(*open_stores(made["a"]).values())


def test_a_store_read_meanwhile_stays_what_it_was(made: dict[str, Path]) -> None:
    before = DiskStore(made["a"], SITES[0])
    rows = before.span(0, len(before))
    append(made["a"], made["b"])
    assert _equal(before.span(0, len(before)), rows)
    assert _equal(DiskStore(made["a"], SITES[0]).span(0, len(rows)), rows)
    shutil.rmtree(made["b"])
    DiskStore(made["a"], SITES[1]).verify()


def test_manifests_are_equal_however_it_was_put_together(made: dict[str, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for copy in (first, second):
        shutil.copytree(made["a"], copy)
    append(first, made["b"])
    append(first, made["c"])
    append(made["b"], made["c"])
    append(second, made["b"])
    assert _bytes(first) == _bytes(second)
    offsets = [shard.get("example_offset", 0) for shard in json.loads(_bytes(first)["manifest.json"])["shards"]]
    assert sorted(set(offsets)) == [0, 24, 34]


def test_files_are_linked_or_copied(made: dict[str, Path], tmp_path: Path, no_links: None) -> None:
    shutil.copytree(made["a"], tmp_path / "copied")
    append(tmp_path / "copied", made["b"])
    assert all(file.stat().st_nlink == 1 for file in tmp_path.glob("copied/**/*.safetensors"))


def test_a_link_takes_no_room(made: dict[str, Path]) -> None:
    append(made["a"], made["b"])
    for file in made["b"].rglob("*.safetensors"):
        assert file.stat().st_nlink == 2


def test_rows_that_are_there_are_not_added_again(made: dict[str, Path], tiny_text: Any, sentences: Any) -> None:
    append(made["a"], made["b"])
    once = _bytes(made["a"])
    for again in (made["b"], made["a"]):
        append(made["a"], again)
        assert _bytes(made["a"]) == once
    items, short, longer = sentences(24), made["a"].with_name("short"), made["a"].with_name("longer")
    harvest(tiny_text, items[:16], SITES, short, rows_per_shard=90, **OPTIONS)
    harvest(tiny_text, items, SITES, longer, rows_per_shard=90, **OPTIONS)
    with pytest.raises(ValueError, match=r"shard 0 of .*longer is in .*short already, and others are not: appending"):
        append(short, longer)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"max_length": 8},
            r"c2 has policy.max_length 8, but .*/a has 64: rows of one folder are of one kind; harvest",
        ),
        ({"dtype": "float32"}, "has dtype 'float32', but .* has 'bfloat16'"),
        ({"first": "drop"}, "has policy.first 'drop', but .* has 'keep'"),
        ({"loss": None}, "has policy.loss None, but .* has 'next_token'"),
        ({"sites": SITES[:1]}, "has site blocks.1 of None, but .* has .8, "),
        ({"model": 1}, "has model '.*', but .* has '"),
    ],
)
def test_other_rows_are_refused(
    made: dict[str, Path], tiny_text: Any, sentences: Any, changed: dict[str, Any], message: str
) -> None:
    options: dict[str, Any] = OPTIONS | changed
    sites, model = options.pop("sites", SITES), options.pop("model", 0)
    other = type(tiny_text)(seed=1) if model else tiny_text
    harvest(other, sentences(4), sites, made["c"].with_name("c2"), **options)
    before = _bytes(made["a"])
    with pytest.raises(ValueError, match=message):
        append(made["a"], made["c"].with_name("c2"))
    assert _bytes(made["a"]) == before


def test_how_rows_are_batched_may_differ(made: dict[str, Path], tiny_text: Any, sentences: Any) -> None:
    options = OPTIONS | {"labels": [], "chunk_examples": 3, "batch_tokens": 100, "max_tokens": 20, "rows_per_shard": 9}
    added = harvest(tiny_text, sentences(4), SITES, made["c"].with_name("c2"), **options)
    before, more = len(DiskStore(made["a"], SITES[0])), next(iter(added.values()))
    store = append(made["a"], made["c"].with_name("c2"))[tiny_text.site(SITES[0])]
    assert len(store) == before + len(more)
    assert torch.equal(store.span(before, len(store)).values, more.span(0, len(more)).values)


def test_damaged_and_unfinished_folders_are_refused(made: dict[str, Path], tmp_path: Path) -> None:
    before = DiskStore(made["a"], SITES[0])
    file = made["b"] / "blocks.1/values-00001.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"b/blocks\.1/values-00001.* its content was changed"):
        append(made["a"], made["b"])
    assert DiskStore(made["a"], SITES[0]).fingerprint == before.fingerprint
    with pytest.raises(ValueError, match="there is no such folder"):
        append(tmp_path / "nowhere", made["b"])
    made["c"].rename(tmp_path / "c.partial")
    with pytest.raises(ValueError, match="c is not finished"):
        append(made["a"], made["c"])
    file.write_bytes(whole)
    append(made["a"], made["b"])
    DiskStore(made["a"], SITES[1]).verify()


def _whole(made: dict[str, Path], tmp_path: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What the folder holds before and after."""
    shutil.copytree(made["a"], tmp_path / "whole")
    append(tmp_path / "whole", made["b"])
    return _bytes(made["a"]), _bytes(tmp_path / "whole")


def _check_readable(path: Path, old: dict[str, bytes], whole: dict[str, bytes]) -> None:
    """The manifest is the old or the new one, and all it lists is there."""
    assert _bytes(path)["manifest.json"] in (old["manifest.json"], whole["manifest.json"])
    for store in open_stores(path).values():
        store.verify()


@pytest.mark.parametrize(("call", "error"), [("write", errno.ENOSPC), ("fsync", errno.EIO), ("replace", errno.EIO)])
@pytest.mark.parametrize("links", [True, False])
def test_a_failing_disk_costs_nothing(
    made: dict[str, Path], tmp_path: Path, failing_disk: Any, request: Any, call: str, error: int, links: bool
) -> None:
    if not links:
        request.getfixturevalue("no_links")
    old, whole = _whole(made, tmp_path)
    for index in itertools.count():
        path = tmp_path / f"{call}-{index}"
        shutil.copytree(made["a"], path)
        with failing_disk(call, index, error) as disk:
            try:
                append(path, made["b"])
            except OSError as refused:
                assert "run the same command again to go on" in str(refused)  # where it fails varies
        _check_readable(path, old, whole)
        append(path, made["b"])
        assert _bytes(path) == whole
        shutil.rmtree(path)
        if not disk.failed:
            break
    assert index >= (1 if links else 9)


class _KilledError(BaseException):
    """Stands for a kill: nothing that cleans up may count on catching it."""


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_before_any_step(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any, links: bool
) -> None:
    if not links:
        request.getfixturevalue("no_links")
    old, whole = _whole(made, tmp_path)
    for steps in itertools.count(step=1 if links else 3):  # A copy is 4 steps: no place in it is left out for good.
        path = tmp_path / f"{steps}"
        shutil.copytree(made["a"], path)
        with monkeypatch.context() as patch:
            left = _dies_after(patch, steps)
            with contextlib.suppress(_KilledError):
                append(path, made["b"])
        _check_readable(path, old, whole)
        append(path, made["b"])
        assert _bytes(path) == whole
        shutil.rmtree(path)
        if next(left) > 0:
            break
    assert steps > 10


def _dies_after(patch: pytest.MonkeyPatch, steps: int) -> Iterator[int]:
    """Let so many calls to the disk through; what is given counts the steps that were left over."""
    left = iter(range(steps, -1000, -1))

    def guarded(name: str) -> Any:
        real = getattr(os, name)

        def call(*args: Any) -> Any:
            if next(left) <= 0:
                raise _KilledError
            return real(*args)

        return call

    calls = {name: guarded(name) for name in ("write", "fsync", "replace", "link")}
    patch.setattr(durability, "os", SimpleNamespace(**{name: getattr(os, name) for name in dir(os)} | calls))
    patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up
    return left


@pytest.mark.soak
@pytest.mark.parametrize("links", [True, False])
def test_many_kills_leave_no_trace(made: dict[str, Path], tmp_path: Path, request: Any, links: bool) -> None:
    if not links:
        request.getfixturevalue("no_links")
    old, whole = _whole(made, tmp_path)
    rng, killed, path = random.Random(0), 0, tmp_path / "killed"
    for _ in range(15):
        shutil.copytree(made["a"], path)
        for _ in range(4):
            child = os.fork()
            if not child:
                _slowly(path, made["b"])
            time.sleep(rng.uniform(0, 0.06 if links else 0.3))
            os.kill(child, signal.SIGKILL)
            killed += os.waitpid(child, 0)[1] == signal.SIGKILL
            _check_readable(path, old, whole)
        append(path, made["b"])
        assert _bytes(path) == whole
        shutil.rmtree(path)
    assert killed > 5


def _slowly(path: Path, more: Path) -> None:
    """In a process of its own: pauses where a kill hurts."""

    def paused(name: str) -> Any:
        def call(*args: Any) -> Any:
            time.sleep(0.002)
            return getattr(os, name)(*args)

        return call

    calls = {name: paused(name) for name in ("write", "fsync", "replace", "link")}
    durability.os = SimpleNamespace(**{name: getattr(os, name) for name in dir(os)} | calls)  # type: ignore[attr-defined]
    try:
        append(path, more)
    finally:
        os._exit(0)
