from pathlib import Path

import safetensors.torch
import torch

from interp.stores.shards import DTYPES, Shard, write_shard


def test_a_shard_is_what_the_library_reads(tmp_path: Path) -> None:
    """Every type; also empty tensors, single numbers and transposed ones, whose bytes are not in order."""
    values = torch.arange(24).view(4, 6)
    tensors = {name: values.to(dtype) for name, dtype in DTYPES.items()}
    tensors |= {"a transposed one": values.T, "none": torch.zeros(0, 3), "one": torch.tensor(3.5)}
    record = write_shard(tmp_path / "x.safetensors", tensors)
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert set(file.keys()) == set(tensors)
    ours = Shard(tmp_path / "x.safetensors", record)
    ours.verify()
    for found in (safetensors.torch.load_file(tmp_path / "x.safetensors"), ours.read()):
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


def test_equal_tensors_are_equal_bytes(tmp_path: Path) -> None:
    """In whatever order they are given."""
    tensors = {"b": torch.ones(3), "a": torch.zeros(2), "c": torch.ones(2, dtype=torch.uint8)}
    first = write_shard(tmp_path / "1", tensors)
    assert write_shard(tmp_path / "2", dict(reversed(tensors.items()))) == first
