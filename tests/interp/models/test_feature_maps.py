"""Models of feature maps (ResNet, RegNet, ConvNeXt, Swin) against their formulas written out, and where in the image
their positions lie."""

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from interp.capturing import capture, edited
from interp.harvesting import harvest
from interp.loading import load_model
from interp.models.vision import VisionModel
from interp.preprocessing import Preprocessing
from interp.types import Geometry, Inputs, Site


def _adapters():
    path = Path(__file__).with_name("feature_adapters.py")
    spec = importlib.util.spec_from_file_location("feature_adapters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases = _adapters()
NAMES = [*cases.MAPS, *cases.HEADED_MAPS]
SIZES = [(64, 64), (64, 96), (70, 101)]


@pytest.fixture(scope="module")
def models():
    return {name: load_model(cases.built_map(name)) for name in NAMES}


@pytest.fixture(params=NAMES)
def model(request, models):
    return models[request.param]


def images(*shape, seed=0):
    return Inputs({"pixel_values": torch.randn(*shape, generator=torch.Generator().manual_seed(seed))})


def convolved(x, conv):
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)


def normed(x, norm):
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)


def resnet_by_hand(body, x):
    def layer(x, part, active=True):
        norm = part.normalization
        x = convolved(x, part.convolution)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return F.relu(x) if active else x

    x = layer(x, body.embedder.embedder)
    x = F.max_pool2d(x, 3, 2, 1) if hasattr(body.embedder, "pooler") else x
    found = {"embed": x}
    for i, stage in enumerate(body.encoder.stages):
        for j, block in enumerate(stage.layers):
            name, y, convolutions = f"stages.{i}.blocks.{j}", x, 0
            found[f"{name}@in"] = x
            for part in block.layer:
                if hasattr(part, "attention"):  # RegNet's weight of each channel
                    y = y * part.attention(y.mean((2, 3), keepdim=True))
                    continue
                y = layer(y, part, active=part is not block.layer[-1])
                found[f"{name}.conv.{convolutions}"] = y
                convolutions += 1
            short = block.shortcut
            x = F.relu(y + (layer(x, short, active=False) if hasattr(short, "convolution") else x))
            found[name] = x
    return found, x, x.mean((2, 3))


def convnext_by_hand(body, x):
    x = normed(convolved(x, body.embeddings.patch_embeddings).movedim(1, -1), body.embeddings.layernorm)
    found = {"embed": x.movedim(-1, 1)}
    for i, stage in enumerate(body.encoder.stages):
        if i:
            norm, conv = stage.downsampling_layer
            x = convolved(normed(x, norm).movedim(-1, 1), conv).movedim(1, -1)
            found[f"stages.{i}.downsample"] = x.movedim(-1, 1)
        for j, block in enumerate(stage.layers):
            name = f"stages.{i}.blocks.{j}"
            found[f"{name}@in"] = x.movedim(-1, 1)
            found[f"{name}.conv"] = convolved(x.movedim(-1, 1), block.dwconv)
            y = found[f"{name}.ln"] = found[f"{name}.mlp.in@in"] = normed(
                found[f"{name}.conv"].movedim(1, -1), block.layernorm
            )
            y = found[f"{name}.mlp.in"] = F.linear(y, block.pwconv1.weight, block.pwconv1.bias)
            y = F.gelu(y)
            if hasattr(block, "grn"):
                size = y.norm(dim=(1, 2), keepdim=True)
                y = block.grn.weight * (y * size / (size.mean(-1, keepdim=True) + 1e-6)) + block.grn.bias + y
            found[f"{name}.mlp.out@in"] = y
            y = found[f"{name}.mlp.out"] = F.linear(y, block.pwconv2.weight, block.pwconv2.bias)
            x = x + getattr(block, "layer_scale_parameter", 1) * y
            found[name] = x.movedim(-1, 1)
    found["ln_final"] = normed(x.mean((1, 2)), body.layernorm)
    return found, x.movedim(-1, 1), found["ln_final"]


