"""Hugging Face checkpoints and loaded models, as bridged text models."""

import contextlib
import copy
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from interp.models.bridge import BridgeModel, bridged
from interp.types import JSON

_CAUSAL = ("ForCausalLM", "LMHeadModel")


def read_config(source: str, *, local: bool) -> Any:
    """The config of a checkpoint, without its weights.

    Raises:
        ValueError: If there is none to be read.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, local_files_only=local)
    except OSError as error:
        raise ValueError(
            f"source is {source!r}, whose config.json cannot be read ({error}): check the folder, or the id and the "
            "network."
        ) from error


def read_model(loader: Any, source: str, **options: Any) -> tuple[Any, list[str]]:
    """The model of a checkpoint, and the names of the weights that it lacks.

    Args:
        loader: The class to load.
        source: A folder, or an id of the hub.
        options: Of its `from_pretrained`.

    Raises:
        ValueError: If the weights are not in safetensors, broken, or of other shapes than the config says.
    """
    from safetensors import SafetensorError

    # A head that the checkpoint lacks is drawn at random: from a fixed seed, and off the caller's generator.
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        try:
            model, report = loader.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"source is {source!r}, which cannot be read ({error}): only weights in safetensors are loaded, for "
                "other files can run code; convert them with save_pretrained in a place that you trust."
            ) from error
    if report["mismatched_keys"]:
        name, found, wanted = min(report["mismatched_keys"])
        raise ValueError(
            f"source is {source!r}, where {name} has shape {list(found)}, but its config.json says {list(wanted)}: "
            "its config.json and its weights do not belong together."
        )
    return model, sorted(report["missing_keys"])


def refuse_lacking(source: str, lacking: Sequence[str]) -> None:
    """Refuse a checkpoint that lacks weights which its model does not do without.

    Raises:
        ValueError: If there are any.
    """
    if lacking:
        raise ValueError(
            f"source is {source!r}, whose checkpoint lacks {len(lacking)} weights, {lacking[0]} first: "
            "its config.json and its weights do not belong together."
        )


def read_processor(source: str, part: str, *, local: bool) -> JSON:
    """What a checkpoint's files say of how its input is made; nothing where they say nothing.

    Args:
        source: A folder, or an id of the hub.
        part: `image_processor` or `feature_extractor`: newer files hold it among others.
        local: Never ask the network.
    """
    from transformers.utils import cached_file

    for file, whole in (("processor_config.json", False), ("preprocessor_config.json", True)):
        path = cached_file(source, file, local_files_only=local, _raise_exceptions_for_missing_entries=False)
        values = {} if path is None else json.loads(Path(path).read_text())
        if found := values.get(part, values if whole else {}):
            return found
    return {}


def from_checkpoint(
    source: str,
    config: Any,
    *,
    name: str,
    local: bool,
    device: str | torch.device,
    dtype: torch.dtype,
    tokenizer: Any = None,
) -> BridgeModel:
    """Load a text model and its tokenizer.

    Args:
        source: A folder, or an id of the hub.
        config: Its config.
        name: What manifests call it.
        local: Never ask the network.
        device: Where it runs.
        dtype: Of its weights.
        tokenizer: Instead of the checkpoint's own.

    Raises:
        ValueError: If the checkpoint is not a text encoder or a causal language model, or as `read_model`.
    """
    from transformers import AutoTokenizer

    loader = _loader(config, source)
    model, missing = read_model(loader, source, config=config, dtype=dtype, local_files_only=local)
    lacking = [key for key in missing if key.startswith(f"{model.base_model_prefix}.")]
    refuse_lacking(source, lacking)
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(source, local_files_only=local)
    return from_loaded(model.eval().to(device), name=name, tokenizer=tokenizer, untrained=missing)


def from_loaded(model: Any, *, name: str, tokenizer: Any = None, untrained: Sequence[str] = ()) -> BridgeModel:
    """Bridge a model in memory, which stays as it is: the bridge is built on a copy that shares its weights.

    Raises:
        ValueError: If TransformerLens has no adapter for the model's class.
    """
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, shared)
    twin.set_attn_implementation("eager")  # the only one that shows attention scores
    try:
        bridge = bridged(twin, name=name, tokenizer=copy.deepcopy(tokenizer))
    except ValueError as error:
        raise ValueError(
            f"source is a {type(model).__name__}, for which TransformerLens has no bridge ({error}): load the class "
            "with its language-model head, or read it by plain hooks, interp.models.torch_module.TorchModel(module)."
        ) from error
    return BridgeModel(bridge, name=name, tokenizer=tokenizer, plain=model, untrained=untrained)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars and the report of missing heads, which the caller judges."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _loader(config: Any, source: str) -> Any:
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
    )

    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith(_CAUSAL):
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return AutoModelForMaskedLM
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    raise ValueError(
        f"source is {source!r}, which holds {architecture or type(config).__name__}, but only text encoders, causal "
        "language models, vision and speech models are loaded by name: load it with transformers and give load_model "
        "the module."
    )
