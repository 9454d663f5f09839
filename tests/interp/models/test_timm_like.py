"""Modules built like timm's and torchvision's, which need neither library."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interp.capturing import capture, edited
from interp.measuring import measure
from interp.models.timm_like import TimmLikeViT
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site

D, HEADS = 16, 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, D // HEADS)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(D), Attention(), nn.LayerNorm(D)
        self.mlp = nn.Sequential()
        for name, part in (("fc1", nn.Linear(D, 32)), ("act", nn.GELU()), ("fc2", nn.Linear(32, D))):
            self.mlp.add_module(name, part)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, img_size):
        super().__init__()
        self.img_size, self.proj = img_size, nn.Conv2d(3, D, 4, 4)

    def forward(self, x):
        return self.proj(x).flatten(2).mT


class ViT(nn.Module):
    """As `timm.models.vision_transformer.VisionTransformer` names its parts."""

    def __init__(self, registers=2, img_size=(16, 24)):
        super().__init__()
        self.patch_embed = PatchEmbed(img_size)
        self.cls_token, self.reg_token = nn.Parameter(torch.randn(1, 1, D)), nn.Parameter(torch.randn(1, registers, D))
        self.blocks = nn.Sequential(*(Block() for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, 5)

    def forward(self, x):
        x = self.patch_embed(x)
        tokens = torch.cat([self.cls_token, self.reg_token], 1).expand(len(x), -1, -1)
        return self.head(self.norm(self.blocks(torch.cat([tokens, x], 1)))[:, 0])


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    module = ViT().eval()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return TimmLikeViT(module)


def images(*shape):
    return Inputs({"x": torch.randn(*shape, generator=torch.Generator().manual_seed(0))})


def by_hand(block, x):
    ln1 = block.norm1(x)
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    q, k, v = (ln1 @ w.T + b for w, b in zip(weight.split(D), bias.split(D), strict=True))
    heads = [t.split(D // HEADS, -1) for t in (q, k, v)]
    z = torch.cat([(a @ b.mT / (D // HEADS) ** 0.5).softmax(-1) @ c for a, b, c in zip(*heads, strict=True)], -1)
    attn = block.attn.proj(z)
    ln2 = block.norm2(x + attn)
    hidden = block.mlp.fc1(ln2)
    mlp = block.mlp.fc2(F.gelu(hidden))
    sides = {"": (x, x + attn + mlp), ".ln1": (x, ln1), ".attn": (ln1, attn), ".ln2": (x + attn, ln2)}
    sides |= {f".attn.{name}#4": (ln1, part) for name, part in (("q", q), ("k", k), ("v", v))}
    sides |= {".attn.o": (z, attn), ".mlp": (ln2, mlp), ".mlp.in": (ln2, hidden), ".mlp.out": (F.gelu(hidden), mlp)}
    given = {f"{part.removesuffix('#4')}@in{'#4' * (part == '.attn.o')}": side for part, (side, _) in sides.items()}
    return {part: out for part, (_, out) in sides.items()} | given


def test_every_part_of_a_fused_vit_equals_its_formula(vit):
    inputs = images(2, 3, 16, 24)
    with torch.no_grad():
        module = vit.module
        tokens = torch.cat([module.cls_token, module.reg_token], 1).expand(2, -1, -1)
        x = torch.cat([tokens, module.patch_embed(inputs.tensors["x"])], 1)
        expected = {}
        for i, block in enumerate(module.blocks):
            parts = by_hand(block, x)
            expected |= {f"blocks.{i}{part}": value for part, value in parts.items()}
            x = parts[""]
        expected |= {"ln_final@in": x, "ln_final": module.norm(x)}
    assert expected.keys() == set(map(str, vit._parts))
    found = capture(vit, inputs, list(expected))
    for site, value in expected.items():
        torch.testing.assert_close(found.values[vit.site(site)], value, atol=1e-5, rtol=1e-5, msg=site)
        assert found.rows(site).values.shape[0] == 2 * (3 + 4 * 6)


def test_parts_of_one_layer_are_edited_each_alone(vit):
    inputs, sites = images(1, 3, 16, 24), [f"blocks.0.attn.{part}" for part in "qkv"]
    before = capture(vit, inputs, sites).values
    for site in sites:
        with edited(vit, {site: lambda values: values + 1}):
            after = capture(vit, inputs, ["blocks.0.attn.qkv"]).values[Site("blocks.0.attn.qkv")].chunk(3, -1)
        for other, value in zip(sites, after, strict=True):
            torch.testing.assert_close(value, before[vit.site(other)] + float(other == site))
    with edited(vit, dict.fromkeys(sites, torch.zeros_like)):
        qkv = capture(vit, inputs, ["blocks.0.attn.qkv"]).values
    assert not qkv[Site("blocks.0.attn.qkv")].any()


def test_names_and_positions_of_a_fused_vit(vit):
    names = {
        "blocks.1.norm2": "blocks.1.ln2",
        "blocks.1.attn.proj@in": "blocks.1.attn.o@in#4",
        "blocks.1.attn.hook_z": "blocks.1.attn.o@in#4",
        "blocks.0.attn.hook_q": "blocks.0.attn.q#4",
        "blocks.0.mlp.fc1": "blocks.0.mlp.in",
        "norm": "ln_final",
    }
    assert {name: str(vit.site(name)) for name in names} == names
    geometry = vit.geometry(vit.site("blocks.0"))
    assert (geometry.grid, geometry.prefix, geometry.stride, geometry.input_size) == ((4, 6), 3, (4, 4), (16, 24))
    assert vit.geometry(vit.site("blocks.0"), images(1, 3, 20, 8)).grid == (5, 2)
    found = capture(vit, images(2, 3, 20, 8), ["blocks.0", "patch_embed", "patch_embed.proj", "head"])
    counts = {str(site): len(found.rows(site)) for site in found.values}
    assert counts == {"blocks.0": 2 * 13, "patch_embed": 2 * 10, "patch_embed.proj": 2 * 10, "head": 2}
    assert torch.equal(found.rows("patch_embed").values, found.rows("patch_embed.proj").values)


@pytest.mark.parametrize("pixel", [(0, 0), (9, 21), (15, 23)])
def test_a_pixel_shows_in_its_patch(vit, pixel):
    inputs = images(2, 3, 16, 24)
    inputs.tensors["x"][1] = inputs.tensors["x"][0]
    inputs.tensors["x"][1, :, *pixel] += 5
    values = capture(vit, inputs, ["blocks.0@in"]).values.popitem()[1]
    geometry = vit.geometry(vit.site("blocks.0@in"))
    assert (values[0] != values[1]).any(-1).nonzero().flatten().tolist() == [geometry.at(*pixel)]
    with pytest.raises(ValueError, match="position is 2, but positions 3 to 26"):
        geometry.span(2)


def test_modules_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="Sequential without patch_embed.proj, blocks, norm"):
        TimmLikeViT(nn.Sequential())
    split = ViT()
    split.blocks[1].attn.qkv = None
    with pytest.raises(ValueError, match="without blocks.1.attn.qkv, which"):
        TimmLikeViT(split)
    with pytest.raises(ValueError, match="input_size is None"):
        TimmLikeViT(ViT(img_size=None))
    assert TimmLikeViT(ViT(img_size=None), input_size=(8, 8)).geometry(Site("blocks.0")).grid == (2, 2)


class BasicBlock(nn.Module):
    """As `torchvision.models.resnet.BasicBlock`: one ReLU that runs twice, and a sum in place."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None if before == after else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """As `torchvision.models.ResNet` names its parts."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(8, 5)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer2(self.layer1(x))).flatten(1))


