import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from interp.capturing import capture, edited, left_as_found
from interp.editing import scale_latent
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.splicing import spliced
from interp.types import Geometry, Inputs, Latents, Site
from saes.topk import TopK


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Identity:
    """A dictionary that loses nothing: an orthogonal basis, all coordinates kept."""

    signed, trainable, site, labels, provenance = True, False, None, {}, {}

    def __init__(self, d):
        self.d_in = self.d_sae = d
        self.W_dec = torch.linalg.qr(random(d, d))[0]
        self.W_enc = self.W_dec.T

    def encode(self, x):
        return Latents.from_dense(x @ self.W_enc)

    def decode(self, latents):
        return latents.dense() @ self.W_dec


class Chain(nn.Module):
    """Three blocks and nothing else."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x).tanh()
        return x


@pytest.fixture(scope="module")
def gpt2():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            n_embd=16, n_layer=3, n_head=4, vocab_size=50, n_positions=64, bos_token_id=0, eos_token_id=0
        )
        return load_model(GPT2LMHeadModel(config).eval())


@pytest.fixture(params=["torch", "bridge"])
def ready(request, gpt2):
    """A model, one batch, and a function from the model's output to a score."""
    if request.param == "bridge":
        inputs = gpt2.collate([torch.arange(1, 10), torch.arange(20, 24)])
        weights = random(2, 9, 50, seed=3)
        return gpt2, inputs, lambda output: (output.logits * weights).sum()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TorchModel(Chain())
    weights = random(2, 5, 16, seed=3)
    return model, Inputs({"x": random(2, 5, 16, seed=1)}), lambda output: (output * weights).sum()


@pytest.fixture
def sae():
    found = TopK(d_in=16, d_sae=40, k=5).eval()
    with torch.no_grad():
        found.W_enc.add_(0.3 * random(16, 40, seed=9))
        found.b_dec.add_(0.1)
    return found


def values_of(output):
    return output if isinstance(output, torch.Tensor) else output.logits


def test_a_dictionary_that_loses_nothing_changes_nothing(ready):
    model, inputs, _ = ready
    with torch.no_grad():
        clean = values_of(model.forward(inputs))
        for error in (False, True):
            with spliced(model, "blocks.1", Identity(16), error=error):
                assert torch.allclose(values_of(model.forward(inputs)), clean, atol=1e-6)
        with spliced(model, "blocks.1", Identity(16)), spliced(model, "blocks.2", Identity(16), error=True):
            assert torch.allclose(values_of(model.forward(inputs)), clean, atol=1e-6)


def test_with_the_error_the_forward_pass_is_the_models_own(ready, sae):
    model, inputs, _ = ready
    clean = capture(model, inputs, ["blocks.1", "blocks.2"])
    with spliced(model, "blocks.1", sae, error=True):
        kept = capture(model, inputs, ["blocks.1", "blocks.2"])
    with spliced(model, "blocks.1", sae):
        lost = capture(model, inputs, ["blocks.1", "blocks.2"])
    for site in clean.values:  # the bridge's path rounds otherwise than the plain one
        assert torch.allclose(kept.values[site], clean.values[site], atol=1e-6)
        assert not torch.allclose(lost.values[site], clean.values[site], atol=1e-2)


def test_the_error_term_is_exact_to_the_bit(ready, sae):
    model, inputs, _ = ready
    with edited(model, {"blocks.1": lambda value: value}), torch.no_grad():  # on the same path
        clean = values_of(model.forward(inputs))
        with spliced(model, "blocks.1", sae, error=True):
            assert torch.equal(values_of(model.forward(inputs)), clean)


@pytest.mark.parametrize("frozen", [False, True], ids=["asking", "frozen"])
def test_gradients_of_latents_follow_the_chain_rule(ready, sae, frozen):
    model, inputs, score = ready
    grads = capture(model, inputs, ["blocks.1"], score=score).grads[Site("blocks.1")]
    sae.requires_grad_(not frozen)
    with left_as_found(model, frozen=frozen), spliced(model, "blocks.1", sae, error=True) as splice:
        (found,) = torch.autograd.grad(score(model.forward(inputs)), splice.latents.values)
    rows, latents = splice.rows, splice.latents
    at_rows = grads[rows.example, rows.position]
    by_hand = (at_rows @ sae.W_dec.T)[latents.rows, latents.indices]  # dL/dz = dL/dx W_dec^T on active latents
    assert torch.allclose(found, by_hand, atol=1e-5)
    assert found.abs().max() > 1e-2
    x = capture(model, inputs, ["blocks.1"]).values[Site("blocks.1")]
    assert torch.allclose(rows.values, x[rows.example, rows.position], atol=1e-5)
    assert torch.allclose(splice.recon, sae(rows.values), atol=1e-6)
    assert torch.allclose(latents.dense(), sae.encode(rows.values).dense(), atol=1e-6)


def test_with_the_reconstruction_alone_gradients_are_those_at_the_reconstruction(ready, sae):
    model, inputs, score = ready
    with spliced(model, "blocks.1", sae) as splice:
        score(model.forward(inputs)).backward(inputs=[splice.latents.values, splice.recon])
    by_hand = (splice.recon.grad @ sae.W_dec.T)[splice.latents.rows, splice.latents.indices]
    assert torch.allclose(splice.latents.values.grad, by_hand, atol=1e-5)
    value = capture(model, inputs, ["blocks.1"]).values[Site("blocks.1")]
    with edited(model, {"blocks.1": lambda value: sae(value.flatten(0, 1)).view_as(value)}):
        there = capture(model, inputs, ["blocks.1"], score=score)
    wanted = there.grads[Site("blocks.1")].view(-1, value.shape[-1])
    assert torch.allclose(splice.recon.grad, wanted, atol=1e-5)


