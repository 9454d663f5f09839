"""Every vision adapter against the plain model: hidden states and weights of the attention as Hugging Face returns
them, and between them each part written out from its weights."""

import copy
import functools
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from interp.capturing import capture, edited
from interp.loading import load_model
from interp.models.hugging_face import from_loaded
from interp.models.layouts.vit import vit_layout
from interp.models.vision import VisionModel
from interp.preprocessing import Preprocessing
from interp.types import Geometry, Inputs, Site


def _adapters():
    path = Path(__file__).with_name("vision_adapters.py")
    spec = importlib.util.spec_from_file_location("vision_adapters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases = _adapters()
PREFIX = {"DeiT": 2, "DINOv2 with registers": 4, "DINOv3": 3, "SigLIP": 0}


@pytest.fixture(scope="session")
def models():
    """Each plain model, and the adapter of a copy of it that runs eager attention."""
    plain = {name: cases.built(name) for name in cases.ADAPTERS}
    return {name: (model, load_model(copy.deepcopy(model), attention="eager")) for name, model in plain.items()}


@pytest.fixture(params=cases.ADAPTERS)
def pair(request, models):
    return models[request.param]


@pytest.fixture(params=cases.BARE)
def bare(request, models):
    return request.param, models[request.param][1]


@functools.cache
def everything(model):
    """All that the adapter names, of two images; read once."""
    return capture(model, images(2, 3, 16, 16), [*model.layout.parts])


def images(*shape, seed=0):
    return Inputs({"pixel_values": torch.randn(*shape, generator=torch.Generator().manual_seed(seed))})


def plainly(plain, pixels):
    """What the plain model gives, without the adapter's help: nothing masked, positions interpolated to the size."""
    plain = copy.deepcopy(plain if plain.main_input_name == "pixel_values" else plain.vision_model)
    plain.set_attn_implementation("eager")
    options = {"output_hidden_states": True, "output_attentions": True}
    if plain.config.model_type == "vit_mae":
        plain.config.mask_ratio = 0.0
        n = pixels.shape[2] * pixels.shape[3] // 16
        options["noise"] = torch.linspace(0, 1, n).repeat(len(pixels), 1)
    below = [getattr(plain, name) for name in ("vit", "deit", "dinov2", "beit", "vision_model") if hasattr(plain, name)]
    bodies = []
    (*below, plain)[0].register_forward_hook(lambda _m, _args, output: bodies.append(output))
    with torch.no_grad():
        return plain(pixels, **options), bodies[0]


def weights(module, *names):
    """Weight and bias of the one layer whose path ends in one of these names."""
    state = module.state_dict()
    keys = [key for key in state if re.search(rf"(^|\.)({'|'.join(names)})\.weight$", key)]
    return (state[keys[0]], state.get(keys[0].replace("weight", "bias"))) if len(keys) == 1 else None


def scale_of(block, number):
    """What a block multiplies a branch by before adding it; 1 in most models."""
    state = block.state_dict()
    found = [
        value for key, value in state.items() if re.fullmatch(rf"layer_scale{number}\.lambda1|lambda_{number}", key)
    ]
    return found[0] if found else 1.0


def by_hand(block, config, before, pattern):
    """Every part of a pre-norm block, from its input and attention weights."""
    from transformers.activations import ACT2FN

    eps = getattr(config, "layer_norm_eps", 1e-6)
    norms = [
        weights(block, *names)
        for names in (("layernorm_before", "norm1", "layer_norm1"), ("layernorm_after", "norm2", "layer_norm2"))
    ]
    q, k, v, o = (weights(block, *names) for names in (["q_proj"], ["k_proj"], ["v_proj"], ["o_proj", "out_proj"]))
    up, down, gate = weights(block, "fc1", "up_proj"), weights(block, "fc2", "down_proj"), weights(block, "gate_proj")
    ln1 = functional.layer_norm(before, norms[0][0].shape, *norms[0], eps)
    values = functional.linear(ln1, *v)
    heads = values.unflatten(-1, (4, 4)).transpose(1, 2)
    z = (pattern @ heads).transpose(1, 2).flatten(2)
    attn = functional.linear(z, *o)
    middle = before + scale_of(block, 1) * attn
    ln2 = functional.layer_norm(middle, norms[1][0].shape, *norms[1], eps)
    pre = functional.linear(ln2, *up)
    active = ACT2FN["silu" if getattr(config, "use_swiglu_ffn", False) else config.hidden_act]
    gated = None if gate is None else functional.linear(ln2, *gate)
    post = active(pre) if gate is None else active(gated) * pre
    mlp = functional.linear(post, *down)
    sides = {
        "": (before, middle + scale_of(block, 2) * mlp),
        ".ln1": (before, ln1),
        ".attn": (ln1, attn),
        ".attn.q": (ln1, functional.linear(ln1, *q)),
        ".attn.k": (ln1, functional.linear(ln1, *k)),
        ".attn.v": (ln1, values),
        ".attn.o": (z, attn),
        ".ln2": (middle, ln2),
        ".mlp": (ln2, mlp),
        ".mlp.in": (ln2, pre),
        ".mlp.out": (post, mlp),
    } | ({} if gate is None else {".mlp.gate": (ln2, gated)})
    found = {part: out for part, (_, out) in sides.items()} | {
        f"{part}@in": given for part, (given, _) in sides.items()
    }
    return found | {".attn.hook_pattern": pattern}


def blocks_of(plain):
    """The blocks, by what their classes are called."""
    kind = r"^(ViT|DeiT|Dinov2|Dinov2WithRegisters|DINOv3ViT|ViTMAE|Beit|CLIPEncoder|SiglipEncoder)Layer$"
    tower = getattr(plain, "vision_model", plain)
    return [
        part for path, part in tower.named_modules() if re.match(kind, type(part).__name__) and "decoder" not in path
    ]


def patches_by_hand(plain, pixels):
    """Projection of each patch plus what the model knows of its position; without interpolation."""
    state = getattr(plain, "vision_model", plain).state_dict()
    weight, bias = next((v, state.get(k.replace("weight", "bias"))) for k, v in state.items() if v.ndim == 4)
    cut = pixels.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    found = functional.linear(cut, weight.flatten(1), bias)
    places = [
        v.squeeze(0)
        for k, v in state.items()
        if re.search(r"(?<!decoder\.)embeddings\.position_embeddings?(\.weight)?$", k)
    ]
    return found + (places[0][-found.shape[1] :] if places else 0)


def test_every_named_site_equals_the_plain_model(pair):
    plain, model = pair
    inputs = images(2, 3, 16, 16)
    pixels = inputs.tensors["pixel_values"]
    output, body = plainly(plain, pixels)
    found = everything(model)
    assert len(output.hidden_states) == 3
    config = model.layout.body.config
    wanted = {}
    for i, block in enumerate(blocks_of(plain)):
        parts = by_hand(block, config, output.hidden_states[i], output.attentions[i])
        assert torch.allclose(parts[""], output.hidden_states[i + 1], atol=1e-5)
        wanted |= {f"blocks.{i}{part}": value for part, value in parts.items()}
    assert len(blocks_of(plain)) == 2
    values = {str(site).partition("#")[0]: value for site, value in found.values.items()}
    around = {"embed", "ln_final", "ln_final@in"} | ({"embed_ln", "embed_ln@in"} if "embed_ln" in values else set())
    assert values.keys() == wanted.keys() | around
    for site, value in wanted.items():
        assert torch.allclose(values[site], value, atol=1e-5), site
    check_around(plain, values, output.hidden_states, patches_by_hand(plain, pixels), body)


def check_around(plain, values, hidden, patches, body):
    assert torch.allclose(values["embed"][:, -patches.shape[1] :], patches, atol=1e-5)
    if "embed_ln" in values:
        tower = getattr(plain, "vision_model", plain)
        state = tower.embeddings.state_dict()
        first = state["class_embedding"] + state["position_embedding.weight"][0]
        assert torch.allclose(values["embed"][:, 0], first.expand(2, -1), atol=1e-5)
        assert torch.equal(values["embed_ln@in"], values["embed"])
        assert torch.allclose(values["embed_ln"], hidden[0], atol=1e-5)
        hidden = (*hidden[:-1], hidden[-1][:, 0])  # its last norm sees the class token alone
    else:
        assert torch.allclose(values["embed"], hidden[0], atol=1e-5)
    assert torch.allclose(values["ln_final@in"], hidden[-1], atol=1e-5)
    assert torch.allclose(
        values["ln_final"], body.pooler_output if "embed_ln" in values else body.last_hidden_state, atol=1e-5
    )


def test_heads_are_of_the_numbers_that_are_declared(bare):
    _, model = bare
    for name in ("attn.q", "attn.k", "attn.v", "attn.o@in"):
        assert model.site(f"blocks.1.{name}") == Site.parse(f"blocks.1.{name}#4")
    assert model.site("blocks.1.attn.o").heads is None
    values = everything(model).values
    q, k, pattern = (values[model.site(f"blocks.0.attn.{part}")] for part in ("q", "k", "hook_pattern"))
    if "DINOv3" not in bare[0] and bare[0] != "BEiT":  # rotary positions and a bias on the scores
        q, k = (x.unflatten(-1, (4, 4)).transpose(1, 2) for x in (q, k))
        assert torch.allclose((q @ k.mT / 2).softmax(-1), pattern, atol=1e-5)
    assert torch.allclose(pattern.sum(-1), torch.ones(2, 4, q.shape[-2] if q.ndim == 4 else q.shape[1]), atol=1e-5)


def test_reading_changes_nothing_and_what_is_returned_is_the_plain_models(pair):
    plain, model = pair
    inputs = images(2, 3, 16, 16)
    with torch.no_grad():
        before = model.forward(inputs)
        capture(model, inputs, ["embed", "blocks.0.attn.q", "blocks.1"])
        after = model.forward(inputs)
    output, body = plainly(plain, inputs.tensors["pixel_values"])
    logits = getattr(output, "logits", getattr(output, "reconstruction", None))
    assert torch.allclose(before.hidden, body.last_hidden_state, atol=1e-5)
    assert torch.equal(before.hidden, after.hidden)
    assert torch.equal(before.pooled, after.pooled)
    assert torch.equal(model.embedding(after, inputs), after.pooled)
    assert (before.logits is None) == (logits is None)
    if logits is not None:
        assert torch.allclose(before.logits, logits, atol=1e-5)
    ratio = getattr(model.layout.body.config, "mask_ratio", None)
    assert ratio in (None, 0.75)  # ViTMAE's config is as it was


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (8, 20)])
def test_a_planted_patch_is_found_where_it_was_planted(bare, size):
    name, model = bare
    inputs = images(1, 3, *size)
    sites = ["embed", "blocks.0", "blocks.0.mlp.out@in"]
    before = capture(model, inputs, sites)
    geometry = before.geometries[Site("blocks.0")]
    prefix, (rows, columns) = PREFIX.get(name.partition(",")[0], 1), (size[0] // 4, size[1] // 4)
    assert geometry == Geometry("grid", (rows, columns), prefix, (4, 4), (4, 4), size)
    for row, column in [(0, 0), (rows - 1, 1), (1, columns - 1)]:
        changed = inputs.tensors["pixel_values"].clone()
        changed[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += (
            3 * images(1, 3, 4, 4, seed=5).tensors["pixel_values"][0]
        )
        after = capture(model, Inputs({"pixel_values": changed}), sites)
        moved = {str(site): (after.values[site] - before.values[site]).norm(dim=-1)[0] for site in before.values}
        position = prefix + row * columns + column
        assert moved["embed"].nonzero().flatten().tolist() == [position]
        assert moved["blocks.0"].argmax() == position
        assert moved["blocks.0.mlp.out@in"].argmax() == position
        assert geometry.span(position) == ((4 * row, 4 * row + 4), (4 * column, 4 * column + 4))
        assert geometry.at(4 * row + 3, 4 * column) == position


def test_models_of_other_shapes_than_squares():
    """A grid and patches with two different sides."""
    model = load_model(cases.built("ViT", image_size=(16, 24), patch_size=(8, 4)))
    assert model.layout.input_size == model.preprocessing.size == (16, 24)
    assert model.geometry(Site("blocks.0")) == Geometry("grid", (2, 6), 1, (8, 4), (8, 4), (16, 24))
    plain, changed = (images(1, 3, 16, 24).tensors["pixel_values"] for _ in range(2))
    changed[:, :, 8:, 4:8] = 0
    values = [capture(model, Inputs({"pixel_values": x}), ["embed"]).values[Site("embed")] for x in (plain, changed)]
    assert (values[0] - values[1]).norm(dim=-1)[0].nonzero().flatten().tolist() == [1 + 6 + 1]


def test_a_batch_equals_one_at_a_time(pair):
    _, model = pair
    inputs = images(3, 3, 16, 16)
    together = capture(model, inputs, ["blocks.0.attn.o@in", "blocks.1", "ln_final"]).values
    for i in range(3):
        one = Inputs({"pixel_values": inputs.tensors["pixel_values"][i : i + 1]})
        for site, value in capture(model, one, list(together)).values.items():
            assert torch.allclose(value[0], together[site][i], atol=1e-5)


def test_rows_have_the_positions_of_the_image(bare):
    name, model = bare
    found = everything(model)
    n = PREFIX.get(name.partition(",")[0], 1) + 16
    for site in [site for site in found.values if not site.module.endswith("hook_pattern")]:
        rows = found.rows(site, examples=[7, 9])
        pooled = name == "CLIP" and site.module == "ln_final"
        assert len(rows) == (2 if pooled else 2 * n)
        assert rows.position.tolist() == ([0, 0] if pooled else [*range(n), *range(n)])
        assert torch.equal(rows.values, found.values[site].flatten(0, -2))
    with pytest.raises(
        ValueError, match=r"hook_pattern holds a tensor of shape \(2, 4, \d+, \d+\), a matrix of positions"
    ):
        found.rows("blocks.0.attn.hook_pattern")


def test_patterns_need_eager_attention_and_cannot_be_edited(models):
    _, eager = models["ViT"]
    inputs = images(1, 3, 16, 16)
    model = load_model(cases.built("ViT"))
    with pytest.raises(ValueError, match=r"runs sdpa attention, which makes no pattern: load_model.*attention='eager'"):
        capture(model, inputs, ["blocks.0.attn.hook_pattern"])
    assert torch.allclose(model.forward(inputs).hidden, eager.forward(inputs).hidden, atol=1e-5)
    with (
        pytest.raises(ValueError, match=r"hook_pattern can be read and differentiated, but not edited"),
        edited(eager, {"blocks.0.attn.hook_pattern": torch.zeros_like}),
    ):
        eager.forward(inputs)


def test_names_of_the_models_own_modules_are_sites(models):
    _, model = models["DINOv2"]
    assert model.site("encoder.layer.1") == model.site("blocks.1.hook_resid_post") == Site("blocks.1")
    assert model.site("encoder.layer.1@in") == model.site("blocks.1.hook_resid_pre") == Site("blocks.1", "in")
    assert model.site("encoder.layer.0.attention.o_proj@in") == model.site("blocks.0.attn.hook_z")
    assert model.site("encoder.layer.0.layer_scale1") == Site("encoder.layer.0.layer_scale1")
    inputs = images(2, 3, 16, 16)
    conv = "embeddings.patch_embeddings.projection"
    names = [
        "encoder.layer.0.layer_scale1",
        "embeddings.patch_embeddings",
        conv,
        "blocks.0.hook_resid_mid",
        "blocks.0@in",
    ]
    found = capture(model, inputs, names)
    scaled, _, _, middle, before = found.values.values()
    assert torch.allclose(before + scaled, middle, atol=1e-5)
    assert found.rows("encoder.layer.0.layer_scale1").values.shape == (34, 16)
    assert found.rows(conv).values.equal(found.rows("embeddings.patch_embeddings").values)
    assert found.geometries[Site(conv)].span(5) == ((4, 8), (4, 8))
    with pytest.raises(ValueError, match=r"blocks\.1\.attn\.o@in#4 there"):
        model.site("blocks.1.attn.hook_z#8")
    with pytest.raises(ValueError, match=r"'blocks.7'.*nearest are blocks"):
        model.site("blocks.7")


def test_gradients_reach_every_part_and_equal_autograd_by_hand(models):
    plain, model = models["ViT, classes"]
    inputs = images(2, 3, 16, 16)
    found = capture(model, inputs, [*model.layout.parts], score=lambda output: output.logits[:, 0])
    assert all(grad.abs().max() > 0 for grad in found.grads.values())
    grabbed = []
    handle = plain.vit.layers[0].attention.o_proj.register_forward_pre_hook(
        lambda _m, args: (args[0].retain_grad(), grabbed.append(args[0]))[:0] or None
    )
    plain(**inputs.tensors).logits[:, 0].sum().backward()
    handle.remove()
    plain.zero_grad()
    assert torch.allclose(found.grads[Site.parse("blocks.0.attn.o@in#4")], grabbed[0].grad, atol=1e-6)


def test_the_input_is_the_pixels_of_every_model(pair):
    model, inputs = pair[1], images(2, 3, 16, 16)
    pixels = inputs.tensors["pixel_values"]
    found = capture(model, inputs, "input", score=lambda output: output.pooled.norm(dim=1))
    assert torch.equal(found.values[Site("input")], pixels)
    assert found.geometries[Site("input")].grid == tuple(pixels.shape[2:])
    assert found.grads[Site("input")].flatten(1).any(dim=1).all()
    assert model.geometry(Site("input")).grid == tuple(model.preprocessing.size)


def test_edits_of_a_head_change_what_comes_after(models):
    _, model = models["DeiT"]
    inputs = images(1, 3, 16, 16)
    before = model.forward(inputs)
    with edited(model, {"blocks.1.attn.hook_z": torch.zeros_like}):
        found = capture(model, inputs, ["blocks.1.attn"])
        assert not torch.allclose(model.forward(inputs).hidden, before.hidden, atol=1e-3)
    bias = model.module.layers[1].attention.o_proj.bias
    assert torch.allclose(found.values[Site("blocks.1.attn")], bias.expand(1, 18, 16), atol=1e-6)
    assert torch.equal(model.forward(inputs).hidden, before.hidden)


def test_names_and_values_are_those_of_transformer_lens(models):
    plain, model = models["ViT, classes"]
    bridge = from_loaded(copy.deepcopy(plain), name="bridged")
    inputs = images(2, 3, 16, 16)
    assert {str(model.site(name)) for name in model.layout.parts} <= set(bridge.sites())
    found, wanted = (capture(which, inputs, list(model.layout.parts)).values for which in (model, bridge))
    for site, value in found.items():
        assert torch.allclose(value, wanted[site], atol=1e-5), site
    both = [name for name in bridge.sites() if name in model.sites() and "hook_" in name]
    assert len(both) > 50
    assert {name: model.site(name) for name in both} == {name: bridge.site(name) for name in both}


def test_pictures_become_inputs(models):
    _, model = models["SigLIP"]
    picture = torch.randint(0, 256, (32, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = model.collate([picture, picture.flip(0)])
    assert inputs.tensors["pixel_values"].shape == (2, 3, 16, 16)
    assert inputs.tensors["pixel_values"].min() >= -1
    assert inputs.tensors["pixel_values"].max() <= 1
    small = Preprocessing(size=(8, 8), resize=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    other = VisionModel(model.module, preprocessing=small, name="small")
    assert other.geometry(Site("blocks.0")).grid == (2, 2)
    assert capture(other, other.collate([picture]), ["blocks.0"]).rows("blocks.0").values.shape == (4, 16)


def test_half_precision_and_its_inputs(models):
    model = load_model(cases.built("CLIP"), dtype=torch.bfloat16)
    values = capture(model, images(1, 3, 16, 16), ["blocks.1"]).values[Site("blocks.1")]
    assert values.dtype == torch.bfloat16
    wanted = capture(models["CLIP"][1], images(1, 3, 16, 16), ["blocks.1"]).values[Site("blocks.1")]
    assert (values - wanted).norm() < 0.03 * wanted.norm()


def test_older_names_of_parts_are_known():
    """As transformers 4 called them: attention.attention.query, intermediate.dense, output.dense."""
    from types import SimpleNamespace

    def tree(**parts):
        module = torch.nn.Module()
        for name, part in parts.items():
            setattr(module, name, part)
        return module

    def dense():
        return tree(dense=torch.nn.Linear(16, 16))

    own = tree(query=torch.nn.Linear(16, 16), key=torch.nn.Linear(16, 16), value=torch.nn.Linear(16, 16))
    norms = {"layernorm_before": torch.nn.LayerNorm(16), "layernorm_after": torch.nn.LayerNorm(16)}
    block = tree(attention=tree(attention=own, output=dense()), intermediate=dense(), output=dense(), **norms)
    embeddings = tree(patch_embeddings=torch.nn.Conv2d(3, 16, 4, 4))
    body = tree(
        embeddings=embeddings, encoder=tree(layer=torch.nn.ModuleList([block])), layernorm=torch.nn.LayerNorm(16)
    )
    body.config = SimpleNamespace(num_attention_heads=4, image_size=16, patch_size=4)
    parts = vit_layout(body).parts
    assert parts["blocks.0.attn.q#4"].module is own.query
    assert parts["blocks.0.attn.o@in#4"].module is block.attention.output.dense
    assert parts["blocks.0.mlp.out@in"].module is block.output.dense
    assert parts["blocks.0.attn"].module is block.attention


def test_what_is_no_vision_transformer_is_told():
    with pytest.raises(ValueError, match=r"module is a Linear, whose layout is not known.*TorchModel"):
        VisionModel(torch.nn.Linear(2, 2), preprocessing=Preprocessing(size=(16, 16)))


def test_the_table_in_the_docs_is_the_models_own():
    wanted = cases.rendered(load_model)
    assert cases.TABLE.read_text() == wanted, f"docs/adapters.md is not what the models say: run `{cases.COMMAND}`"
