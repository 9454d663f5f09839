import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from interp.durability import (
    AppendedFile,
    move_folder,
    replace_folder,
    restore_folder,
    take_file,
    write_bytes,
    write_json,
    writing,
    writing_folder,
)

CALLS = ("write", "fsync", "replace")


def test_a_file_is_whole_and_its_hash_is_its_content(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    assert write_bytes(tmp_path / "a", data) == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "a").read_bytes() == data
    assert write_json(tmp_path / "b", {"y": 1, "x": 2}) == write_json(tmp_path / "c", {"x": 2, "y": 1})
    assert json.loads((tmp_path / "b").read_bytes()) == {"x": 2, "y": 1}
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "b", "c"]


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr("interp.durability.os.write", lambda fd, data: real(fd, bytes(data[:7])))
    data = os.urandom(100)
    write_bytes(tmp_path / "a", data)
    log = AppendedFile(tmp_path / "log")
    log.write("0123456789" * 3)
    log.close()
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == data
    assert (tmp_path / "log").read_text() == "0123456789" * 3


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", CALLS)
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, failing_disk: Any, call: str, error: int) -> None:
    write_bytes(tmp_path / "a", b"old")
    with failing_disk(call, 0, error) as disk, pytest.raises(OSError, match=r"could not write .*/a: .*untouched"):
        write_bytes(tmp_path / "a", b"new")
    assert disk.failed
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_an_error_of_the_caller_leaves_what_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(KeyError), writing(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["a"]


def test_folders_appear_whole_or_not_at_all(tmp_path: Path, failing_disk: Any) -> None:
    for call in CALLS:
        for index in range(10):
            with failing_disk(call, index) as disk:
                try:
                    with writing_folder(tmp_path / call) as folder:
                        write_bytes(folder / "a", b"1")
                        write_bytes(folder / "b", b"2")
                except OSError as error:
                    assert "run the same command again" in str(error)  # where it fails varies
            if not disk.failed:
                break
            found = {f.name for f in (tmp_path / call).glob("*")}
            assert found in (set(), {"a", "b"})
            for file in (tmp_path / call).glob("*"):
                file.unlink()
        assert not disk.failed
        assert {f.name for f in (tmp_path / call).iterdir()} == {"a", "b"}
        assert not (tmp_path / f"{call}.partial").exists()


def _folder(path: Path, content: bytes) -> Path:
    path.mkdir()
    write_bytes(path / "a", content)
    return path


@pytest.mark.parametrize("call", CALLS)
def test_a_folder_takes_the_place_of_another_or_leaves_it(tmp_path: Path, failing_disk: Any, call: str) -> None:
    path = _folder(tmp_path / "x", b"old")
    for index in range(10):
        with failing_disk(call, index, errno.EIO) as disk:
            try:
                with writing_folder(path) as folder:
                    write_bytes(folder / "a", b"new")
            except OSError as error:
                in_place = f"{path}: " in str(error) and "in place" in str(error)
                assert (path / "a").read_bytes() == (b"new" if in_place else b"old")
        if not disk.failed:
            break
        write_bytes(path / "a", b"old")
    assert not disk.failed and index > 0
    assert (path / "a").read_bytes() == b"new"
    assert [f.name for f in tmp_path.iterdir()] == ["x"]


def test_an_error_of_the_caller_leaves_the_folder(tmp_path: Path) -> None:
    path = _folder(tmp_path / "x", b"old")
    with pytest.raises(KeyError), writing_folder(path) as folder:
        write_bytes(folder / "a", b"new")
        raise KeyError
    assert (path / "a").read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["x"]


def test_a_kill_between_the_renames_is_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        pass

    path, new, real = _folder(tmp_path / "x", b"old"), _folder(tmp_path / "y", b"new"), os.replace

    def replace(source: Path, target: Path) -> None:
        if target == path:
            raise KilledError
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr("interp.durability.os.replace", replace)
        patch.setattr("interp.durability.restore_folder", lambda _: None)  # a killed process cleans nothing up
        replace_folder(new, path)
    assert not path.exists()
    restore_folder(path)
    assert (path / "a").read_bytes() == b"old"
    restore_folder(path)
    replace_folder(new, path)
    assert (path / "a").read_bytes() == b"new"
    assert [f.name for f in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_taken_by_link_or_by_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_disk: Any, links: bool
) -> None:
    write_bytes(tmp_path / "a", b"content")
    write_bytes(tmp_path / "b", b"left by an earlier try")
    if not links:

        def refuse(*_: Any) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr("interp.durability.os.link", refuse)
        with failing_disk("write", 0), pytest.raises(OSError, match=r"could not write .*/b: No space left"):
            take_file(tmp_path / "a", tmp_path / "b")
    take_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert (tmp_path / "a").stat().st_nlink == (2 if links else 1)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a", "b"]


def test_a_moved_folder_keeps_its_name_where_the_disk_refuses(tmp_path: Path, failing_disk: Any) -> None:
    (tmp_path / "a").mkdir()
    with failing_disk("replace", 0, errno.EIO), pytest.raises(OSError, match=r"could not write .*/b"):
        move_folder(tmp_path / "a", tmp_path / "b")
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    move_folder(tmp_path / "a", tmp_path / "b")
    assert [f.name for f in tmp_path.iterdir()] == ["b"]


def test_other_errors_keep_their_own_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "nowhere" / "a", b"")


def test_a_log_is_cut_back_to_its_checkpoint(tmp_path: Path) -> None:
    log = AppendedFile(tmp_path / "log")
    log.write("one\n")
    kept = log.length
    log.write("two\nthr")  # torn by a kill
    log.close()
    log = AppendedFile(tmp_path / "log", length=kept)
    log.write("two again\n")
    log.sync()
    log.close()
    log.close()
    assert (tmp_path / "log").read_text() == "one\ntwo again\n"
    with pytest.raises(ValueError, match=r"holds 14 bytes, but the checkpoint was written after 99: the file was cut"):
        AppendedFile(tmp_path / "log", length=99)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_log_says_when_the_disk_refuses(tmp_path: Path, failing_disk: Any, call: str) -> None:
    log = AppendedFile(tmp_path / "log")
    with failing_disk(call, 0), pytest.raises(OSError, match="make room or choose another folder"):
        log.write("one\n")
        log.sync()
    log.close()
