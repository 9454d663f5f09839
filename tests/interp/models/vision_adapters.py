"""One tiny model of every vision architecture that is read, with and without a head, and the table in the docs.

`python tests/interp/models/vision_adapters.py` writes docs/adapters.md.
"""

import importlib.util
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "docs" / "adapters.md"
COMMAND = "python tests/interp/models/vision_adapters.py"
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
TINY = SIZES | {"image_size": 16, "patch_size": 4}
RATIO = TINY | {"mlp_ratio": 2}
DECODER = {
    "decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}  # fmt: skip
TEXT = SIZES | {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TWO = {"text_config": TEXT, "vision_config": TINY}

# The columns of the table: class, class of the config, its arguments.
BARE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViT": ("ViTModel", "ViTConfig", TINY),
    "DeiT": ("DeiTModel", "DeiTConfig", TINY),
    "DINOv2": ("Dinov2Model", "Dinov2Config", RATIO),
    "DINOv2, SwiGLU": ("Dinov2Model", "Dinov2Config", RATIO | {"use_swiglu_ffn": True}),
    "DINOv2 with registers": (
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", RATIO | {"num_register_tokens": 3},
    ),
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", TINY | {"num_register_tokens": 2}),
    "DINOv3, gated": ("DINOv3ViTModel", "DINOv3ViTConfig", TINY | {"num_register_tokens": 2, "use_gated_mlp": True}),
    "ViTMAE": ("ViTMAEModel", "ViTMAEConfig", TINY | DECODER),
    "BEiT": ("BeitModel", "BeitConfig", TINY | {"use_relative_position_bias": True}),
    "CLIP": ("CLIPVisionModel", "CLIPVisionConfig", TINY),
    "SigLIP": ("SiglipVisionModel", "SiglipVisionConfig", TINY),
}  # fmt: skip
HEADED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViT, classes": ("ViTForImageClassification", "ViTConfig", TINY),
    "ViT, masked": ("ViTForMaskedImageModeling", "ViTConfig", TINY | {"encoder_stride": 4}),
    "DeiT, classes": ("DeiTForImageClassification", "DeiTConfig", TINY),
    "DeiT, teacher": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", TINY),
    "DINOv2, classes": ("Dinov2ForImageClassification", "Dinov2Config", RATIO),
    "ViTMAE, decoder": ("ViTMAEForPreTraining", "ViTMAEConfig", TINY | DECODER),
    "BEiT, masked": ("BeitForMaskedImageModeling", "BeitConfig", TINY | {"use_mask_token": True}),
    "CLIP, two towers": ("CLIPModel", "CLIPConfig", TWO),
    "CLIP, classes": ("CLIPForImageClassification", "CLIPConfig", TWO),
    "SigLIP, two towers": ("SiglipModel", "SiglipConfig", TWO),
    "SigLIP, classes": ("SiglipForImageClassification", "SiglipConfig", TWO),
}
ADAPTERS = BARE | HEADED

WHAT = {
    "embed": "what goes into the transformer: patches, prefix tokens, positions",
    "embed_ln": "the norm between the embedding and the first block",
    "blocks.i": "residual stream after the block",
    "blocks.i.ln1": "first norm",
    "blocks.i.attn": "attention, as the block adds it to the stream (before a layer scale)",
    "blocks.i.attn.q": "queries, the heads one after the other",
    "blocks.i.attn.k": "keys",
    "blocks.i.attn.v": "values",
    "blocks.i.attn.hook_pattern": "attention weights `[b, heads, p, p]`, with `attention='eager'`; not editable",
    "blocks.i.attn.o": "projection of the heads; its input is each head's output",
    "blocks.i.ln2": "second norm; its input is the residual stream between attention and MLP",
    "blocks.i.mlp": "MLP, as the block adds it to the stream (before a layer scale)",
    "blocks.i.mlp.gate": "gate of the hidden units, before the nonlinearity",
    "blocks.i.mlp.in": "hidden units before the nonlinearity (what the gate multiplies, where there is one)",
    "blocks.i.mlp.out": "last projection; its input is the hidden units after the nonlinearity",
    "ln_final": "last norm; in CLIP it is given the class token alone",
}


