import re

import pytest
import torch
from torch import nn

from interp.capturing import capture, edited
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Place, Site


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.ModuleDict({"stem": nn.Conv2d(3, 4, 2, stride=2), "head": nn.Linear(4, 2)})


def run(net, inputs):
    return net["head"](net["stem"](inputs.tensors["x"]).mean(dim=(2, 3)))


def test_sites_are_paths_and_unknown_ones_name_the_nearest():
    model = TorchModel(nn.TransformerEncoderLayer(8, 2, 16))
    assert model.site("self_attn.out_proj") == Site("self_attn.out_proj")
    assert set(model.sites()) == {name for name, _ in model.module.named_modules() if name} | {"input"}
    with pytest.raises(ValueError, match=r"'linear3'.*nearest are linear[12], linear[12]"):
        model.site("linear3")


def test_the_input_is_a_place_like_others():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()).double()
    model, x = TorchModel(net), torch.randn(2, 3, 6, 7, dtype=torch.float64)
    found = capture(model, Inputs({"x": x}), "input", score=lambda output: output.square().sum((1, 2, 3)))
    leaf = x.clone().requires_grad_()
    (grads,) = torch.autograd.grad(net(leaf).square().sum(), leaf)
    (site,) = found.values
    assert torch.equal(found.values[site], x)
    assert torch.allclose(found.grads[site], grads)
    assert found.geometries[site].grid == (6, 7)
    assert found.vectors("input").shape == (2, 42, 3)
    with edited(model, {"input": torch.zeros_like}):
        assert torch.equal(model.forward(Inputs({"x": x})), net(torch.zeros_like(x)))
    own = nn.Sequential()
    own.add_module("input", nn.Linear(3, 3))
    assert TorchModel(own).place(Site("input")).module is own.input  # a module of that name comes first


def test_what_a_named_part_has_not_is_named_whole(net):
    model = TorchModel(net, parts={"part": Place(next(iter(net.children())))})
    for name in ("part@in", "part@out[1]"):
        with pytest.raises(ValueError, match=rf"site is '{re.escape(name)}', but .* has no such place"):
            model.site(name)


def test_shared_modules_have_each_of_their_names():
    part = nn.Linear(2, 2)
    model = TorchModel(nn.Sequential(part, part))
    assert model.place(model.site("1")).module is part


def test_inputs_go_by_name_or_as_the_single_x():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Identity()

        def forward(self, a, b):
            return self.part(a - b)

    one, two = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    assert TorchModel(Named()).forward(Inputs({"b": two, "a": one})).item() == -1
    assert TorchModel(nn.Identity()).forward(Inputs({"x": two})).item() == 2
    squared = TorchModel(nn.Identity(), forward=lambda module, inputs: module(inputs.tensors["x"] ** 2))
    assert squared.forward(Inputs({"x": two})).item() == 4


def test_hidden_states_equal_the_plain_modules():
    torch.manual_seed(0)
    layers = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3, enable_nested_tensor=False
    )
    x = torch.randn(2, 5, 8)
    model = TorchModel(layers, forward=lambda module, inputs: module(inputs.tensors["x"]))
    found = capture(model, Inputs({"x": x}), [f"layers.{i}" for i in range(3)]).values
    hidden = x
    for i, layer in enumerate(layers.eval().layers):
        hidden = layer(hidden)
        assert torch.allclose(found[Site(f"layers.{i}")], hidden, atol=1e-5)


def test_declared_geometry_is_checked(net):
    inputs = Inputs({"x": torch.randn(2, 3, 8, 6)})
    right = TorchModel(net, forward=run, geometry=Geometry("grid", grid=(4, 3), stride=(2, 2)))
    assert capture(right, inputs, ["stem", "head"]).rows("stem").values.shape == (24, 4)
    assert right.geometry(Site("stem")).grid == (4, 3)
    wrong = TorchModel(net, forward=run, geometry={"stem": Geometry("grid", grid=(3, 4))})
    with pytest.raises(ValueError, match=r"stem declares grid \(3, 4\).*shape \(2, 4, 4, 3\)"):
        capture(wrong, inputs, ["stem"])
    with pytest.raises(ValueError, match="'steam'"):
        TorchModel(net, geometry={"steam": Geometry()})


def test_prefix_tokens_count():
    geometry = Geometry("grid", grid=(2, 2), prefix=1)
    model = TorchModel(nn.Sequential(nn.Linear(3, 3)), geometry=geometry)
    capture(model, Inputs({"x": torch.zeros(1, 5, 3)}), ["0"])
    with pytest.raises(ValueError, match=r"1 prefix tokens \(5 positions\)"):
        capture(model, Inputs({"x": torch.zeros(1, 4, 3)}), ["0"])


def test_fingerprint_follows_the_weights():
    torch.manual_seed(0)
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    assert TorchModel(one).fingerprint != TorchModel(two).fingerprint
    two.load_state_dict(one.state_dict())
    model = TorchModel(two)
    assert TorchModel(one).fingerprint == model.fingerprint
    with torch.no_grad():
        two.weight[0, 0] += 1
    changed = model.fingerprint
    assert changed != TorchModel(one).fingerprint
    assert TorchModel(two.to(torch.bfloat16)).fingerprint != changed
    assert len(TorchModel(nn.BatchNorm1d(3)).fingerprint) == 64  # holds a scalar


def test_outputs_may_be_dicts_of_any_keys():
    class Keyed(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Identity()

        def forward(self, x):
            return {0: self.part(x), "rest": [x]}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Keyed()

        def forward(self, x):
            return self.inner(x)

    model, x = TorchModel(Outer()), torch.randn(2, 3)
    found = capture(model, Inputs({"x": x}), ["inner.part"], score=lambda output: output[0].square().sum())
    assert torch.equal(found.grads[Site("inner.part")], 2 * x) and torch.equal(found.output[0], x)
    with edited(model, {"inner": torch.zeros_like}):
        assert model.forward(Inputs({"x": x}))[0].abs().max() == 0
