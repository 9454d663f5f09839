import json
import shutil

import pytest

from interp.stores.disk import DiskStore


@pytest.fixture
def copies(store, tmp_path):
    """Two folders with the rows of the store, and half of those of another dataset."""
    import sys

    from interp.harvesting import harvest

    tiny = sys.modules["tiny_text"]
    shutil.copytree(store, tmp_path / "a")
    harvest(tiny.TinyText(), tiny.sentences(30, seed=5), ["blocks.0", "blocks.1"], tmp_path / "b", labels=["kind"])
    return tmp_path / "a", tmp_path / "b"


def test_info_tells_what_the_manifest_holds(unweave, store):
    code, said, complaint = unweave("store", "info", store)
    assert (code, complaint) == (0, "")
    manifest = json.loads((store / "manifest.json").read_text())
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    size = sum(file.stat().st_size for file in store.rglob("*.safetensors"))
    assert lines["rows"] == f"{manifest['rows']:,} of 120 examples, as bfloat16"
    assert lines["files"] == f"{len(manifest['shards'])} shards, {size / 1e6:.1f} MB"
    assert lines["model"] == f"tiny-text ({manifest['model']['fingerprint'][:12]})"
    assert lines["dataset"].startswith(f"list ({manifest['dataset']['fingerprint'][:12]}): 120 items, ")
    assert "labels kind" in lines["policy"] and "max_norm_ratio" not in lines["policy"]
    assert lines["left"] == f"out  empty {manifest['counts']['empty']}"
    sites = [line for line in said.splitlines() if line.startswith("site")]
    assert [line.split()[1] for line in sites] == ["blocks.0", "blocks.1"]
    assert DiskStore(store, "blocks.1").fingerprint[:12] in sites[1]
    assert "norm" not in said


def test_info_with_statistics_reads_every_site(unweave, store):
    from interp.stores.statistics import statistics

    _, said, _ = unweave("store", "info", store, "--statistics")
    for site in ("blocks.0", "blocks.1"):
        assert f"\n\n{site}\n{statistics(DiskStore(store, site))}" in said


def test_verify_names_the_first_damaged_file(unweave, copies):
    folder, _ = copies
    files = sorted(folder.rglob("*.safetensors"))
    assert unweave("store", "verify", folder) == (0, f"{folder}: all {len(files)} files are as they were written\n", "")
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        code, said, complaint = unweave("store", "verify", folder)
        assert (code, said) == (2, "")
        assert complaint.startswith(f"unweave store: {file} has sha256 ")
        assert complaint.endswith("its content was changed; copy it again, or harvest again.\n")
        file.write_bytes(whole)
    files[0].unlink()
    assert "is missing, but the manifest lists it" in unweave("store", "verify", folder)[2]


def test_append_adds_rows_once(unweave, copies):
    folder, more = copies
    rows, new = (len(DiskStore(path, "blocks.0")) for path in copies)
    added = unweave("store", "append", folder, more)
    assert added == (0, f"{folder}: {rows + new:,} rows, {new:,} of them new\n", "")
    again = unweave("store", "append", folder, more)
    assert again == (0, f"{folder}: {rows + new:,} rows, 0 of them new (it had these)\n", "")
    assert unweave("store", "verify", folder)[0] == 0
    said = unweave("store", "info", folder)[1]
    assert said.startswith(f"rows      {rows + new:,} of 150 examples")
    assert [line.split()[3] for line in said.splitlines() if line.startswith("dataset")] == ["120", "30"]


def test_an_unfinished_harvest_tells_how_far_it_is(unweave, store, tmp_path, failing_disk):
    import sys

    from interp.harvesting import harvest

    tiny, path = sys.modules["tiny_text"], tmp_path / "s"
    asked = {"rows_per_shard": 100, "chunk_examples": 16}
    with failing_disk("write", 10**9) as disk:
        harvest(tiny.TinyText(), tiny.sentences(60), ["blocks.0"], tmp_path / "whole", **asked)
    with failing_disk("write", disk.calls // 2), pytest.raises(OSError, match="run the same command again"):
        harvest(tiny.TinyText(), tiny.sentences(60), ["blocks.0"], path, **asked)
    progress = json.loads((tmp_path / "s.partial/progress.json").read_text())
    n, items = len(progress["shards"]), progress["tally"]["items"]
    assert n > 0
    for asked in (path, tmp_path / "s.partial"):
        code, said, _ = unweave("store", "info", asked)
        assert code == 0
        assert said.startswith(f"{path} is not finished: {n} shards with {n * 100} rows are on the disk, of the first ")
        assert f"of the first {items} items; run the harvest that made it again" in said
        assert unweave("store", "verify", asked)[0] == 2
    (tmp_path / "s.partial/progress.json").unlink()
    assert "0 shards with 0 rows" in unweave("store", "append", path, store)[2]
    shutil.copytree(store, tmp_path / "t.partial")
    assert "t is complete but has not got its name" in unweave("store", "info", tmp_path / "t")[1]


def test_a_folder_is_found_from_inside(unweave, store, monkeypatch):
    monkeypatch.chdir(store)
    assert unweave("store", "info", ".")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["info", "nowhere"], "path is nowhere, but there is no such folder"),
        (["append", "a"], "append takes two folders: unweave store info PATH, verify PATH, or append PATH SOURCE."),
        (["verify", "a", "b"], "verify takes one folder: unweave store"),
        (["verify", "a", "--statistics"], "--statistics is of info, not of verify: leave it out."),
        (["inof", "a"], "invalid choice 'inof'"),
    ],
)
def test_mistakes_are_one_line(unweave, words, said):
    code, _, complaint = unweave("store", *words)
    assert code == 2
    assert complaint.startswith(f"unweave store: {said}")
    assert complaint.count("\n") == 1
