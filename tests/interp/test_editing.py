import contextlib
import copy
import gc

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from interp.capturing import capture, edited
from interp.editing import ablate, add, patch, project_out, replace, scale_latent
from interp.loading import load_model
from interp.models.bridge import BridgeModel
from interp.models.torch_module import TorchModel
from interp.splicing import spliced
from interp.steering import steer
from interp.types import Geometry, Inputs, Site
from saes.topk import TopK

SITE = Site("blocks.1")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def gpt2():
    """The model, and the plain one whose weights it shares."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=3, n_head=4, vocab_size=50, n_positions=64)).eval()
    return load_model(plain), plain


@pytest.fixture(scope="module")
def batch(gpt2):
    return gpt2[0].collate([torch.arange(1, 10), torch.arange(20, 24)])


@pytest.fixture
def sae():
    found = TopK(d_in=16, d_sae=40, k=5).eval()
    with torch.no_grad():
        found.b_dec.copy_(random(16, seed=8))
        found.W_enc.add_(0.3 * random(16, 40, seed=9))
    return found


class Maps(nn.Module):
    """A convolution, and a layer that keeps channels last, of six channels each."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 6), nn.AdaptiveAvgPool2d(1)
        self.mean = nn.Flatten()

    def forward(self, x):
        return self.mean(self.pool(self.last(self.first(x).movedim(1, -1)).movedim(-1, 1)))


@pytest.fixture
def maps():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        grid = Geometry("grid", grid=(4, 5))
        return TorchModel(Maps(), geometry={"first": grid, "last": grid})


def test_each_edit_equals_its_formula(sae):
    x, direction, strength = random(2, 5, 16, seed=1), random(16, seed=2), random(2, seed=3)
    per_example, whole = random(2, 16, seed=4), random(2, 5, 16, seed=5)
    latents = sae.encode(x.flatten(0, 1)).dense()
    with torch.no_grad():
        written = (latents[:, [3, 7]] @ sae.W_dec[[3, 7]]).view(2, 5, 16)
    unit = direction / direction.norm()
    wanted = {
        ablate(): torch.zeros_like(x),
        ablate(to=direction): direction.expand(2, 5, 16),
        ablate(to=whole[:1]): whole[:1].expand(2, 5, 16),
        replace(per_example): per_example[:, None].expand(2, 5, 16),
        patch(whole): whole,
        add(direction, 2.5): x + 2.5 * direction,
        add(per_example, strength): x + (strength[:, None] * per_example)[:, None],
        add(direction, torch.tensor(2.5)): x + 2.5 * direction,
        add((sae, 7), strength): x + strength[:, None, None] * sae.W_dec[7].detach(),
        project_out(direction): x - (x @ unit)[..., None] * unit,
        project_out(per_example[:, None]): x - torch.stack([row @ v[:, None] @ v[None] / v.dot(v)
                                                            for row, v in zip(x, per_example, strict=True)]),
        scale_latent(sae, [3, 7], 0.0): x - written,
        scale_latent(sae, [3, 7], torch.tensor([3.0, 3.0])): x + 2 * written,
    }  # fmt: skip
    assert written.abs().max() > 0.1  # some of these latents are active
    for edit, value in wanted.items():
        assert torch.allclose(edit(x), value, atol=1e-5)
    assert torch.equal(add(direction, 0.0)(x), x)
    assert torch.equal(scale_latent(sae, [3, 7], 1.0)(x), x)


def test_projecting_is_idempotent_orthogonal_and_knows_dependent_directions():
    x, span = random(2, 5, 16, seed=1), random(3, 16, seed=2)
    once = project_out(span)(x)
    assert (once @ span.T).abs().max() < 1e-5
    assert torch.allclose(project_out(span)(once), once, atol=1e-6)
    dependent = torch.cat([span, span[:1] * 7 - span[1:2], torch.zeros(1, 16)])
    assert torch.allclose(project_out(dependent)(x), once, atol=1e-5)
    both = project_out(torch.stack([dependent, torch.cat([span, span[:2]])]))(x)  # a span an example, of two ranks
    assert torch.allclose(both, once, atol=1e-5)
    assert project_out(torch.eye(16))(x).abs().max() < 1e-5
    half = project_out(span)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    for nothing in (torch.zeros(2, 16), torch.zeros(0, 16)):
        with pytest.raises(ValueError, match="directions are all zero"):
            project_out(nothing)


