"""Speech models of Hugging Face that read waveforms (wav2vec 2.0, HuBERT, UniSpeech), named as text models are."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.base import hook
from interp.models.layouts.base import own_names
from interp.models.layouts.blocks import block_parts, hook_names
from interp.models.text_output import TextOutput, mean_hidden
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Place, Site

# What these classes share is checked by the tests; their cousins (WavLM, data2vec) attend or embed positions otherwise.
FAMILIES = ("wav2vec2", "hubert", "unispeech", "unispeech-sat")
_INSIDE = {
    "": "",
    ".ln1": "layer_norm",
    ".attn": "attention",
    ".attn.q": "attention.q_proj",
    ".attn.k": "attention.k_proj",
    ".attn.v": "attention.v_proj",
    ".attn.o": "attention.out_proj",
    ".ln2": "final_layer_norm",
    ".mlp": "feed_forward",
    ".mlp.in": "feed_forward.intermediate_dense",
    ".mlp.out": "feed_forward.output_dense",
}


class AudioOutput(TextOutput):
    """What a speech model returns: the encoder's last hidden state, and the scores of its head where it has one."""


class AudioModel(TorchModel):
    """A speech encoder: `conv.i` (each layer of the front end), `embed` (frames as the encoder takes them), `blocks.i`
    and the parts of each block, as `[b, frames, d]`.

    `pads` says whether waveforms of several lengths may share a batch: whether padding leaves the other frames alone.

    Args:
        module: A `Wav2Vec2Model`, a `HubertModel` or one of their kin, with a head or without.
        name: What manifests call it; by default the class.
        rate: Samples a second of the waveforms it takes.
        normalize: Whether `collate` brings each waveform to mean 0 and variance 1.

    Raises:
        ValueError: If the module is of another family.
    """

    def __init__(
        self, module: nn.Module, *, name: str | None = None, rate: float = 16_000.0, normalize: bool = True
    ) -> None:
        plain: Any = module
        config: Any = getattr(plain, "config", None)
        if getattr(config, "model_type", None) not in FAMILIES:
            raise ValueError(
                f"module is a {type(module).__name__}, but a speech model is one of {', '.join(FAMILIES)}: read others "
                "by plain hooks, interp.models.torch_module.TorchModel(module)."
            )
        body = getattr(plain, plain.base_model_prefix, plain)
        parts, aliases = _parts(module, body)
        super().__init__(module, name=name, parts=parts, aliases=aliases)
        self.rate, self.normalize = float(rate), normalize
        self._body: Any = body
        self._kernels, self._strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        # Statistics over time (the first layer's group norm) or a constant in place of zeros (a batch norm before the
        # position's convolution) carry padding into the frames.
        self.pads = config.feat_extract_norm == "layer" and not getattr(config, "conv_pos_batch_norm", False)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights as they are now; the vector of masked frames, of use in training only, is left out."""
        state = self.module.state_dict()
        return self._weights.of({name: value for name, value in state.items() if "masked_spec_embed" not in name})

    def geometry(self, site: Site, inputs: Inputs | None = None) -> Geometry:
        """Frames: how many samples lie between them, and how many each of them sees through the convolutions."""
        layer = re.search(r"(?:^conv|conv_layers)\.(\d+)", site.module)
        depth = len(self._strides) if layer is None else int(layer[1]) + 1
        patch = 1 + sum((kernel - 1) * math.prod(self._strides[:i]) for i, kernel in enumerate(self._kernels[:depth]))
        geometry = Geometry("sequence", stride=(math.prod(self._strides[:depth]),), patch=(patch,), rate=self.rate)
        inside = layer is not None and site not in self._parts
        by_channel = inside and not isinstance(self._modules[site.module], nn.LayerNorm)
        return replace(geometry, channels="first") if by_channel else geometry

    def place(self, site: Site) -> Place:
        """Where a site is found while the model runs.

        Raises:
            ValueError: If the site is an attention pattern and the model runs an attention that shows none.
        """
        runs = getattr(self._body.config, "_attn_implementation", "eager")
        if site.module.endswith(".hook_pattern") and runs != "eager":
            raise ValueError(
                f"site is {site}, but {self.name} runs {runs} attention, which makes no pattern: "
                "load_model(..., attention='eager')."
            )
        return super().place(site)

    def frames(self, samples: int) -> int:
        """How many frames a waveform of so many samples gives."""
        for kernel, stride in zip(self._kernels, self._strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def collate(self, waveforms: Sequence[Any], *, rate: float | None = None) -> Inputs:
        """Normalise waveforms and pad them at the end; the mask says which frames hear no padding.

        Args:
            waveforms: One channel each: arrays, tensors or lists of floats, -1 to 1.
            rate: Their samples a second, compared with the model's.

        Raises:
            ValueError: If a waveform has other axes, another rate, no float samples or too few of them; or if they are
                of several lengths and the model cannot tell padding from sound.
        """
        parts = self._checked(waveforms, rate)
        parts = [_normalized(part.float()) if self.normalize else part.float() for part in parts]
        values = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        lengths = [len(part) for part in parts]
        if len(set(lengths)) == 1:
            return Inputs({"input_values": values})
        heard = torch.tensor(lengths, device=values.device)
        frames = torch.tensor([self.frames(length) for length in lengths], device=values.device)
        sound = torch.arange(values.shape[1], device=values.device) < heard[:, None]
        mask = torch.arange(int(frames.max()), device=values.device) < frames[:, None]
        return Inputs({"input_values": values, "attention_mask": sound.long()}, mask)

    def _checked(self, waveforms: Sequence[Any], rate: float | None) -> list[Tensor]:
        if rate not in (None, self.rate):
            raise ValueError(f"rate is {rate:g}, but {self.name} hears {self.rate:g} samples a second: resample first.")
        parts = [torch.as_tensor(waveform) for waveform in waveforms]
        if not parts:
            raise ValueError("waveforms is empty, but a batch has at least one: give a list of waveforms.")
        shortest = self.geometry(Site("embed")).patch[0]
        for i, part in enumerate(parts):
            if part.ndim != 1 or not part.is_floating_point() or len(part) < shortest:
                raise ValueError(
                    f"waveform {i} has shape {tuple(part.shape)} and {part.dtype}, but {self.name} takes one axis of "
                    f"{shortest} samples or more, as floats from -1 to 1: take one channel, and divide integers."
                )
        lengths = sorted({len(part) for part in parts})
        if len(lengths) > 1 and not self.pads:
            raise ValueError(
                f"waveforms have {len(lengths)} lengths ({', '.join(map(str, lengths[:4]))}, ...), but {self.name} "
                "takes one in a batch, because padding would change its frames: cut them alike, or give them one by "
                "one (batch_tokens=1 in a harvest)."
            )
        return parts

    def forward(self, inputs: Inputs) -> AudioOutput:
        """Run the model; frames of padding are attended to by none."""
        like, caught = next(self.module.parameters()), list[Tensor]()
        tensors = {
            key: value.to(like.device, like.dtype if value.is_floating_point() else None)
            for key, value in inputs.tensors.items()
        }
        handle = hook(Place(self._body.encoder), caught.append, Site("encoder"))
        try:
            output = self.module(**tensors)
        finally:
            handle.remove()
        return AudioOutput(caught[0], getattr(output, "logits", None))

    def embedding(self, output: AudioOutput, inputs: Inputs) -> Float[Tensor, "b d"]:
        """One vector a waveform: the mean of the last hidden state over its frames."""
        return mean_hidden(output, inputs)


def _parts(module: nn.Module, body: Any) -> tuple[dict[str, Place], dict[str, str]]:
    """The named places, by canonical site, and their other names."""
    config, encoder = body.config, body.encoder
    parts = {f"conv.{i}": _transposed(layer) for i, layer in enumerate(body.feature_extractor.conv_layers)}
    parts |= {"embed": Place(body.feature_projection), "pos_embed": Place(encoder.pos_conv_embed)}
    parts["ln_final" if config.do_stable_layer_norm else "embed_ln"] = Place(encoder.layer_norm)
    aliases = {"hook_embed": "embed", "hook_pos_embed": "pos_embed"} | hook_names(parts)
    for i, block in enumerate(encoder.layers):
        modules = {part: block.get_submodule(path) for part, path in _INSIDE.items()}
        inside, names = block_parts(f"blocks.{i}", modules, config.num_attention_heads)
        parts, aliases = parts | inside, aliases | names
        if not config.do_stable_layer_norm:  # norms after attention and after the MLP: the first is given the sum
            aliases[f"blocks.{i}.hook_resid_mid"] = f"blocks.{i}.ln1@in"
    return parts, own_names(module, parts) | aliases


def _transposed(module: nn.Module) -> Place:
    return Place(module, read=lambda values: values.mT, write=lambda _, values: values.mT)


def _normalized(waveform: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
    # The feature extractor's own constant, which keeps silence from dividing by zero.
    return (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
