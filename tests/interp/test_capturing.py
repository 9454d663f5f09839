import pytest
import torch
from torch import nn

from interp.capturing import capture, edited
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site


class Net(nn.Module):
    """Three places in a row, one written to in place, one shared, one that never runs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Linear(6, 6)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.last_runs = 0

    def forward(self, x):
        x = self.relu(self.first(x))
        x = self.dropout(self.second(self.second(x)))
        self.last_runs += 1
        return self.last(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TorchModel(Net())


@pytest.fixture
def inputs():
    return Inputs({"x": torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))})


def by_hand(net, x):
    first = net.first(x)
    return first, net.last(net.second(net.second(first.relu())))


def state_of(model):
    flags = [(p.requires_grad, p.grad is None) for p in model.module.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()]
    return flags, hooks, [m.training for m in model.module.modules()]


def test_values_equal_the_modules_own(model, inputs):
    found = capture(model, inputs, ["first", "last@in", "last"])
    x = inputs.tensors["x"]
    net = model.module.eval()
    first, output = by_hand(net, x)
    assert torch.equal(found.values[Site("first")], first)  # as it was before relu wrote to it
    assert torch.allclose(found.values[Site("last")], output, atol=1e-6)
    assert torch.allclose(net.last(found.values[Site("last", "in")]), output, atol=1e-6)
    assert found.output is None
    assert not found.grads


def test_one_site_needs_no_list(model, inputs):
    listed = capture(model, inputs, ["first"]).values[Site("first")]
    for name in ("first", Site("first")):
        assert torch.equal(capture(model, inputs, name).values[Site("first")], listed)


def test_many_sites_equal_one_by_one(model, inputs):
    names = ["first", "relu@in", "relu", "second", "last@in", "last"]
    together = capture(model, inputs, names).values
    assert list(together) == [Site.parse(name) for name in names]
    for name in names:
        alone = capture(model, inputs, [name]).values
        assert torch.equal(alone[Site.parse(name)], together[Site.parse(name)])


def test_stops_after_the_last_site_and_only_without_a_score(model, inputs):
    capture(model, inputs, ["second", "first"])
    assert model.module.last_runs == 0
    capture(model, inputs, ["first"], score=lambda output: output)
    assert model.module.last_runs == 1


def test_a_model_that_swallows_exceptions_is_stopped_too(inputs):
    class Swallows(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.later = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            try:
                x = self.part(x)
            except Exception:
                x = x * 0
            return self.later(x)

    assert capture(TorchModel(Swallows()), inputs, ["part"]).output is None


def test_the_first_run_of_a_module_counts(model, inputs):
    found = capture(model, inputs, ["second", "last"]).values[Site("second")]
    net = model.module
    assert torch.allclose(found, net.second(net.first(inputs.tensors["x"]).relu()), atol=1e-6)


def test_gradients_equal_autograd_by_hand(model, inputs):
    before = state_of(model)
    found = capture(model, inputs, ["first", "last", "last@in"], score=lambda output: output.pow(2))
    assert state_of(model) == before
    net = model.module
    first = net.first(inputs.tensors["x"]).detach().requires_grad_()
    inner = net.second(net.second(first.relu())).detach().requires_grad_()
    output = net.last(inner).detach().requires_grad_()
    (wanted_output,) = torch.autograd.grad(output.pow(2).sum(), output)
    (wanted_inner,) = torch.autograd.grad(net.last(inner).pow(2).sum(), inner)
    (wanted_first,) = torch.autograd.grad(net.last(net.second(net.second(first.relu()))).pow(2).sum(), first)
    assert torch.allclose(found.grads[Site("first")], wanted_first, atol=1e-5)
    assert torch.allclose(found.grads[Site("last", "in")], wanted_inner, atol=1e-5)
    assert torch.allclose(found.grads[Site("last")], wanted_output, atol=1e-5)
    assert torch.equal(found.values[Site("first")], first)
    assert not found.output.requires_grad
    assert not found.values[Site("first")].requires_grad


def test_gradients_do_not_depend_on_the_other_sites_or_the_callers_mode(model, inputs):
    def score(output):
        return output.sin()

    alone = capture(model, inputs, ["relu"], score=score).grads[Site("relu")]
    beside = capture(model, inputs, ["first", "relu", "relu@in", "second"], score=score).grads
    assert torch.allclose(alone, beside[Site("relu")], atol=1e-6)
    assert torch.equal(beside[Site("first")], beside[Site("relu", "in")])
    with torch.no_grad():
        assert torch.equal(capture(model, inputs, ["relu"], score=score).grads[Site("relu")], alone)
    with torch.inference_mode():
        assert torch.equal(capture(model, inputs, ["relu"], score=score).grads[Site("relu")], alone)


def test_a_site_the_score_does_not_see_has_gradient_zero(inputs):
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.unseen = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.seen(x), self.unseen(x)

    found = capture(TorchModel(Fork()), inputs, ["seen", "unseen"], score=lambda output: output[0])
    assert torch.equal(found.grads[Site("seen")], torch.ones(2, 5, 2))
    assert torch.equal(found.grads[Site("unseen")], torch.zeros(2, 5, 2))


def test_the_model_is_left_as_it_was_when_anything_raises(model, inputs):
    model.module.train()
    model.module.relu.eval()
    model.module.second.bias.requires_grad_(False)
    before = state_of(model)

    def raises(_output):
        raise KeyError("score")

    with pytest.raises(KeyError):
        capture(model, inputs, ["first"], score=raises)
    with pytest.raises(RuntimeError):
        capture(model, Inputs({"x": torch.zeros(2, 3)}), ["last"], score=lambda output: output)
    with pytest.raises(ValueError, match="never reached"):
        capture(model, inputs, ["unused"])
    assert state_of(model) == before
    capture(model, inputs, ["first"], score=lambda output: output)
    assert state_of(model) == before


def test_eval_mode_while_capturing(model, inputs):
    model.module.train()
    first, second = (capture(model, inputs, ["last"]).values[Site("last")] for _ in range(2))
    assert torch.equal(first, second)  # dropout is off
    assert model.module.training


def test_errors_name_the_site(model, inputs):
    with pytest.raises(ValueError, match=r"^unused was never reached"):
        capture(model, inputs, ["first", "unused"])
    with pytest.raises(ValueError, match="sites is empty"):
        capture(model, inputs, [])
    with pytest.raises(ValueError, match="does not depend on first"):
        capture(model, inputs, ["first"], score=lambda output: output.detach())
    with pytest.raises(ValueError, match=r"torch.int64, which has no gradient"):
        embedding = TorchModel(nn.Sequential(nn.Embedding(5, 4)), forward=lambda m, i: m(i.tensors["x"]))
        capture(embedding, Inputs({"x": torch.arange(4)[None]}), ["0@in"], score=lambda output: output)
    with pytest.raises(ValueError, match="element 1 of its module's output is no tensor"):
        capture(model, inputs, ["first@out[1]"])


def test_elements_of_tuples_are_read_and_edited():
    torch.manual_seed(0)
    model = TorchModel(nn.Sequential(nn.LSTM(4, 3, batch_first=True)))
    inputs = Inputs({"input": torch.randn(2, 5, 4)})
    output, (hidden, _) = model.module[0](inputs.tensors["input"])
    found = capture(model, inputs, ["0"]).values[Site("0")]
    assert torch.allclose(found, output, atol=1e-6)
    with edited(model, {"0": torch.neg}):
        new, (same, _) = model.forward(inputs)
    assert torch.allclose(new, -output, atol=1e-6)
    assert torch.allclose(same, hidden, atol=1e-6)


def test_edits_replace_what_flows_on_and_end_with_the_block(model, inputs):
    net, x = model.module.eval(), inputs.tensors["x"]
    plain = model.forward(inputs)
    with edited(model, {"last@in": lambda value: value * 2, Site("last"): lambda value: value + 1}):
        assert torch.allclose(model.forward(inputs), (plain - net.last.bias) * 2 + net.last.bias + 1, atol=1e-5)
    assert torch.equal(model.forward(inputs), plain)
    with edited(model, {"first": torch.zeros_like}):
        assert capture(model, inputs, ["first"]).values[Site("first")].abs().max() == 0
    before = state_of(model)
    with pytest.raises(ValueError, match=r"the edit of first gave \(2, 5\), but the model needs \(2, 5, 6\)"):  # noqa: SIM117
        with edited(model, {"first": lambda value: value[..., 0]}):
            model.forward(inputs)
    assert state_of(model) == before
    assert torch.equal(net(x), plain)


def test_an_edit_carries_gradients(model, inputs):
    scale = torch.ones((), requires_grad=True)
    model.module.eval()
    with edited(model, {"last": lambda value: value * scale}):
        model.forward(inputs).sum().backward()
    assert torch.allclose(scale.grad, model.forward(inputs).sum(), atol=1e-4)


def test_rows_leave_padding_out_and_keep_addresses(model):
    mask = torch.tensor([[True, True, False], [True, True, True]])
    inputs = Inputs({"x": torch.randn(2, 3, 4)}, mask)
    found = capture(model, inputs, ["first"], score=lambda output: output)
    rows = found.rows("first", examples=[7, 3])
    assert torch.equal(rows.values, found.values[Site("first")][mask])
    assert torch.equal(rows.grads, found.grads[Site("first")][mask])
    assert rows.example.tolist() == [7, 7, 3, 3, 3]
    assert rows.position.tolist() == [0, 1, 0, 1, 2]
    with pytest.raises(ValueError, match="examples has 1 entries"):
        found.rows("first", examples=[7])
    with pytest.raises(ValueError, match="this capture holds first"):
        found.rows("last")


def test_rows_of_maps_go_along_the_grid_and_of_vectors_have_one_position():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = Inputs({"x": torch.randn(2, 3, 4, 6)})
    model = TorchModel(net, geometry={"0": Geometry("grid", grid=(4, 6))})
    found = capture(model, inputs, ["0", "2"])
    maps, rows = found.values[Site("0")], found.rows("0")
    assert maps.shape == (2, 5, 4, 6)
    for n in (0, 9, 23, 24, 40):
        example, position = int(rows.example[n]), int(rows.position[n])
        assert torch.equal(rows.values[n], maps[example, :, position // 6, position % 6])
    assert torch.equal(found.rows("2").values, found.values[Site("2")])
    assert found.rows("2").position.tolist() == [0, 0]
    bare = capture(TorchModel(net), inputs, ["0"])
    with pytest.raises(ValueError, match="declare geometry"):
        bare.rows("0")


def test_a_score_may_read_sites_that_are_not_differentiated(model, inputs):
    """What it reads is in the graph: a score of a later place has a gradient at an earlier one."""
    found = capture(
        model, inputs, "first", score=lambda output, values: values[Site("second")].square().sum(), reads=["second"]
    )
    assert set(found.values) == set(found.grads) == {Site("first")}
    first = found.values[Site("first")].requires_grad_()
    scores = model.module.second(first.relu()).square().sum()
    assert torch.allclose(found.grads[Site("first")], torch.autograd.grad(scores, first)[0])
    assert torch.allclose(found.scores, scores)


def test_a_score_alone_needs_no_site_and_takes_no_gradient(model, inputs):
    asked = [parameter.requires_grad for parameter in model.module.parameters()]
    found = capture(model, inputs, [], score=lambda output: output.sum((1, 2)), grads=False)
    assert torch.allclose(found.scores, model.module.eval()(inputs.tensors["x"]).sum((1, 2)))
    assert not found.values and not found.grads and not found.scores.requires_grad
    assert asked == [parameter.requires_grad for parameter in model.module.parameters()]
    read = capture(model, inputs, "first", score=lambda output: output.sum(), grads=False)
    assert read.output is not None and Site("first") in read.values
    with pytest.raises(ValueError, match="sites is empty"):
        capture(model, inputs, [], score=lambda output: output.sum())
