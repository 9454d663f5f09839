"""Models of time series as bare modules: what is declared so that their rows know their time."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from interp.capturing import capture, edited
from interp.harvesting import harvest
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site

RATE = 50.0


class TCN(nn.Module):
    """Causal convolutions over `[b, t, c]`, inside as `[b, d, t]`; the second keeps every other step."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv1d(3, 6, 5), nn.Conv1d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.one(F.pad(x.mT, (4, 0))))
        x = torch.relu(self.two(F.pad(x, (2, 0))))
        return self.head(x.mT)


class Patches(nn.Module):
    """As PatchTST: overlapping patches of 16 steps, 8 apart, as tokens of a transformer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16 * 3, 12)
        layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.encoder(self.embed(x.unfold(1, 16, 8).flatten(2)))


# What a position of each place covers of the series: the convolutions see 4 and 6 steps of the past.
ONE = Geometry("sequence", stride=(1,), patch=(5,), start=(-4,), rate=RATE, channels="first")
TWO = Geometry("sequence", stride=(2,), patch=(7,), start=(-6,), rate=RATE, channels="first")
PATCHES = Geometry("sequence", stride=(8,), patch=(16,), rate=RATE)


@pytest.fixture(scope="module")
def tcn():
    torch.manual_seed(0)
    head = Geometry("sequence", stride=(2,), patch=(7,), start=(-6,), rate=RATE)
    return TorchModel(TCN().eval(), geometry={"one": ONE, "two": TWO, "head": head})


@pytest.fixture(scope="module")
def patched():
    torch.manual_seed(0)
    return TorchModel(Patches().eval(), geometry=PATCHES)


def series(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, 3, generator=generator) for length in lengths]


def stacked(items):
    """A batch of series of one length."""
    return Inputs({"x": torch.stack(list(items))})


def padded(items):
    """A batch of series of several lengths, at half their rate: causal convolutions never see what comes after."""
    lengths = torch.tensor([(len(item) + 1) // 2 for item in items])
    values = nn.utils.rnn.pad_sequence(list(items), batch_first=True)
    return Inputs({"x": values}, torch.arange((values.shape[1] + 1) // 2) < lengths[:, None])


def test_channels_before_time_are_rows_of_time(tcn):
    inputs = stacked(series(21, 21))
    found = capture(tcn, inputs, ["one", "two", "head"])
    with torch.no_grad():
        x = inputs.tensors["x"].mT
        one = F.conv1d(F.pad(x, (4, 0)), tcn.module.one.weight, tcn.module.one.bias)
        two = F.conv1d(F.pad(one.relu(), (2, 0)), tcn.module.two.weight, tcn.module.two.bias, stride=2)
    for site, value in (("one", one), ("two", two), ("head", tcn.module.head(two.relu().mT).mT)):
        rows = found.rows(site)
        torch.testing.assert_close(rows.values, value.mT.flatten(0, 1), atol=1e-5, rtol=1e-5)
        assert rows.position.tolist() == list(range(value.shape[2])) * 2
    bare = capture(TorchModel(tcn.module), inputs, ["one"]).rows("one")
    assert bare.values.shape == (2 * 6, 21), "undeclared, three axes are positions and then channels"


@pytest.mark.parametrize("step", [0, 9, 40])
@pytest.mark.parametrize("site", ["one", "two", "head"])
def test_a_step_shows_where_it_is_covered(tcn, site, step):
    (quiet,) = series(41)
    loud = quiet.clone()
    loud[step] += 3
    model = copy.deepcopy(tcn)
    with torch.no_grad():
        model.module.one.bias.fill_(20.0)  # so that no ReLU hides it
    rows = capture(model, stacked([quiet, loud]), [site]).rows(site)
    before, after = rows.values.chunk(2)
    geometry = tcn.geometry(Site(site))
    covered = [p for p in range(len(before)) if geometry.span(p)[0][0] <= step < geometry.span(p)[0][1]]
    assert (before != after).any(1).nonzero().flatten().tolist() == covered
    assert geometry.seconds(covered[0])[1] * RATE == geometry.span(covered[0])[0][1] > step


def test_a_patch_shows_where_it_is(patched):
    (quiet,) = series(64)
    loud = quiet.clone()
    loud[20] += 3
    before, after = capture(patched, stacked([quiet, loud]), ["embed"]).rows("embed").values.chunk(2)
    assert (before != after).any(1).nonzero().flatten().tolist() == [1, 2]
    assert PATCHES.span(2) == ((16, 32),) and PATCHES.seconds(2) == (0.32, 0.64) and PATCHES.at(20) == 2
    assert len(before) == 7


def test_a_transformer_of_patches_equals_its_layers(patched):
    inputs = stacked(series(64, 64))
    found = capture(patched, inputs, ["embed", "encoder.layers.0", "encoder.layers.1"])
    with torch.no_grad():
        windows = torch.stack([inputs.tensors["x"][:, i : i + 16].mT.flatten(1) for i in range(0, 49, 8)], 1)
        hidden = windows @ patched.module.embed.weight.T + patched.module.embed.bias
        for site, layer in (
            ("embed", nn.Identity()),
            *((f"encoder.layers.{i}", patched.module.encoder.layers[i]) for i in (0, 1)),
        ):
            hidden = layer(hidden)
            torch.testing.assert_close(found.values[Site(site)], hidden, atol=1e-5, rtol=1e-5)


def test_a_harvest_keeps_the_time_of_its_rows(patched):
    items = [{"series": values, "name": f"sensor {i}"} for i, values in enumerate(series(64, 64, 64))]

    def batch(chosen):
        return stacked([item["series"] for item in chosen])

    stores = harvest(patched, items, ["embed", "encoder.layers.1"], collate=batch, labels=["name"], batch_tokens=2)
    store = stores[Site("encoder.layers.1")]
    assert store.geometry == PATCHES and store.geometry.seconds(int(store.example(1).position[3])) == (0.48, 0.8)
    for i, item in enumerate(items):
        rows = capture(patched, batch([item]), ["encoder.layers.1"]).rows("encoder.layers.1")
        torch.testing.assert_close(store.example(i).values, rows.values, atol=0.02, rtol=0.02)  # kept in bfloat16
        assert store.items[i].labels["name"] == f"sensor {i}"


def test_a_harvest_on_disk_keeps_the_rate(tcn, tmp_path):
    items = series(21, 33, 12)
    stores = harvest(tcn, items, "two", tmp_path / "h", collate=padded, dtype="float32", batch_tokens=2)
    store = stores[Site("two")]
    assert store.geometry == TWO
    assert [len(store.example(i)) for i in range(3)] == [11, 17, 6]
    for i, item in enumerate(items):
        rows = capture(tcn, stacked([item]), ["two"]).rows("two")
        torch.testing.assert_close(store.example(i).values, rows.values, atol=1e-5, rtol=1e-5)


def test_states_by_channel_and_patch():
    """PatchTST's own hidden states, `[b, channels, patches, d]`, are a grid of channels by patches."""
    from transformers import PatchTSTConfig, PatchTSTModel

    torch.manual_seed(0)
    config = PatchTSTConfig(
        num_input_channels=3, context_length=32, patch_length=8, patch_stride=8, d_model=8, num_hidden_layers=1,
        num_attention_heads=2, ffn_dim=8, do_mask_input=False,
    )  # fmt: skip
    plain = PatchTSTModel(config).eval()
    grid = Geometry("grid", (3, 4), stride=(1, 8), patch=(1, 8), input_size=(3, 32), channels="last")
    model = TorchModel(plain, geometry={"encoder.layers.0": grid})
    inputs = Inputs({"past_values": torch.stack(series(32, 32))})
    rows = capture(model, inputs, ["encoder.layers.0"]).rows("encoder.layers.0")
    with torch.no_grad():
        states = plain(**inputs.tensors).last_hidden_state
    torch.testing.assert_close(rows.values, states.flatten(0, 2), atol=1e-5, rtol=1e-5)
    assert grid.span(6) == ((1, 2), (16, 24)) and grid.at(1, 17) == 6


def test_states_of_a_recurrent_model_are_edited():
    torch.manual_seed(0)
    model = TorchModel(nn.ModuleDict({"rnn": nn.GRU(3, 5, batch_first=True), "head": nn.Linear(5, 2)}),
                       forward=lambda net, inputs: net["head"](net["rnn"](inputs.tensors["x"])[0]))  # fmt: skip
    inputs = stacked(series(9, 9))
    with torch.no_grad(), edited(model, {"rnn": torch.zeros_like}):
        out = model.forward(inputs)
    assert torch.equal(out, model.module["head"].bias.expand_as(out))
    rows = capture(model, inputs, ["rnn"], score=lambda output: output[:, -1, 0]).rows("rnn")
    last = rows.position == 8
    assert not rows.grads[~last].any()
    torch.testing.assert_close(rows.grads[last], model.module["head"].weight[0].detach().expand(2, -1))
