"""Files written whole or not at all: a temporary name, fsync, rename.

Every write of the project goes through here, so that one test can make each of them fail.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY = ".partial"
_PREVIOUS = ".previous"


class _DurableFile(io.RawIOBase):
    """A write-only file that goes on after short writes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.write(self._descriptor, view[done:])
        self._position += len(view)
        return len(view)

    def tell(self) -> int:
        return self._position

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@contextlib.contextmanager
def explained(path: Path, *, renamed: bool = False) -> Iterator[None]:
    """Turn a failing disk into a message that says what is safe and what to do.

    Args:
        path: What was being written.
        renamed: Whether the new content already has its name, and only the disk's word is missing.

    Raises:
        OSError: With the same errno, naming the path and the way out.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        raise OSError(
            error.errno,
            f"could not write {path}: {os.strerror(error.errno)}. "
            f"{'It is in place but may not outlast a power cut' if renamed else 'What was there before is untouched'}; "
            "make room or choose another folder, then run the same command again to go on",
        ) from error


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when the block ends without an error.

    Raises:
        OSError: If the disk refuses; the previous file, if any, is untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    with explained(path):
        file = _DurableFile(temporary)
        try:
            yield file  # type: ignore[misc]
            file.sync()
            file.close()
            os.replace(temporary, path)
        finally:
            file.close()
            temporary.unlink(missing_ok=True)
    with explained(path, renamed=True):
        sync_folder(path.parent)


def write_bytes(path: Path | str, data: bytes) -> str:
    """Write a whole file and return its sha256."""
    with writing(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path | str, value: Any) -> str:
    """Write indented JSON with sorted keys (equal values, equal bytes) and return its sha256."""
    return write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


@contextlib.contextmanager
def writing_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder that takes the name `path`, and the place of a folder there, when the block ends.

    Files inside are to be written by this module too, so that they are on the disk before the rename.

    Raises:
        OSError: If the disk refuses; a folder already at `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with explained(path):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            sync_folder(temporary)
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Give a finished folder the name `path`; one that is there is set aside, and removed when all is done.

    Raises:
        OSError: If the disk refuses; what was at `path` is there still, unless the message says otherwise.
    """
    previous = path.with_name(path.name + _PREVIOUS)
    with explained(path):
        try:
            if path.exists():
                shutil.rmtree(previous, ignore_errors=True)
                os.replace(path, previous)
            os.replace(new, path)
        finally:
            restore_folder(path)
    with explained(path, renamed=True):
        sync_folder(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Give a folder its name back where a kill fell between the two renames of `replace_folder`."""
    previous = path.with_name(path.name + _PREVIOUS)
    if previous.exists() and not path.exists():
        previous.replace(path)


def take_file(source: Path, path: Path) -> None:
    """Give a finished file a second name, whose older file is lost: a hard link, or a copy where links are refused.

    Files here are replaced, never changed, so two names of one content cannot drift apart.

    Raises:
        OSError: If the disk refuses; then the file is whole or not there.
    """
    with explained(path):
        path.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), path)
    except OSError:  # Another file system, or one without links; a disk that fails refuses the copy as well.
        with source.open("rb") as content, writing(path) as file:
            shutil.copyfileobj(content, file, 2**20)


def make_folder(path: Path) -> None:
    """Make a folder that survives a power cut; one that is there is left alone.

    Raises:
        OSError: If the disk refuses.
    """
    if not path.is_dir():
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent)


def move_folder(path: Path, name: Path) -> None:
    """Rename a finished folder to a name that is free (or an empty folder's) in the same parent.

    Raises:
        OSError: If the disk refuses; the folder keeps the name it had.
    """
    with explained(name):
        os.replace(path, name)
        sync_folder(name.parent)


def sync_folder(path: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AppendedFile:
    """A file that only grows, line by line; what follows the last `sync` may be torn by a kill.

    Args:
        path: The file.
        length: Bytes to keep of what is there (from a checkpoint); the rest is cut off.
    """

    def __init__(self, path: Path | str, *, length: int = 0) -> None:
        self.path = Path(path)
        with explained(self.path):
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            found = os.fstat(self._descriptor).st_size
            if found < length:
                os.close(self._descriptor)
                raise ValueError(
                    f"{self.path} holds {found} bytes, but the checkpoint was written after {length}: "
                    "the file was cut; start anew with overwrite."
                )
            os.ftruncate(self._descriptor, length)
            os.lseek(self._descriptor, length, os.SEEK_SET)
        self.length = length

    def write(self, text: str) -> None:
        """Append text."""
        data = memoryview(text.encode())
        with explained(self.path):
            while data:
                done = os.write(self._descriptor, data)
                self.length += done
                data = data[done:]

    def sync(self) -> None:
        """Wait until all is on the disk."""
        with explained(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
