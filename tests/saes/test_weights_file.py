import errno
import json

import pytest
import safetensors.torch
import torch

from saes import weights_file


def test_tensors_and_what_is_known_come_back(tmp_path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(float("nan")), "c": torch.zeros(0, 3)}
    about = {"class": "x", "nested": {"é": [1, None, "\n"]}}
    weights_file.write(tmp_path / "f", tensors, about)
    found, known = weights_file.read(tmp_path / "f")
    assert known == about
    assert found["b"].isnan()
    assert torch.equal(found["a"], tensors["a"])
    assert found["c"].shape == (0, 3)


def test_equal_contents_are_equal_bytes(tmp_path) -> None:
    tensors = {name: torch.ones(3) for name in "abcdefgh"}
    for i in range(5):
        weights_file.write(tmp_path / str(i), tensors, {"b": 1, "a": 2} if i % 2 else {"a": 2, "b": 1})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def _foreign(path, header: dict[str, str] | None) -> None:
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, metadata=header))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "is not an SAE saved by unweave: other libraries"),
        ({"format": "pt"}, "is not an SAE saved by unweave"),
        ({weights_file.FORMAT: json.dumps({"version": 99, "about": {}})}, "has version 99, but this unweave reads 1"),
        ({weights_file.FORMAT: "{"}, "cannot be read as a saved SAE .* copy or train it again"),
        ({weights_file.FORMAT: "3"}, "cannot be read as a saved SAE"),
        ({weights_file.FORMAT: "{}"}, "cannot be read as a saved SAE"),
        ({weights_file.FORMAT: json.dumps({"version": 1, "about": 3})}, "cannot be read as a saved SAE"),
    ],
)
def test_other_files_are_refused(header, message: str, tmp_path) -> None:
    _foreign(tmp_path / "f", header)
    with pytest.raises(ValueError, match=message):
        weights_file.read(tmp_path / "f")


def test_missing_and_torn_files_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="there is no such file: give the .safetensors file"):
        weights_file.read(tmp_path / "f")
    weights_file.write(tmp_path / "f", {"a": torch.ones(100)}, {})
    whole = (tmp_path / "f").read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        (tmp_path / "f").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read as a saved SAE"):
            weights_file.read(tmp_path / "f")


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failing_disk_keeps_the_old_file(call: str, failing_disk, tmp_path) -> None:
    weights_file.write(tmp_path / "f", {"a": torch.ones(2)}, {})
    with (
        pytest.raises(OSError, match="What was there before is untouched; make room"),
        failing_disk(call, 0, errno.ENOSPC),
    ):
        weights_file.write(tmp_path / "f", {"a": torch.zeros(2)}, {})
    assert torch.equal(weights_file.read(tmp_path / "f")[0]["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
