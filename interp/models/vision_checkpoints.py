"""Hugging Face checkpoints and loaded models of images, as vision models."""

from collections.abc import Iterable
from typing import Any

import torch

from interp.models.hugging_face import read_model, read_processor, refuse_lacking
from interp.models.vision import VisionModel, layout_of
from interp.preprocessing import Preprocessing

# What a model was normalised by where no file says it: by its authors' habit.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_NORMALISED = {"clip_vision_model": _CLIP, "siglip_vision_model": _HALF, "vit": _HALF, "beit": _HALF}
# Parts of a body that a checkpoint may lack: the rest of it does without them.
_SPARE = ("pooler.", "head.")


def sees_images(config: Any) -> bool:
    """Whether a config is of a model that is given images, alone or beside texts of their own."""
    from transformers import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    if type(config) in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING:
        return True
    kinds = MODEL_MAPPING.get(type(config), ())
    first = kinds[0] if isinstance(kinds, tuple) and kinds else kinds
    return getattr(first, "main_input_name", "") == "pixel_values"


def from_checkpoint(
    source: str,
    config: Any,
    *,
    name: str,
    local: bool,
    device: str | torch.device,
    dtype: torch.dtype,
    attention: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> VisionModel:
    """Load a vision model, of CLIP and its kin the vision tower.

    Args:
        source: A folder, or an id of the hub.
        config: Its config.
        name: What manifests call it.
        local: Never ask the network.
        device: Where it runs.
        dtype: Of its weights.
        attention: `eager` to show attention patterns; None for the library's choice.
        preprocessing: Instead of what the checkpoint's `preprocessor_config.json` says.

    Raises:
        ValueError: If the weights are not in safetensors or do not fit the config, or the architecture is not known.
    """
    options = {} if attention is None else {"attn_implementation": attention}
    loader = _loader(config)
    model, missing = read_model(loader, source, dtype=dtype, local_files_only=local, **options)
    if layout_of(model) is None:
        raise ValueError(
            f"source is {source!r}, which holds a {type(model).__name__}, whose layout is not known: load it with "
            "transformers and read it by its own paths, load_model(module)."
        )
    found = VisionModel(
        model.eval().to(device),
        name=name,
        preprocessing=preprocessing or _preprocessing(source, local) or usual_preprocessing(model),
        untrained=missing,
    )
    _check_complete(found, source, missing)
    return found


def from_loaded(
    model: Any, *, name: str, attention: str | None = None, preprocessing: Preprocessing | None = None
) -> VisionModel | None:
    """A loaded model, of CLIP and its kin the vision tower; None where its architecture is not known.

    Args:
        model: A Hugging Face model; changed only where `attention` is given.
        name: What manifests call it.
        attention: Which attention to run from now on; None for what it runs.
        preprocessing: From pictures to its input; by default `usual_preprocessing`.
    """
    tower = model if model.main_input_name == "pixel_values" else model.vision_model
    if layout_of(tower) is None:
        return None
    if attention is not None:
        tower.set_attn_implementation(attention)
    return VisionModel(tower, name=name, preprocessing=preprocessing or usual_preprocessing(tower))


def usual_preprocessing(model: Any) -> Preprocessing:
    """What is assumed where no file says it: the picture warped to the config's `image_size` (bicubic), and normalised
    by the mean and deviation of its family: 0.5 for ViT, BEiT and SigLIP, CLIP's own, else ImageNet's."""
    layout = layout_of(model)
    assert layout is not None
    config: Any = layout.body.config
    mean, std = _NORMALISED.get(config.model_type, _IMAGENET)
    size, grey = layout.input_size, getattr(config, "num_channels", 3) == 1
    return Preprocessing(
        size=size,
        mode="L" if grey else "RGB",
        resize=size,
        interpolation="bicubic",
        mean=(0.5,) if grey else mean,
        std=(0.5,) if grey else std,
    )


def _preprocessing(source: str, local: bool) -> Preprocessing | None:
    """As the checkpoint's JSON says; None where it says nothing."""
    values = read_processor(source, "image_processor", local=local)
    return Preprocessing.from_config(values) if values else None


def _loader(config: Any) -> Any:
    """The class to load: what the config names where that is of images and known, else the bare model."""
    from transformers import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING,
        MODEL_FOR_PRETRAINING_MAPPING,
        MODEL_MAPPING,
    )

    named = (getattr(config, "architectures", None) or [""])[0]
    for mapping in (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING,
        MODEL_FOR_PRETRAINING_MAPPING,
    ):
        kinds: Any = mapping.get(type(config), ())
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            if kind.__name__ == named:
                return kind
    return MODEL_MAPPING[type(getattr(config, "vision_config", config))]


def _check_complete(model: VisionModel, source: str, missing: Iterable[str]) -> None:
    """Refuse a checkpoint that lacks weights of the body, but for those that the rest of it does without."""
    body = next(path for path, part in model.module.named_modules() if part is model.layout.body)
    start = f"{body}." if body else ""
    inside = [name.removeprefix(start) for name in missing if name.startswith(start)]
    lacking = sorted(name for name in inside if not name.startswith(_SPARE) and "mask_token" not in name)
    refuse_lacking(source, lacking)
