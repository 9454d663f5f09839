import pytest
import torch
from torch import nn
from torch.nn import functional

from interp.capturing import capture, edited
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Place, Site


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


class Attending(nn.Module):
    """Hands out its pattern once it has used it, as models of Hugging Face do."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4, bias=False) for _ in range(3))

    def forward(self, x):
        pattern = (self.q(x) @ self.k(x).mT).softmax(-1)
        return pattern @ self.v(x), pattern


class TwoAttentions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = Attending(), Attending(), nn.Linear(4, 3)

    def forward(self, x):
        x = x + self.first(x)[0]
        return self.head((x + self.second(x)[0]).tanh().mean(1))


def attends():
    torch.manual_seed(0)
    net = TwoAttentions().double()
    parts = {f"{name}.hook_pattern": Place(net.get_submodule(name), index=1, read=_itself) for name in PATTERNS}
    return TorchModel(net, parts=parts), Inputs({"x": torch.randn(2, 5, 4).double()})


def _itself(pattern):
    return pattern


PATTERNS = ("first", "second")


@pytest.mark.parametrize("frozen", [False, True])
def test_the_gradient_of_what_can_only_be_read_equals_autograd_by_hand(frozen):
    model, inputs = attends()
    model.module.requires_grad_(not frozen)
    before = state_of(model)
    sites = [f"{name}.hook_pattern" for name in PATTERNS]
    found = capture(model, inputs, sites, score=lambda output: output[:, 1].square())
    assert state_of(model) == before
    net, x = model.module, inputs.tensors["x"].clone().requires_grad_()
    out, first = net.first(x)
    y = x + out
    out, second = net.second(y)
    score = net.head((y + out).tanh().mean(1))[:, 1].square().sum()
    for site, pattern, grad in zip(sites, (first, second), torch.autograd.grad(score, (first, second)), strict=True):
        assert torch.allclose(found.values[Site.parse(site)], pattern, rtol=1e-12)
        assert torch.allclose(found.grads[Site.parse(site)], grad, rtol=1e-12, atol=1e-15)
        assert not found.values[Site.parse(site)].requires_grad
        # Alone, with the other places, and under any mode of the caller.
        alone = capture(model, inputs, site, score=lambda output: output[:, 1].square())
        with torch.inference_mode():
            beside = capture(model, inputs, ["input", "first@in", site], score=lambda output: output[:, 1].square())
        for other in (alone, beside):
            assert torch.allclose(other.grads[Site.parse(site)], grad, rtol=1e-12, atol=1e-15)


def test_the_gradient_of_a_pattern_equals_finite_differences():
    """Attention written out, with a pattern that is moved by hand."""
    model, inputs = attends()
    net, x = model.module, inputs.tensors["x"]

    def scores(pattern):
        y = x + pattern @ net.first.v(x)
        return net.head((y + net.second(y)[0]).tanh().mean(1))[:, 0].sum()

    site = Site("first.hook_pattern")
    found = capture(model, inputs, site, score=lambda output: output[:, 0])
    with torch.no_grad():
        assert torch.allclose(scores(found.values[site]), found.scores.sum())
        for place in [(0, 1, 2), (1, 4, 0), (1, 3, 3)]:
            step = torch.zeros_like(found.values[site])
            step[place] = 1e-5
            slope = (scores(found.values[site] + step) - scores(found.values[site] - step)) / 2e-5
            assert torch.allclose(found.grads[site][place], slope, rtol=1e-7, atol=1e-10)


def test_a_score_may_read_a_pattern_and_one_that_it_does_not_see_has_gradient_zero():
    model, inputs = attends()
    first, second = (Site(f"{name}.hook_pattern") for name in PATTERNS)
    found = capture(model, inputs, [first, second], score=lambda _, values: values[first].square(), reads=[first])
    assert torch.allclose(found.grads[first], 2 * found.values[first])
    assert torch.equal(found.grads[second], torch.zeros(2, 5, 5).double())


def test_what_comes_from_nothing_that_is_given_has_no_gradient():
    class Constant(nn.Module):
        def forward(self, x):
            return x * 2, torch.ones(2, 5)

    net = nn.Sequential(Constant())
    model = TorchModel(
        net, forward=lambda m, i: m(i.tensors["x"])[0], parts={"p": Place(net[0], index=1, read=_itself)}
    )
    inputs = Inputs({"x": torch.zeros(2, 5)})
    assert torch.equal(capture(model, inputs, "p").values[Site("p")], torch.ones(2, 5))
    with pytest.raises(ValueError, match="p can only be read, and is not computed from what its module is given"):
        capture(model, inputs, "p", score=lambda output: output)


def loaded(kind):
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        HubertConfig,
        HubertModel,
        ViTConfig,
        ViTForImageClassification,
    )

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    torch.manual_seed(0)
    if kind == "vit":
        plain = ViTForImageClassification(ViTConfig(image_size=12, patch_size=4, num_labels=3, **small))
    elif kind == "bert":
        plain = BertForMaskedLM(BertConfig(vocab_size=30, **small))
    elif kind == "gpt2":
        plain = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=30, n_positions=16))
    else:
        conv = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
        plain = HubertModel(HubertConfig(**conv, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **small))
    model = load_model(plain.eval(), **({} if kind in ("bert", "gpt2") else {"attention": "eager"}))
    if kind == "vit":
        return model, Inputs({"pixel_values": torch.randn(2, 3, 12, 12)})
    if kind == "hubert":
        return model, model.collate(list(torch.randn(2, 200)))
    return model, model.collate([torch.tensor([3, 9, 4, 11]), torch.tensor([5, 7, 2])])


@pytest.mark.parametrize("kind", ["vit", "hubert", "bert", "gpt2"])
def test_patterns_of_pictures_sounds_and_texts_have_the_gradient_that_autograd_gives(kind):
    """By hand: the softmax that attention calls is asked to keep the gradient of what it gives."""
    model, inputs = loaded(kind)
    sites = ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]

    def score(output):
        hidden = output.hidden
        return (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).flatten(1).sum(1)

    found = capture(model, inputs, sites, score=score)
    made, plain = [], functional.softmax

    def keeping(*args, **kwargs):
        made.append(plain(*args, **kwargs))
        made[-1].retain_grad()
        return made[-1]

    module = model.module if kind in ("vit", "hubert") else model.module.original_model
    module.eval().requires_grad_(True)
    with pytest.MonkeyPatch.context() as patch, edited(model, {"blocks.0.attn@in": _itself}):  # off the plain path
        patch.setattr(functional, "softmax", keeping)
        score(model.forward(inputs)).sum().backward()
    assert len(made) == 2
    for site, pattern in zip(sites, made, strict=True):
        site = model.site(site)
        assert torch.allclose(found.values[site], pattern, atol=1e-6)
        assert found.grads[site].abs().max() > 0
        assert torch.allclose(found.grads[site], pattern.grad, atol=1e-5 * float(pattern.grad.abs().max()))


def test_an_edit_of_a_pattern_that_is_only_shown_afterwards_is_refused():
    """It would change nothing; elsewhere the pattern can be edited, and its gradient says what that does."""
    model, inputs = loaded("bert")
    with (
        pytest.raises(ValueError, match=r"hook_pattern can be read and differentiated, but not edited"),
        edited(model, {"blocks.0.attn.hook_pattern": torch.zeros_like}),
    ):
        model.forward(inputs)
    model, inputs = loaded("gpt2")
    model.module.double()
    site = model.site("blocks.0.attn.hook_pattern")
    found = capture(model, inputs, site, score=lambda output: output.hidden[:, -1, 0])
    step = torch.randn(found.values[site].shape).to(found.values[site]) * 1e-5
    ends = []
    for way in (step, -step):
        with torch.no_grad(), edited(model, {site: lambda pattern, way=way: pattern + way}):
            ends.append(model.forward(inputs).hidden[:, -1, 0].sum())
    assert torch.allclose(ends[0] - ends[1], 2 * (found.grads[site] * step).sum(), rtol=1e-3)
