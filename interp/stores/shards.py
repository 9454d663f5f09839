"""One safetensors file: written whole, opened by mmap, checked before it is believed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.durability import writing
from interp.stores.manifest import shard_files
from interp.types import JSON

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = 8  # bytes that hold the header's length, little-endian


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> JSON:
    """Write tensors as one file.

    Returns:
        What a manifest keeps of the file: `bytes` and `sha256`.
    """
    # By the format's own rules, as its library would make two copies of everything: the widest types first.
    parts = dict(sorted(tensors.items(), key=lambda part: (-part[1].element_size(), part[0])))
    header, start = dict[str, JSON](), 0
    for name, tensor in parts.items():
        stop = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pieces: list[bytes | memoryview] = [len(text).to_bytes(_LENGTH, "little") + text, *map(_bytes, parts.values())]
    digest = hashlib.sha256()
    with writing(path) as file:
        for data in pieces:
            digest.update(data)
            file.write(data)
    return {"bytes": _LENGTH + len(text) + start, "sha256": digest.hexdigest()}


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


class Shard:
    """The tensors of one file, in memory only where they are touched.

    Args:
        path: The file.
        record: Its `bytes` and `sha256`, from the manifest.

    Raises:
        ValueError: If the file is missing, of another length, or its header does not fit its length.
    """

    def __init__(self, path: Path, record: JSON) -> None:
        self.path, self._record = path, record
        if not path.is_file():
            raise ValueError(f"{path} is missing, but the manifest lists it: copy it back, or harvest again.")
        found = path.stat().st_size
        if found != record["bytes"]:
            raise ValueError(
                f"{path} holds {found} bytes, but the manifest says {record['bytes']}: the file was cut or changed; "
                "copy it again, or harvest again."
            )
        self._parts = _parts(path, found)

    def read(self) -> dict[str, Tensor]:
        """The tensors, backed by a private mapping of the file."""
        # The mapping outlives the descriptor, which `mmap.mmap` would keep open: 1024 shards are too many for that.
        raw = torch.from_file(str(self.path), shared=False, size=self._record["bytes"], dtype=torch.uint8)
        return {
            name: raw[start:stop].view(dtype).view(shape) for name, (dtype, shape, start, stop) in self._parts.items()
        }

    def verify(self) -> None:
        """Compare the content with the manifest.

        Raises:
            ValueError: If a byte was changed.
        """
        with self.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self._record["sha256"]:
            raise ValueError(
                f"{self.path} has sha256 {found[:12]}..., but the manifest says {self._record['sha256'][:12]}...: "
                "its content was changed; copy it again, or harvest again."
            )


def opened_shards(path: Path, manifest: JSON, folders: Sequence[str]) -> list[dict[str, Shard]]:
    """The files of each shard of a harvested folder, by name: addresses, items, and the values of some sites.

    Raises:
        ValueError: If one is not there or not what was written.
    """
    return [
        {name: Shard(path / file, shard["files"][name]) for name, file in shard_files(number, list(folders)).items()}
        for number, shard in enumerate(manifest["shards"])
    ]


def _parts(path: Path, size: int) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
    """Type, shape and place of each tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        data = file.read(min(length, size))
    try:
        header: dict[str, Any] = json.loads(data)
        header.pop("__metadata__", None)
        return {name: _part(entry, _LENGTH + length, size) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no safetensors file of {size} bytes: its header does not fit ({error}); copy it again, or "
            "harvest again."
        ) from error


def _part(entry: JSON, base: int, size: int) -> tuple[torch.dtype, list[int], int, int]:
    dtype, shape = DTYPES[entry["dtype"]], [int(axis) for axis in entry["shape"]]
    start, stop = (base + int(offset) for offset in entry["data_offsets"])
    count = torch.Size(shape).numel()
    if not base <= start <= stop <= size or stop - start != count * dtype.itemsize or start % dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} at bytes {start} to {stop}")
    return dtype, shape, start, stop