def test_a_dictionary_is_trained_end_to_end(ready, sae):
    model, inputs, _ = ready
    with torch.no_grad():
        clean = values_of(model.forward(inputs))
    sae.train()
    optimizer, losses = torch.optim.Adam(sae.parameters(), lr=1e-2), []
    for _ in range(15):
        with spliced(model, "blocks.1", sae):
            loss = (values_of(model.forward(inputs)) - clean).pow(2).mean()
        optimizer.zero_grad()
        loss.backward(inputs=list(sae.parameters()))
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in (sae.W_enc, sae.W_dec, sae.b_dec))
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is None for p in model.module.parameters())


def test_gradients_reach_what_came_before_through_the_latents_alone(sae):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TorchModel(Chain())
    inputs = Inputs({"x": random(2, 5, 16, seed=1)})
    first = model.module.blocks[0].weight
    for error in (False, True):
        with spliced(model, "blocks.1", sae, error=error):
            (found,) = torch.autograd.grad(model.forward(inputs).sum(), first)
        x = model.module.blocks[1](model.module.blocks[0](inputs.tensors["x"]).tanh())
        recon = sae(x.flatten(0, 1)).view_as(x)
        put = recon + (x - recon).detach() if error else recon
        (wanted,) = torch.autograd.grad(model.module.blocks[2](put.tanh()).tanh().sum(), first)
        assert torch.allclose(found, wanted, atol=1e-5)


def test_positions_that_are_not_chosen_stay_clean(ready, sae):
    model, inputs, _ = ready
    mask = torch.zeros(2, values_of(model.forward(inputs)).shape[1], dtype=torch.bool)
    mask[0, 2], mask[1, 1] = True, True
    clean = capture(model, inputs, ["blocks.1"]).values[Site("blocks.1")]
    with spliced(model, "blocks.1", sae, positions=mask) as splice:
        found = capture(model, inputs, ["blocks.1"]).values[Site("blocks.1")]
    assert torch.allclose(found[~mask], clean[~mask], atol=1e-6)
    assert torch.allclose(found[mask], sae(clean[mask]), atol=1e-5)
    assert splice.rows.example.tolist() == [0, 1]
    assert splice.rows.position.tolist() == [2, 1]
    assert len(splice.latents) == 2


def test_scaling_a_latent_equals_scaling_it_inside_a_splice_with_its_error(ready, sae):
    model, inputs, _ = ready
    feature = int(sae.encode(capture(model, inputs, ["blocks.1"]).vectors("blocks.1").flatten(0, 1)).indices[0])

    def by_hand(value):
        x = value.flatten(0, 1)
        latents = sae.encode(x).dense()
        error = x - sae(x)
        latents[:, feature] = 0
        return (latents @ sae.W_dec + sae.b_dec + error).view_as(value)

    outputs = []
    with torch.no_grad():
        for edit in (by_hand, scale_latent(sae, feature, 0.0), lambda value: value, scale_latent(sae, feature, 1.0)):
            with edited(model, {"blocks.1": edit}):
                outputs.append(values_of(model.forward(inputs)))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
    assert torch.equal(outputs[2], outputs[3])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-3)


def test_maps_are_spliced_position_by_position():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    model = TorchModel(net, geometry={"0": Geometry("grid", grid=(4, 5))})
    inputs, sae = Inputs({"x": random(2, 3, 4, 5, seed=1)}), TopK(d_in=6, d_sae=9, k=2).eval()
    x = capture(model, inputs, ["0"])
    with spliced(model, "0", sae, positions=[0, 7]) as splice:
        new = capture(model, inputs, ["0"])
    wanted = x.vectors("0").clone()
    wanted[:, [0, 7]] = sae(wanted[:, [0, 7]].flatten(0, 1)).view(2, 2, 6)
    assert torch.allclose(new.vectors("0"), wanted, atol=1e-6)
    assert torch.equal(splice.rows.values, x.vectors("0")[:, [0, 7]].flatten(0, 1))


def test_half_precision_and_no_grad(sae):
    model = TorchModel(Chain().bfloat16())
    inputs = Inputs({"x": random(2, 5, 16, seed=1).bfloat16()})
    with torch.no_grad():
        clean = model.forward(inputs)
        with spliced(model, "blocks.1", sae, error=True) as splice:
            assert torch.equal(model.forward(inputs), clean)
        with spliced(model, "blocks.1", sae):
            assert model.forward(inputs).dtype == torch.bfloat16
    assert not splice.latents.values.requires_grad
    assert splice.recon.dtype == torch.float32


def test_what_cannot_be_spliced_is_refused(ready):
    model, inputs, _ = ready
    with spliced(model, "blocks.1", Identity(8)) as splice:
        with pytest.raises(ValueError, match=r"blocks.1 holds a tensor of shape \[2, \d, 16\], but directions .* 8"):
            model.forward(inputs)
        with pytest.raises(ValueError, match=r"nothing was spliced yet: run the model inside the block"):
            splice.latents
    with pytest.raises(ValueError, match=r"site is 'blocks.9'"), spliced(model, "blocks.9", Identity(16)):
        pass
    with (
        spliced(model, "blocks.1", Identity(16), positions=30),
        pytest.raises(ValueError, match=r"positions is \[30\]"),
    ):
        model.forward(inputs)
