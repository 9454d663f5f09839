"""One tiny model of every architecture of feature maps and of speech that is read, and their tables in the docs."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

WIDTHS = {"hidden_sizes": [8, 12, 16, 24], "depths": [2, 1, 2, 1]}
STEM = WIDTHS | {"embedding_size": 6}
WINDOWS = {"image_size": 64, "embed_dim": 8, "window_size": 4}
# Class, class of the config, its arguments.
MAPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ResNet": ("ResNetModel", "ResNetConfig", STEM | {"layer_type": "basic"}),
    "RegNet": ("RegNetModel", "RegNetConfig", STEM | {"groups_width": 4}),
    "ConvNeXt": ("ConvNextModel", "ConvNextConfig", WIDTHS | {"image_size": 64}),
    "ConvNeXt V2": ("ConvNextV2Model", "ConvNextV2Config", WIDTHS | {"image_size": 64}),
    "Swin": ("SwinModel", "SwinConfig", WINDOWS | {"depths": [2, 2, 1], "num_heads": [1, 2, 4]}),
}
HEADED_MAPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ResNet, bottleneck": ("ResNetForImageClassification", "ResNetConfig", STEM),
    "ConvNeXt V2, classes": ("ConvNextV2ForImageClassification", *MAPS["ConvNeXt V2"][1:]),
    "Swin, positions": (
        "SwinForImageClassification", "SwinConfig",
        WINDOWS | {"depths": [1, 2], "num_heads": [2, 2], "use_absolute_embeddings": True},
    ),
}  # fmt: skip
SPEECH = {
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert": ("HubertConfig", "HubertModel"),
    "unispeech": ("UniSpeechConfig", "UniSpeechModel"),
    "unispeech-sat": ("UniSpeechSatConfig", "UniSpeechSatModel"),
}
D, HEADS, LAYERS = 16, 4, 2

WHAT_MAPS = {
    "embed": "what goes into the first stage",
    "stages.i.downsample": "the map of half the size: in ConvNeXt before the stage's blocks, in Swin after them",
    "stages.i.blocks.j": "stream after the block; `stages.i` names the last of a stage",
    "stages.i.blocks.j.conv": "the depthwise convolution",
    "stages.i.blocks.j.conv.k": "each convolution, after its norm and nonlinearity; the last before the sum",
    "stages.i.blocks.j.ln": "norm between convolution and MLP; channels last from here to `mlp.out`",
    "stages.i.blocks.j.ln1": "first norm",
    "stages.i.blocks.j.attn": "attention, back in the image, as the block adds it to the stream",
    "stages.i.blocks.j.ln2": "second norm; its input is the stream between attention and MLP",
    "stages.i.blocks.j.mlp": "MLP, as the block adds it to the stream",
    "stages.i.blocks.j.mlp.in": "hidden units before the nonlinearity",
    "stages.i.blocks.j.mlp.out": "last projection; its input is the hidden units after the nonlinearity",
    "ln_final": "last norm: of ConvNeXt's pooled vector, of Swin's positions",
}
WHAT_SPEECH = {
    "conv.i": "each convolution of the front end, after its norm and nonlinearity, as `[b, frames, d]`",
    "embed": "frames as the encoder takes them",
    "pos_embed": "what the convolution of positions adds to them",
    "embed_ln": "the norm before the first block",
    "blocks.i": "stream after the block; its parts are those of the vision models above",
    "ln_final": "the norm after the last block",
}


def built_map(name: str) -> Any:
    """A model of maps in eval mode, no parameter and no statistic at its neutral value."""
    import transformers

    model_class, config_class, arguments = (MAPS | HEADED_MAPS)[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**arguments))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for path, buffer in model.named_buffers():
                if path.endswith(("running_mean", "running_var")):
                    buffer.add_(0.3 * torch.rand_like(buffer))
    return model.eval()


def built_speech(kind: str, norm: str = "layer", model_class: str | None = None, **more: Any) -> Any:
    """A speech model in eval mode: group norm and norms after each part as in the released base models, or layer norm
    and norms before it as in the large ones."""
    import transformers

    config_class, bare = SPEECH[kind]
    config = getattr(transformers, config_class)(
        hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=24, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=6, num_conv_pos_embedding_groups=2, vocab_size=11, feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer", conv_bias=norm == "layer", **more,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, model_class or bare)(config).eval()
    for name, parameter in model.named_parameters():
        if ".encoder." in f".{name}" and parameter.ndim == 2:
            parameter.data *= 10  # so that attention is far from even
    return model


def sections(load: Callable[..., Any]) -> list[str]:
    """The lines of the docs about models of maps and of speech, from what the loaded models say of themselves."""
    maps = {name: load(built_map(name)) for name in MAPS}
    speech = {
        f"{kind}, {norm} norm": load(built_speech(kind, norm))
        for kind in list(SPEECH)[:2]
        for norm in ("group", "layer")
    }
    lines = [
        "", "# Models of feature maps: what can be read", "",
        "Blocks are `stages.i.blocks.j` in all of them, timm's name for ConvNeXt's; Hugging Face's own paths",
        "(`encoder.stages.1.layers.0`, `encoder.layers.1.blocks.0`) name the same sites. Swin's queries, keys, values",
        "and heads stand in shifted windows and not in the image, so they have no site. Images may be of any size that",
        "the model itself takes, square or not.", "",
        *_table(maps, WHAT_MAPS), "",
        "How positions lie in images of 64 x 96 pixels. Where convolutions pad, what a position sees is centred on a",
        "corner of a plain tiling: `start` says so, and `Geometry.span` gives the patch around that centre.", "",
        "| site | " + " | ".join(f"{name}: grid, stride, start" for name in maps) + " |", "|---|" + "---|" * len(maps),
    ]  # fmt: skip
    from interp.types import Inputs

    inputs = Inputs({"pixel_values": torch.zeros(1, 3, 64, 96)})
    for site in ("embed", "stages.0", "stages.1", "stages.2"):
        found = [model.geometry(model.site(site), inputs) for model in maps.values()]
        cells = [f"{g.grid[0]} x {g.grid[1]}, {g.stride[0]}, {g.start[0] if g.start else 0}" for g in found]
        lines.append(f"| `{site}` | {' | '.join(cells)} |")
    frames = next(iter(speech.values())).geometry(next(iter(speech.values())).site("blocks.0"))
    return [
        *lines, "", "# Speech models: what can be read", "",
        "wav2vec 2.0, HuBERT, UniSpeech and UniSpeech-SAT, bare or with a head. `collate` takes waveforms, normalises",
        f"and pads them; a frame covers {frames.patch[0]} samples and the next begins {frames.stride[0]} later",
        "(`Geometry.span`, `.seconds` and `.at` go between frames and samples). Models with a group norm in their",
        "front end cannot tell padding from sound: give them waveforms of one length, or one at a time",
        "(`harvest(..., batch_tokens=1)`).", "",
        *_table(speech, WHAT_SPEECH), "", *BARE.strip().splitlines(),
    ]  # fmt: skip


def _table(models: Mapping[str, Any], what: Mapping[str, str]) -> list[str]:
    found = {name: {_row(str(site)) for site in model._parts} for name, model in models.items()}
    inside = {row for rows in found.values() for row in rows if row.startswith("blocks.i.")}
    assert {row for rows in found.values() for row in rows} - inside == what.keys(), "a site without a description"
    lines = [f"| site | what it is | {' | '.join(models)} |", f"|---|---|{'---|' * len(models)}"]
    return lines + [
        f"| `{row}` | {text} | {' | '.join('x' if row in rows else '' for rows in found.values())} |"
        for row, text in what.items()
    ]


def _row(site: str) -> str:
    name = site.partition("#")[0].removesuffix("@in")
    for pattern, letters in ((r"^stages\.\d+\.blocks\.\d+", "stages.i.blocks.j"), (r"^stages\.\d+", "stages.i")):
        name = re.sub(pattern, letters, name)
    return re.sub(r"\.conv\.\d+$", ".conv.k", re.sub(r"^(blocks|conv)\.\d+", r"\1.i", name))


BARE = """
# Any other module