def attended(block, x, grid, shift, window):
    """Shifted-window attention as one matrix over all positions, zero where two of them share no window."""
    heads, (h, w) = block.attention.num_attention_heads, grid
    high, wide = -(-h // window) * window, -(-w // window) * window
    x = F.pad(x.unflatten(1, grid), (0, 0, 0, wide - w, 0, high - h)).flatten(1, 2)
    rows, columns = (t.flatten() for t in torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij"))
    rows, columns = (rows - shift) % high, (columns - shift) % wide
    bands = [(at >= size - window).long() + (at >= size - shift) for at, size in ((rows, high), (columns, wide))]
    bands = [band * (shift > 0) for band in bands]

    def same(*keys):
        return torch.stack([key[:, None] == key for key in keys]).all(0)

    q, k, v = (part(x).unflatten(-1, (heads, -1)).transpose(1, 2) for part in
               (block.attention.q_proj, block.attention.k_proj, block.attention.v_proj))  # fmt: skip
    together = same(rows // window, columns // window)
    side = 2 * window - 1
    offsets = (rows[:, None] - rows + window - 1) * side + columns[:, None] - columns + window - 1
    bias = block.attention.relative_position_bias.relative_position_bias_table[offsets.clamp(0, side**2 - 1)]
    scores = q @ k.mT / q.shape[-1] ** 0.5 + bias.movedim(-1, 0) - 100.0 * ~same(*bands)
    z = scores.masked_fill(~together, -torch.inf).softmax(-1) @ v
    out = block.attention.o_proj(z.transpose(1, 2).flatten(2))
    return out.unflatten(1, (high, wide))[:, :h, :w].flatten(1, 2)


def swin_by_hand(body, x):
    config, size = body.config, x.shape[2:]
    x = F.pad(x, (0, -size[1] % 4, 0, -size[0] % 4))
    x = convolved(x, body.embeddings.patch_embeddings.projection)
    grid = tuple(x.shape[2:])
    x = normed(x.flatten(2).mT, body.embeddings.norm)
    if config.use_absolute_embeddings:
        table = body.embeddings.position_embeddings.unflatten(1, (16, 16)).movedim(-1, 1)
        if size != (64, 64):
            table = F.interpolate(table, (size[0] // 4, size[1] // 4), mode="bicubic", align_corners=False)
        x = x + table.flatten(2).mT
    found = {"embed": x}
    for i, stage in enumerate(body.encoder.layers):
        for j, block in enumerate(stage.blocks):
            window = min(config.window_size, *grid)
            shift = config.window_size // 2 if j % 2 and min(grid) > config.window_size else 0
            before, ln1 = x, normed(x, block.layernorm_before)
            attn = attended(block, ln1, grid, shift, window)
            middle = x + attn
            ln2 = normed(middle, block.layernorm_after)
            hidden = block.mlp.fc1(ln2)
            mlp = block.mlp.fc2(F.gelu(hidden))
            x = middle + mlp
            sides = {"": (before, x), ".ln1": (before, ln1), ".ln2": (middle, ln2), ".mlp": (ln2, mlp)}
            sides |= {".mlp.in": (ln2, hidden), ".mlp.out": (F.gelu(hidden), mlp)}
            for part, (given, out) in sides.items():
                found |= {f"stages.{i}.blocks.{j}{part}@in": given, f"stages.{i}.blocks.{j}{part}": out}
            found[f"stages.{i}.blocks.{j}.attn"] = attn
        if i + 1 < len(body.encoder.layers):
            y = x.unflatten(1, grid)
            y = F.pad(y, (0, 0, 0, grid[1] % 2, 0, grid[0] % 2))
            y = torch.cat([y[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)
            grid = tuple(y.shape[1:3])
            x = found[f"stages.{i}.downsample"] = stage.downsample.reduction(
                normed(y.flatten(1, 2), stage.downsample.norm)
            )
    found["ln_final"] = normed(x, body.layernorm)
    return found, found["ln_final"], found["ln_final"].mean(1)


BY_HAND = {"resnet": resnet_by_hand, "regnet": resnet_by_hand, "swin": swin_by_hand}


# Hugging Face's Swin interpolates positions for whole patches only.
@pytest.mark.parametrize(
    ("name", "size"), [(n, size) for n in NAMES for size in SIZES if (n, size) != ("Swin, positions", (70, 101))]
)
def test_every_named_place_equals_the_formulas(models, name, size):
    model, inputs = models[name], images(2, 3, *size)
    kind = model.layout.body.config.model_type
    by_hand = BY_HAND.get(kind, convnext_by_hand)
    with torch.no_grad():
        expected, hidden, pooled = by_hand(model.layout.body, inputs.tensors["pixel_values"])
        output = model.forward(inputs)
        options = {"interpolate_pos_encoding": True} if kind == "swin" else {}
        plain = model.layout.body(**inputs.tensors, **options)
    assert expected.keys() == set(model.layout.parts)
    found = capture(model, inputs, list(expected))
    for name, value in expected.items():
        torch.testing.assert_close(found.values[Site.parse(name)], value, atol=1e-5, rtol=1e-5, msg=name)
        geometry, rows = found.geometries[Site.parse(name)], found.rows(name)
        assert geometry.input_size in ((), size)
        if value.ndim > 2:
            last = value.flatten(2).mT if geometry.channels == "first" else value.flatten(1, -2)
            torch.testing.assert_close(rows.values, last.flatten(0, 1), atol=1e-5, rtol=1e-5)
    for mine, theirs, by_hand in (
        (output.hidden, plain.last_hidden_state, hidden),
        (output.pooled, plain.pooler_output.flatten(1), pooled),
    ):
        torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(mine, by_hand, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.embedding(output, inputs), output.pooled)


def test_a_batch_equals_one_at_a_time(model):
    inputs, sites = images(3, 3, 64, 96), ["embed", "stages.0", "stages.1.blocks.0", "stages.1"]
    together = capture(model, inputs, sites)
    for i in range(3):
        alone = capture(model, Inputs({"pixel_values": inputs.tensors["pixel_values"][i : i + 1]}), sites)
        for site in together.values:
            torch.testing.assert_close(together.values[site][i : i + 1], alone.values[site], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "stages"), [("ResNet", 4), ("RegNet", 4), ("ConvNeXt", 4), ("Swin", 3)])
def test_stages_halve_the_grid_and_have_one_name_everywhere(models, name, stages):
    for i in range(stages):
        geometry = models[name].geometry(models[name].site(f"stages.{i}"), images(1, 3, 64, 128))
        assert (geometry.stride, geometry.grid) == ((4 << i, 4 << i), (16 >> i, 32 >> i))
        assert geometry.patch == geometry.stride and geometry.input_size == (64, 128)
        assert geometry == models[name].geometry(models[name].site(f"stages.{i}.blocks.0"), images(1, 3, 64, 128))


def seen(model, site, size, pixel):
    """The positions of a site that a pixel reaches, by what a NaN there turns into NaN."""
    inputs = images(1, 3, *size)
    pixels = inputs.tensors["pixel_values"].double()
    pixels[0, :, *pixel] = torch.nan
    found = capture(model, Inputs({"pixel_values": pixels}), [site])
    geometry, rows = found.geometries[model.site(site)], found.rows(site)
    reached = rows.position[rows.values.isnan().any(1)]
    across = geometry.grid[1]
    return geometry, {(int(p) // across, int(p) % across) for p in reached}


@pytest.fixture(scope="module")
def exact(models):
    """In float64, where convolutions are plain sums: no pixel reaches a position that does not see it."""
    return {
        name: VisionModel(copy.deepcopy(m.module).double(), preprocessing=m.preprocessing) for name, m in models.items()
    }


@pytest.mark.parametrize("name", ["ConvNeXt", "ConvNeXt V2", "Swin", "Swin, positions"])
@pytest.mark.parametrize("pixel", [(0, 0), (13, 50), (63, 95)])
def test_a_pixel_shows_in_its_patch_and_nowhere_else(exact, name, pixel):
    sites = ["embed", "stages.0.blocks.0.ln1"] if "Swin" in name else ["embed"]
    for site in sites:
        geometry, reached = seen(exact[name], site, (64, 96), pixel)
        assert reached == {(pixel[0] // 4, pixel[1] // 4)}
        position = geometry.at(*pixel)
        assert position == pixel[0] // 4 * 24 + pixel[1] // 4
        assert all(begin <= along < end for along, (begin, end) in zip(pixel, geometry.span(position), strict=True))


@pytest.mark.parametrize("name", ["ResNet", "ResNet, bottleneck"])
@pytest.mark.parametrize(
    "site", ["embed", "stages.0.blocks.1.conv.0", "stages.0", "stages.1.blocks.0.conv.1", "stages.1"]
)
def test_what_sees_a_pixel_lies_around_its_position(exact, name, site):
    """The middle of a patch is the middle of what its position sees: the pixel there reaches as far up as down."""
    model, size = exact[name], (160, 192)
    geometry = model.geometry(model.site(site), images(1, 3, *size))
    cell = (geometry.grid[0] // 2, geometry.grid[1] // 2 - 1)
    position = cell[0] * geometry.grid[1] + cell[1]
    pixel = tuple(
        begin + stride // 2 for (begin, _), stride in zip(geometry.span(position), geometry.stride, strict=True)
    )
    assert geometry.at(*pixel) == position
    _, reached = seen(model, site, size, pixel)
    for axis in (0, 1):
        along = {c[axis] for c in reached}
        assert min(along) > 0 and max(along) < geometry.grid[axis] - 1, "the image is too small for this test"
        assert min(along) + max(along) == 2 * cell[axis]


def test_convnext_keeps_the_centre_within_half_a_position(exact):
    for site in ("stages.0.blocks.0", "stages.0", "stages.1"):
        geometry, reached = seen(exact["ConvNeXt"], site, (192, 192), (97, 102))
        cell = divmod(geometry.at(97, 102), geometry.grid[1])
        for axis in (0, 1):
            along = {c[axis] for c in reached}
            assert min(along) > 0 and abs((min(along) + max(along)) / 2 - cell[axis]) <= 0.5


def test_attention_reaches_the_window_of_a_pixel(exact):
    _, reached = seen(exact["Swin"], "stages.0.blocks.0", (64, 96), (13, 50))
    assert reached == {(row, column) for row in range(4) for column in range(12, 16)}
    geometry, reached = seen(exact["Swin"], "stages.0.downsample", (64, 96), (13, 50))
    assert divmod(geometry.at(13, 50), geometry.grid[1]) in reached and len(reached) < 96 / 2


def test_what_stands_in_windows_is_refused(models):
    model = models["Swin"]
    with pytest.raises(ValueError, match=r"attention.q_proj, whose rows stand in shifted windows.*blocks.j.attn"):
        capture(model, images(1, 3, 64, 64), ["encoder.layers.0.blocks.1.attention.q_proj"])
    with pytest.raises(ValueError, match=r"'stages.0.blocks.1.attn.q', but .* nearest are .*stages.0.blocks.1.attn"):
        model.site("stages.0.blocks.1.attn.q")


def test_small_images_leave_the_windows_of_swin_alone(models):
    """Hugging Face's blocks stop shifting for good once a window has filled their map."""
    model, large = models["Swin, positions"], images(1, 3, 64, 64)
    with torch.no_grad():
        before = model.forward(large).hidden
        model.forward(images(1, 3, 32, 32))
        assert torch.equal(model.forward(large).hidden, before)
        plain = cases.built_map("Swin, positions").swin
        plain(**images(1, 3, 32, 32).tensors, interpolate_pos_encoding=True)
        assert not torch.allclose(plain(**large.tensors).last_hidden_state, before, atol=1e-3)


def test_edits_reach_the_model(models):
    inputs = images(1, 3, 64, 64)
    with torch.no_grad():
        for name in ("ResNet", "ConvNeXt", "Swin"):
            model = models[name]
            plain = model.forward(inputs).hidden
            for site in (part for part in model.layout.parts if "stages.0.blocks.0" in part):
                with edited(model, {site: lambda values: values.clone()}):
                    assert torch.equal(model.forward(inputs).hidden, plain)
                with edited(model, {site: lambda values: values * 1.5}):
                    assert not torch.equal(model.forward(inputs).hidden, plain), (name, site)
    swin = models["Swin"]
    with edited(swin, {"stages.0.blocks.1.attn": torch.zeros_like}):
        found = capture(swin, inputs, ["stages.0.blocks.1@in", "stages.0.blocks.1.hook_resid_mid"])
    assert torch.equal(*found.values.values())


def test_own_paths_and_other_names(models):
    names = {
        "ResNet": {"encoder.stages.1.layers.0": "stages.1.blocks.0", "stages.2": "stages.2.blocks.1"},
        "ResNet, bottleneck": {"resnet.encoder.stages.1.layers.0.layer.2": "stages.1.blocks.0.conv.2"},
        "ConvNeXt": {"encoder.stages.0.layers.1.pwconv1": "stages.0.blocks.1.mlp.in"},
        "Swin": {
            "encoder.layers.1.blocks.0": "stages.1.blocks.0",
            "stages.0.blocks.1.mlp.hook_post": "stages.0.blocks.1.mlp.out@in",
            "encoder.layers.0.downsample": "stages.0.downsample",
        },
    }
    for model, known in names.items():
        assert {name: str(models[model].site(name)) for name in known} == known


def test_a_wrong_layout_is_refused(models):
    model = models["ConvNeXt"]
    layout = replace(model.layout, geometry=lambda site, size: Geometry("grid", (5, 5)))
    wrong = VisionModel(model.module, layout=layout, preprocessing=model.preprocessing)
    with pytest.raises(ValueError, match=r"stages.1.blocks.0 declares grid \(5, 5\).*shape \(1, 12, 8, 8\)"):
        capture(wrong, images(1, 3, 64, 64), ["stages.1"])
    with pytest.raises(ValueError, match=r"convolution holds a tensor.* or a map without a grid"):
        path = "encoder.stages.0.layers.0.layer.0.convolution"
        capture(models["ResNet"], images(1, 3, 64, 64), [path]).rows(path)


def test_pictures_of_any_shape_are_made_ready(models):
    pictures = [torch.randint(0, 256, (h, w, 3), dtype=torch.uint8) for h, w in ((40, 70), (64, 64))]
    model = models["Swin"]
    assert model.collate(pictures).tensors["pixel_values"].shape == (2, 3, 64, 64)
    assert model.geometry(model.site("stages.0")).grid == (16, 16)
    wide = VisionModel(model.module, preprocessing=Preprocessing(size=(32, 96), resize=(32, 96)))
    assert capture(wide, wide.collate(pictures), ["stages.1"]).rows("stages.1").values.shape == (2 * 4 * 12, 16)
    assert wide.geometry(wide.site("stages.1")).grid == (4, 12)


def test_a_harvest_of_pictures(models):
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randint(0, 256, (40, 70, 3), dtype=torch.uint8, generator=generator) for _ in range(3)]
    for name in ("Swin", "ConvNeXt"):
        (store,) = harvest(models[name], pictures, "stages.1", batch_tokens=130, dtype="float32").values()
        assert store.geometry == models[name].geometry(models[name].site("stages.1"))
        for i, picture in enumerate(pictures):
            rows = capture(models[name], models[name].collate([picture]), ["stages.1"]).rows("stages.1")
            torch.testing.assert_close(store.example(i).values, rows.values, atol=1e-5, rtol=1e-5)
            assert store.example(i).position.tolist() == list(range(64))


@pytest.mark.parametrize("name", ["ResNet, bottleneck", "ConvNeXt V2", "Swin"])
def test_folders_hold_them(name, tmp_path, models):
    cases.built_map(name).save_pretrained(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.fingerprint == models[name].fingerprint and loaded.name == "m"
    inputs = images(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.forward(inputs).pooled, models[name].forward(inputs).pooled)