def test_a_resnet_by_its_paths_with_its_grid_measured():
    torch.manual_seed(0)
    net, inputs = ResNet().train(), images(2, 3, 32, 64)
    statistics = net.bn1.running_mean.clone()
    paths = ["conv1", "maxpool", "layer1", "layer2.0.conv1", "layer2.1", "layer2.1@in", "layer2.0.relu"]
    model = TorchModel(net, geometry=measure(TorchModel(net), inputs, paths))
    assert torch.equal(net.bn1.running_mean, statistics) and net.training
    strides = {path: model.geometry(model.site(path)).stride[0] for path in paths}
    assert strides == dict(zip(paths, (2, 4, 4, 8, 8, 8, 8), strict=True))
    assert model.geometry(Site("layer2.1")) == Geometry(
        "grid", (4, 8), stride=(8, 8), patch=(8, 8), input_size=(32, 64), channels="first"
    )
    found = capture(model, inputs, [*paths, "avgpool", "fc"])
    with torch.no_grad():
        net.eval()
        x = net.maxpool(F.relu(net.bn1(net.conv1(inputs.tensors["x"]))))
        one = net.layer1(x)
        two = net.layer2[0](one)
        expected = {"layer1": one, "layer2.1@in": two, "layer2.1": net.layer2[1](two)}
        expected["conv1"] = net.conv1(inputs.tensors["x"])
        # The block runs its ReLU twice: the first run counts, between the convolutions.
        expected["layer2.0.relu"] = F.relu(net.layer2[0].bn1(net.layer2[0].conv1(one)))
    for path, value in expected.items():
        torch.testing.assert_close(found.values[model.site(path)], value, atol=1e-5, rtol=1e-5)
        rows = found.rows(path)
        torch.testing.assert_close(rows.values, value.movedim(1, -1).flatten(0, 2), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"layer1 declares grid \(8, 16\).*shape \(2, 4, 16, 16\)"):
        capture(model, images(2, 3, 64, 64), ["layer1"])


