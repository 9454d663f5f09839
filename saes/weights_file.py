"""The file of a saved SAE: safetensors, with class, arguments and origin in the header. Nothing in it can execute."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from interp.durability import write_bytes
from interp.types import JSON

FORMAT = "unweave-sae"
VERSION = 1


def write(path: Path, tensors: dict[str, Tensor], about: JSON) -> None:
    """Write tensors and what is known of them, whole or not at all."""
    # Transposed views keep their strides through `clone`, and safetensors refuses them.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: safetensors writes several in no fixed order, and equal SAEs are to be equal bytes.
    header = {FORMAT: json.dumps({"version": VERSION, "about": about}, sort_keys=True)}
    write_bytes(path, safetensors.torch.save(plain, metadata=header))


def read(path: Path) -> tuple[dict[str, Tensor], JSON]:
    """Read tensors and what is known of them.

    Raises:
        ValueError: If the file is missing, damaged, of another format or of a later version.
    """
    if not path.is_file():
        raise ValueError(f"path is {path}, but there is no such file: give the .safetensors file that `save` wrote.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(FORMAT)
            found: JSON = {"version": None} if header is None else json.loads(header)
            if found["version"] == VERSION:
                return {name: file.get_tensor(name) for name in file.keys()}, dict(found["about"])  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a saved SAE ({error}): it is damaged; copy or train it again."
        ) from error
    if found["version"] is not None:
        raise ValueError(
            f"{path} has version {found['version']}, but this unweave reads {VERSION}: use the unweave that wrote it."
        )
    raise ValueError(f"{path} is not an SAE saved by unweave: other libraries' checkpoints need converting first.")