def built(name: str, **changes: Any) -> Any:
    """A model of random weights in eval mode, every parameter different from zero."""
    import transformers

    model_class, config_class, arguments = ADAPTERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**arguments | changes))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.03 * torch.randn_like(parameter))
    return model.eval()


def rendered(load: Callable[..., Any]) -> str:
    """The table, from what the loaded models say of themselves."""
    models = {name: load(built(name)) for name in BARE}
    sites = {name: [_row(str(site)) for site in model.layout.parts] for name, model in models.items()}
    rows = [row for row in WHAT if any(row in found for found in sites.values())]
    assert {row for found in sites.values() for row in found} == set(rows), "a site without a description"
    lines = [
        "# Vision models: what can be read", "",
        f"Made by `{COMMAND}` from the models themselves, and compared with them by the tests.", "",
        "Each site is the output of a part; `@in` after its name is its input, `#heads` says that the last axis holds",
        "that many heads. `load_model` takes these architectures bare or with a head; of CLIP and SigLIP it takes the",
        "vision tower. The dotted paths of a model's own modules are sites too.", "",
        f"| site | what it is | {' | '.join(BARE)} |",
        f"|---|---|{'---|' * len(BARE)}",
    ]  # fmt: skip
    lines += [
        f"| `{row}` | {WHAT[row]} | {' | '.join('x' if row in found else '' for found in sites.values())} |"
        for row in rows
    ]
    lines += ["", "Other names, those of TransformerLens:", "", "| name | site |", "|---|---|"]
    aliases: dict[str, dict[str, None]] = {}
    for alias, site in itertools.chain.from_iterable(map(_aliases, models.values())):
        aliases.setdefault(_row(alias), {})[f"`{_row(site, side=True)}`"] = None
    lines += [f"| `{alias}` | {', with a gate '.join(found)} |" for alias, found in aliases.items()]
    lines += ["", "How positions lie in the tiny models of the tests (16 x 16 pixels, patches of 4):", ""]
    lines += ["| model | class | prefix tokens | grid | `embedding` |", "|---|---|---|---|---|"]
    for name, model in models.items():
        geometry = model.geometry(model.site("blocks.0"))
        lines.append(
            f"| {name} | `{BARE[name][0]}` | {geometry.prefix} | {' x '.join(map(str, geometry.grid))} | "
            f"{_pooling(model)} |"
        )
    return "\n".join([*lines, *_others().sections(load)]) + "\n"


def _others() -> Any:
    """Models of maps and of sound, from the file beside this one."""
    path = Path(__file__).with_name("feature_adapters.py")
    spec: Any = importlib.util.spec_from_file_location("feature_adapters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _row(site: str, *, side: bool = False) -> str:
    name = re.sub(r"^blocks\.\d+", "blocks.i", site.partition("#")[0])
    return name if side else name.removesuffix("@in")


def _aliases(model: Any) -> list[tuple[str, str]]:
    """TransformerLens' own names, without `hook_in` and `hook_out`, which every part has."""
    names = [name for name in model.sites() if ".hook_" in f".{name}" and not name.endswith(("hook_in", "hook_out"))]
    return [(name, str(model.site(name))) for name in names if _row(name) != _row(str(model.site(name)))]


def _pooling(model: Any) -> str:
    output = model.forward(model.collate([torch.zeros(16, 16, 3, dtype=torch.uint8)]))
    ways = {
        "class token": output.hidden[:, 0],
        "class token after the last norm": getattr(model.module, "post_layernorm", lambda x: x)(output.hidden[:, 0]),
    }
    same = [
        way
        for way, value in ways.items()
        if value.shape == output.pooled.shape and torch.allclose(value, output.pooled, atol=1e-6)
    ]
    return same[0] if same else "the model's own pooling"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from interp.loading import load_model

    TABLE.write_text(rendered(load_model))