def test_what_cannot_be_measured():
    net = nn.Sequential(nn.Conv2d(3, 4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = TorchModel(net)
    with pytest.raises(ValueError, match=r"2 holds a tensor of shape \(2, 4\), which is no map of inputs of size"):
        measure(model, images(2, 3, 17, 17), ["0", "2"])
    with pytest.raises(ValueError, match="inputs hold no tensor"):
        measure(model, Inputs({"x": torch.zeros(2, 17, 3)}), ["0"])
    odd = measure(model, images(2, 3, 17, 17), ["0"])["0"]
    assert (odd.grid, odd.stride) == ((5, 5), ())
    with pytest.raises(ValueError, match="declare its stride"):
        odd.span(0)


class LastChannels(nn.Module):
    """Maps as timm's Swin gives them, `[b, h, w, d]`, with as many channels as rows and columns."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 4)

    def forward(self, x):
        return {"map": self.mix(self.embed(x).movedim(1, -1)), "pooled": x.mean((2, 3))}


def test_channels_are_told_where_the_shape_does_not():
    torch.manual_seed(0)
    net, inputs = LastChannels(), images(2, 3, 8, 8)
    bare = TorchModel(net)
    geometry = measure(bare, inputs, ["embed"]) | measure(bare, inputs, ["mix"], channels="last")
    assert measure(bare, images(2, 3, 8, 12), ["mix"], channels="last")["mix"].grid == (4, 6)
    model = TorchModel(net, geometry=geometry)
    found = capture(model, inputs, ["embed", "mix"])
    rows = found.rows("embed").values @ net.mix.weight.T + net.mix.bias
    torch.testing.assert_close(found.rows("mix").values, rows, atol=1e-5, rtol=1e-5)
    unsaid = TorchModel(net, geometry=Geometry("grid", (4, 4)))
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 4\), whose channels may stand before its grid or after it"):
        capture(unsaid, inputs, ["mix"]).rows("mix")
    wrong = TorchModel(net, geometry=Geometry("grid", (3, 8), channels="last"))
    with pytest.raises(ValueError, match=r"declares grid \(3, 8\)"):
        capture(wrong, inputs, ["mix"])


def test_elements_of_tuples_and_dicts():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.maps = nn.GRU(3, 5, batch_first=True), LastChannels()

        def forward(self, series, images):
            return self.rnn(series), self.maps(images)

    torch.manual_seed(0)
    net = Outer()
    generator = torch.Generator().manual_seed(1)
    inputs = Inputs({name: torch.randn(*shape, generator=generator) for name, shape in
                     (("images", (2, 3, 8, 8)), ("series", (2, 7, 3)))})  # fmt: skip
    found = capture(TorchModel(net), inputs, ["rnn", "rnn@out[1]", "rnn@in", "maps@out[1]"])
    with torch.no_grad():
        states, last = net.rnn(inputs.tensors["series"])
    torch.testing.assert_close(found.values[Site("rnn")], states)
    torch.testing.assert_close(found.values[Site("rnn", index=1)], last)
    assert torch.equal(found.values[Site("rnn", "in")], inputs.tensors["series"])
    torch.testing.assert_close(found.rows("maps@out[1]").values, inputs.tensors["images"].mean((2, 3)))
    with pytest.raises(ValueError, match="element 2 of its module's output is no tensor"):
        capture(TorchModel(net), inputs, ["rnn@out[2]"])