`TorchModel(module)` reads every module by its dotted path: `layer4.2`, `layer4.2@in`, `encoder.rnn@out[1]` for the
second element of a tuple or dict. Where a module runs several times, its first run counts. What the positions of a
site are is declared, and compared with every activation that is read:

| values | declare |
|---|---|
| `[b, p, d]` | nothing; `stride`, `patch` and `rate` to know their place in the input |
| `[b, d]` | nothing: one row an example |
| `[b, 1 + h * w, d]` | `Geometry("grid", (h, w), prefix=1)` |
| `[b, d, h, w]`, `[b, h, w, d]` | `Geometry("grid", (h, w))`, and `channels=` where the shape does not tell |
| `[b, d, t]` | `Geometry("sequence", channels="first")` |
| `[b, channels, patches, d]` | `Geometry("grid", (channels, patches), channels="last")` |

`interp.measuring.measure` finds grid and stride of maps from one forward pass:

    bare = TorchModel(net)
    model = TorchModel(net, geometry=measure(bare, inputs, ["layer3", "layer4"]))

A vision transformer built like timm's goes through `interp.models.timm_like.TimmLikeViT`, which cuts its fused `qkv`
into `blocks.i.attn.q`, `.k` and `.v`, and knows its prefix tokens and grid.

A time series is `[b, t, c]` with a `rate`, in steps a second; causal convolutions look back, which `start` says:

    frames = Geometry("sequence", stride=(2,), patch=(7,), start=(-6,), rate=50.0, channels="first")
    model = TorchModel(tcn, geometry={"two": frames})
    store = harvest(model, items, "two", collate=batch, batch_tokens=32)[Site("two")]
    store.geometry.seconds(3)

With `collate=` one sequence counts as one token of `batch_tokens`, whatever its length. For series of several lengths
`batch` gives the mask over positions, `Inputs({"x": padded}, mask)`, of a model that does not look into the padding.
"""
