"""Hugging Face checkpoints and loaded models of speech, as audio models."""

from typing import Any

import torch

from interp.models.audio import FAMILIES, AudioModel
from interp.models.hugging_face import read_model, read_processor, refuse_lacking


def hears_sound(config: Any) -> bool:
    """Whether a config is of a speech model that `AudioModel` reads."""
    return getattr(config, "model_type", None) in FAMILIES


def from_checkpoint(
    source: str,
    config: Any,
    *,
    name: str,
    local: bool,
    device: str | torch.device,
    dtype: torch.dtype,
    attention: str | None = None,
) -> AudioModel:
    """Load a speech model, with its head where that is of letters (CTC).

    Args:
        source: A folder, or an id of the hub.
        config: Its config.
        name: What manifests call it.
        local: Never ask the network.
        device: Where it runs.
        dtype: Of its weights.
        attention: `eager` to show attention patterns; None for the library's choice.

    Raises:
        ValueError: If the weights are not in safetensors or do not fit the config.
    """
    from transformers import MODEL_FOR_CTC_MAPPING, MODEL_MAPPING

    options = {} if attention is None else {"attn_implementation": attention}
    loader: Any = MODEL_FOR_CTC_MAPPING[type(config)]
    if loader.__name__ not in (getattr(config, "architectures", None) or ()):
        loader = MODEL_MAPPING[type(config)]
    model, missing = read_model(loader, source, dtype=dtype, local_files_only=local, **options)
    lacking = [key for key in missing if "masked_spec_embed" not in key]
    refuse_lacking(source, lacking)
    return AudioModel(model.eval().to(device), name=name, **_preprocessing(source, local))


def from_loaded(model: Any, *, name: str, attention: str | None = None) -> AudioModel:
    """A loaded model, of sound at 16 kHz that is normalised.

    Args:
        model: A Hugging Face model; changed only where `attention` is given.
        name: What manifests call it.
        attention: Which attention to run from now on; None for what it runs.
    """
    if attention is not None:
        model.set_attn_implementation(attention)
    return AudioModel(model, name=name)


def _preprocessing(source: str, local: bool) -> dict[str, Any]:
    """As the checkpoint's JSON says; where it says nothing, as its feature extractor does by default."""
    values = read_processor(source, "feature_extractor", local=local)
    return {"rate": float(values.get("sampling_rate", 16_000)), "normalize": bool(values.get("do_normalize", True))}