@pytest.mark.parametrize(
    ("positions", "changed"),
    [
        (None, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (2, [[0, 0, 1, 0], [0, 0, 1, 0]]),
        ([0, -1], [[1, 0, 0, 1], [1, 0, 0, 1]]),
        (torch.tensor([1]), [[0, 1, 0, 0], [0, 1, 0, 0]]),
        (slice(1, 3), [[0, 1, 1, 0], [0, 1, 1, 0]]),
        (torch.tensor([True, False, False, True]), [[1, 0, 0, 1], [1, 0, 0, 1]]),
        ([True, False, False, True], [[1, 0, 0, 1], [1, 0, 0, 1]]),
        (torch.tensor([[True, False, False, True], [False] * 4]), [[1, 0, 0, 1], [0, 0, 0, 0]]),
        ([], [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_only_the_positions_chosen_are_touched(positions, changed, sae):
    x, where = random(2, 4, 16, seed=1), torch.tensor(changed, dtype=torch.bool)
    for make in (
        lambda positions: ablate(positions=positions),
        lambda positions: patch(random(2, 4, 16, seed=2), positions=positions),
        lambda positions: add(random(2, 16, seed=3), 2.0, positions=positions),
        lambda positions: project_out(random(2, 16, seed=3), positions=positions),
        lambda positions: project_out(random(2, 3, 16, seed=3), positions=positions),
        lambda positions: scale_latent(sae, list(range(40)), 0.0, positions=positions),
    ):
        before = x.clone()
        new = make(positions)(x)
        assert torch.equal(x, before)
        assert torch.equal(new[~where], x[~where])
        assert torch.allclose(new[where], make(None)(x)[where], atol=1e-6)
        assert (new[where] != x[where]).any(dim=-1).all()


def test_a_direction_is_edited_in_channels_wherever_they_stand(maps):
    inputs, direction = Inputs({"x": random(2, 3, 4, 5, seed=1)}), random(6, seed=2)
    for name, at in (("first", (slice(None), slice(None), 1, 3)), ("last", (slice(None), 1, 3))):
        clean = capture(maps, inputs, [name])
        with edited(maps, {name: add(direction, 2.0, positions=8)}):  # 8 = row 1, column 3 of 4 x 5
            new = capture(maps, inputs, [name])
        wanted = clean.values[Site(name)].clone()
        wanted[at] += 2 * direction
        assert torch.equal(new.values[Site(name)], wanted)
        other = capture(maps, Inputs({"x": random(2, 3, 4, 5, seed=9)}), [name])
        with edited(maps, {name: patch(other)}):
            assert torch.equal(capture(maps, inputs, [name]).values[Site(name)], other.values[Site(name)])
        with edited(maps, {name: project_out(direction)}):
            assert (capture(maps, inputs, [name]).vectors(name) @ direction).abs().max() < 1e-5
    with edited(maps, {"mean": replace(random(2, 6, seed=5))}):  # one vector an example
        assert torch.equal(maps.forward(inputs), random(2, 6, seed=5))
    with edited(maps, {"mean": ablate(positions=torch.tensor([[True], [False]]))}):
        assert maps.forward(inputs).abs().amax(dim=1).gt(0).tolist() == [False, True]


def test_prefix_tokens_count_and_maps_of_another_size_need_the_inputs():
    class Sized(TorchModel):
        def geometry(self, site, inputs=None):
            if site.module == "2":
                return Geometry("grid", grid=(2, 2), prefix=1)
            return Geometry("grid", grid=(4, 4) if inputs is None else tuple(inputs.tensors["x"].shape[2:]))

    class Tokens(nn.Module):
        def forward(self, x):
            return torch.cat([x.mean((2, 3))[:, None], x.flatten(2).mT], dim=1)

    model = Sized(nn.Sequential(nn.Conv2d(1, 3, 1), Tokens(), nn.Linear(3, 3)))
    inputs = Inputs({"x": random(1, 1, 2, 2)})
    with edited(model, {"2": ablate(positions=[0, 1])}):
        assert model.forward(inputs).abs().sum(-1).gt(0).tolist() == [[False, False, True, True, True]]
    with edited(model, {"0": ablate()}), pytest.raises(ValueError, match=r"declared grid is \(4, 4\).*inputs="):
        model.forward(inputs)
    with edited(model, {"0": ablate()}, inputs=inputs):
        assert capture(model, inputs, ["0"]).values[Site("0")].abs().max() == 0


def test_zero_ablation_equals_a_hook_by_hand(gpt2, batch):
    model, plain = gpt2
    handle = plain.transformer.h[1].register_forward_hook(lambda _m, _a, out: torch.zeros_like(out))
    with torch.no_grad():
        wanted = plain(**batch.tensors).logits
        handle.remove()
        clean = model.forward(batch).logits
        with edited(model, {SITE: ablate()}):
            found = model.forward(batch).logits
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(found, clean, atol=1e-2)


def test_one_head_equals_a_hook_by_hand(gpt2, batch):
    model, plain = gpt2

    def second_head(_module, args):
        value = args[0].clone()
        value[..., 4:8] = 0
        return (value,)

    handle = plain.transformer.h[1].attn.c_proj.register_forward_pre_hook(second_head)
    with torch.no_grad():
        wanted = plain(**batch.tensors).logits
        handle.remove()
        clean = model.forward(batch).logits
        with edited(model, {"blocks.1.attn.hook_z": ablate(heads=1)}):
            found = model.forward(batch).logits
        with edited(model, {"blocks.1.attn.hook_z": [ablate(heads=[0, 2]), ablate(heads=[1, 3])]}):
            all_heads = model.forward(batch).logits
        with edited(model, {"blocks.1.attn.hook_z": ablate()}):
            assert torch.equal(model.forward(batch).logits, all_heads)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(found, clean, atol=1e-4)


def test_patching_all_positions_gives_the_other_inputs_output(gpt2, batch):
    model, _ = gpt2
    other = model.collate([torch.arange(30, 39), torch.arange(9, 13)])
    source = capture(model, other, ["blocks.1", "blocks.0"])
    with torch.no_grad():
        wanted, clean = model.forward(other).logits, model.forward(batch).logits
        with edited(model, {"blocks.1.hook_resid_post": patch(source, "blocks.1")}):
            assert torch.allclose(model.forward(batch).logits[other.mask], wanted[other.mask], atol=1e-5)
        with edited(model, {SITE: patch(source, SITE, positions=[5])}):
            partly = model.forward(batch).logits
    assert torch.allclose(partly[:, :5], clean[:, :5], atol=1e-5)  # a causal model: nothing before it changes
    assert not torch.allclose(partly[0, 5:], clean[0, 5:], atol=1e-3)
    with pytest.raises(ValueError, match=r"source holds blocks.1, blocks.0, but a patch is of one site"):
        patch(source)
    with pytest.raises(ValueError, match=r"site is blocks.2, but this capture holds"):
        patch(source, "blocks.2")


def test_edits_of_one_site_are_made_in_order_under_any_of_its_names(gpt2, batch):
    model, _ = gpt2
    ones = torch.ones(16)
    with edited(model, {SITE: [ablate(), add(ones, 2.0)], "blocks.1.hook_resid_post": lambda value: value * 3}):
        assert torch.equal(capture(model, batch, [SITE]).values[SITE], torch.full((2, 9, 16), 6.0))
    with edited(model, {SITE: [add(ones, 2.0), ablate(positions=0)]}):
        assert capture(model, batch, [SITE]).values[SITE][:, 0].abs().max() == 0


def test_edits_carry_gradients(sae):
    x = random(2, 3, 16, seed=1).requires_grad_()
    direction, strength = random(16, seed=2), torch.tensor([1.0, 2.0], requires_grad=True)
    weights = random(2, 3, 16, seed=3)
    (add(direction, strength, positions=[0, 2])(x) * weights).sum().backward()
    assert torch.allclose(strength.grad, (weights[:, [0, 2]] @ direction).sum(1), atol=1e-5)
    assert torch.equal(x.grad, weights)
    x.grad = None
    (ablate(positions=1)(x) * weights).sum().backward()
    assert torch.equal(x.grad[:, [0, 2]], weights[:, [0, 2]])
    assert x.grad[:, 1].abs().max() == 0


def test_errors_name_what_does_not_fit(gpt2, batch, sae, maps):
    model, _ = gpt2
    cases = {
        r"direction has shape \[5\], but blocks.1 holds a tensor of shape \[2, 9, 16\]: give \[16\]": add(
            torch.ones(5)
        ),
        r"source has shape \[2, 4, 16\], but blocks.1 holds .*\[2, 9, 16\]": patch(torch.ones(2, 4, 16)),
        r"values has shape \[3, 16\]": replace(torch.ones(3, 16)),
        r"to has shape \[1, 1, 1, 16\]": ablate(to=torch.ones(1, 1, 1, 16)),
        r"directions has vectors of width 6: choose the site": project_out(torch.ones(6)),
        r"directions has 3 spans, but blocks.1 holds 2 examples": project_out(torch.ones(3, 1, 16)),
        r"directions has vectors of width 7": scale_latent(TopK(d_in=7, d_sae=9, k=2), 0, 0.0),
        r"positions is \[9\], but blocks.1 holds 9 positions.*choose from 0..8": ablate(positions=9),
        r"positions is a mask of shape \[3\], but blocks.1 holds 2 examples of 9": ablate(
            positions=torch.ones(3, dtype=torch.bool)
        ),
        r"heads is \[0\], but blocks.1 has no heads.*leave heads= out": ablate(heads=0),
    }
    for message, edit in cases.items():
        with edited(model, {SITE: edit}), pytest.raises(ValueError, match=message):
            model.forward(batch)
    with edited(model, {"blocks.1.attn.hook_z": ablate(heads=[4])}):  # noqa: SIM117
        with pytest.raises(ValueError, match=r"heads is \[4\], but blocks.1.attn.o@in#4 has 4 heads in 16 channels"):
            model.forward(batch)
    with edited(model, {SITE: torch.Tensor.double}), pytest.raises(ValueError, match=r"gave torch.float64 on cpu"):
        model.forward(batch)
    with edited(maps, {"first": add(torch.ones(4))}), pytest.raises(ValueError, match=r"\[2, 20, 6\]"):
        maps.forward(Inputs({"x": torch.ones(2, 3, 4, 5)}))
    with pytest.raises(ValueError, match=r"feature is 40, but the dictionary has 40: choose from 0..39"):
        add((sae, 40))
    with pytest.raises(ValueError, match=r"feature is -1"):
        scale_latent(sae, [-1], 0.0)
    with pytest.raises(ValueError, match=r"torch.int64, but an edit changes vectors"):
        ablate()(torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"site is 'blocks.9'.*nearest are"), edited(model, {"blocks.9": ablate()}):
        pass


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))

    def forward(self, x):
        return self.blocks(x)


def image_or_sound(kind):
    """A Hugging Face encoder of three blocks, of which no layer is left out at random while training."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vision":
            decoder = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 8}
            vit = ViTMAEForPreTraining(
                ViTMAEConfig(image_size=16, patch_size=4, decoder_num_attention_heads=2, **sizes, **decoder)
            )
            return load_model(vit), Inputs({"pixel_values": random(2, 3, 16, 16)})
        front = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 2}
        speech = load_model(Wav2Vec2Model(Wav2Vec2Config(layerdrop=0.0, mask_time_prob=0.0, **sizes, **front)))
    return speech, Inputs({"input_values": random(2, 2000)})


@pytest.fixture(scope="module", params=["bridge", "torch", "vision", "audio"])
def troubled(request, gpt2, batch):
    """A model in a state worth keeping: mixed modes and flags, gradients, a hook of someone else's."""
    if request.param == "torch":
        model, inputs = TorchModel(Chain()), Inputs({"x": random(2, 4, 16)})
    elif request.param in ("vision", "audio"):
        model, inputs = image_or_sound(request.param)
    else:
        with torch.random.fork_rng():
            model, inputs = load_model(copy.deepcopy(gpt2[1])), batch
    if isinstance(model, BridgeModel):
        capture(model, inputs, ["blocks.2.attn.hook_z"])  # TransformerLens wires its blocks at their first run
    for i, module in enumerate(model.modules()):
        module.training = i % 3 == 0
    for i, parameter in enumerate(model.module.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        if i % 4 == 0:
            parameter.grad = torch.full_like(parameter, 2.0)
    next(model.modules()).register_forward_hook(lambda *_: None)
    return model, inputs


def state_of(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = [tuple(getattr(m, kind).values()) for m in model.modules() for kind in kinds]
    parameters = list(model.module.parameters())
    grads = [None if p.grad is None else (id(p.grad), p.grad.sum().item()) for p in parameters]
    config = str(getattr(model.module, "config", ""))
    return hooks, [m.training for m in model.modules()], [p.requires_grad for p in parameters], grads, config


def interrupted(model, inputs, sae, action, moment, raises):
    """Do one thing, and let it be interrupted: inside an edit, inside the forward pass, or in the with block."""
    site = {"capture of z": "blocks.1.attn.hook_z"}.get(action, "blocks.1")
    edit = raises if moment == "edit" else ablate()
    if action.startswith("capture"):
        with edited(model, {site: edit}) if moment == "edit" else contextlib.nullcontext():
            capture(model, inputs, [site, "blocks.2"], score=raises if moment == "block" else lambda out: first(out))
    elif action == "edited":
        with edited(model, {site: edit, "blocks.0@in": add(torch.ones(16))}):
            model.forward(inputs)
            raises()
    elif action == "spliced":
        broken = copy.copy(sae)
        if moment == "edit":
            broken.encode = raises
        with spliced(model, site, broken, error=True) as splice:
            first(model.forward(inputs)).sum().backward(inputs=[splice.latents.values])
            raises()
    else:
        with edited(model, {site: edit}):
            steer(model, [torch.arange(1, 5)], site, torch.ones(16), max_new_tokens=2)
            raises()


def first(output):
    return output if isinstance(output, torch.Tensor) else output.hidden


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", ["edit", "forward", "block"])
@pytest.mark.parametrize("action", ["capture", "capture of z", "edited", "spliced", "steer"])
def test_everything_is_as_found_after_an_interruption(troubled, sae, action, moment, error):
    model, inputs = troubled
    if not isinstance(model, BridgeModel) and action in ("capture of z", "steer"):
        pytest.skip("of text models only")

    def raises(*_args, **_kwargs):
        raise error("stop")

    before = state_of(model)
    broken = contextlib.nullcontext()
    if moment == "forward":  # in the last block of whichever of the twins runs
        is_plain = isinstance(model, BridgeModel) and action == "capture"
        last = model._plain.transformer.h[2] if is_plain else model.place(model.site("blocks.2")).module
        broken = last.register_forward_pre_hook(raises)
    with pytest.raises(error, match="stop"), broken:
        interrupted(model, inputs, sae, action, moment, raises)
    assert state_of(model) == before
    model.forward(inputs)


def test_a_batch_that_cannot_be_moved_leaves_no_hook(gpt2, batch, monkeypatch):
    model, _ = gpt2
    before = state_of(model)
    monkeypatch.setattr(torch.Tensor, "to", lambda *_: batch.nothing)
    with pytest.raises(AttributeError, match="nothing"):
        model.forward(batch)
    assert state_of(model) == before


@pytest.mark.parametrize(("kind", "repeats"), [("torch", 100), ("bridge", 10), ("vision", 10), ("audio", 10)])
def test_repeats_leave_nothing_behind(kind, repeats, gpt2, batch, sae):
    if kind in ("vision", "audio"):
        model, inputs = image_or_sound(kind)
    else:
        model, inputs = (gpt2[0], batch) if kind == "bridge" else (TorchModel(Chain()), Inputs({"x": random(2, 4, 16)}))

    def once():
        source = capture(model, inputs, ["blocks.1"], score=first)
        with edited(model, {"blocks.1": [patch(source, positions=0), scale_latent(sae, 3, 2.0)]}):
            model.forward(inputs)
        with spliced(model, "blocks.1", sae, error=True) as splice:
            torch.autograd.grad(first(model.forward(inputs)).sum(), splice.latents.values)
        if kind == "bridge":
            steer(model, [torch.arange(1, 5)], "blocks.1", torch.ones(16), max_new_tokens=1)

    def alive():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    once()
    before, hooks = alive(), state_of(model)[0]
    for _ in range(repeats):
        once()
    assert alive() == before
    assert state_of(model)[0] == hooks
