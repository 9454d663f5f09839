import functools

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from interp.capturing import edited
from interp.editing import add, replace
from interp.loading import load_model
from interp.steering import generate, steer
from saes.topk import TopK

PROMPTS = [torch.arange(1, 8), torch.tensor([9]), torch.arange(20, 24)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(kind):
    """Weights large enough that the likeliest token is no near tie, and depends on what came before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 50}
        if kind == "gpt2":
            config = GPT2Config(n_embd=16, n_layer=3, n_head=4, n_positions=64, initializer_range=0.3, **names)
            return GPT2LMHeadModel(config).eval()
        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
            **names,
        )
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request):
    plain = tiny(request.param)
    return load_model(plain), plain


@pytest.fixture(scope="module")
def gpt2():
    return load_model(tiny("gpt2"))


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A model with a tokenizer of one token a byte."""
    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(BPE({word: i for i, word in enumerate(words)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=64, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)  # TransformerLens makes it again, from where it was read
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": len(words)}
        config = GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, **names)
        return load_model(GPT2LMHeadModel(config).eval(), tokenizer=tokenizer)


def added(chosen, step, out):
    new = out.clone()
    new[:, chosen] += step
    return new


def greedy(plain, prompt, steps, change=None):
    """One sequence alone, the whole of it at every step, with a hook by hand on a block of the plain model."""
    ids, layers = prompt[None], plain.transformer.h if hasattr(plain, "transformer") else plain.model.layers
    for _ in range(steps):
        handle = None if change is None else layers[1].register_forward_hook(lambda _m, _a, out: change(out))
        with torch.no_grad():
            logits = plain(input_ids=ids, use_cache=False).logits
        if handle is not None:
            handle.remove()
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids[0, len(prompt) :]


def same(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_padded_batch_goes_on_as_each_prompt_alone(pair):
    model, plain = pair
    found = generate(model, PROMPTS, max_new_tokens=8)
    assert same(found, [greedy(plain, prompt, 8) for prompt in PROMPTS])
    assert same(found, [generate(model, [prompt], max_new_tokens=8)[0] for prompt in PROMPTS])
    assert len({token for tokens in found for token in tokens.tolist()}) >= 4  # not one token for ever


def test_greedy_equals_transformers_own_with_its_cache(pair):
    model, plain = pair
    for prompt in PROMPTS:
        wanted = plain.generate(
            prompt[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :]
        assert torch.equal(generate(model, [prompt], max_new_tokens=8)[0], wanted)


def test_steering_equals_a_hook_by_hand_in_a_loop_without_cache(pair):
    model, plain = pair
    direction = random(16, seed=1)
    unsteered = generate(model, PROMPTS, max_new_tokens=8)
    for at, where in (
        ("all", lambda n: slice(None)),
        ("prompt", lambda n: slice(n)),
        ("new", lambda n: slice(n, None)),
    ):
        found = steer(model, PROMPTS, "blocks.1", direction, 4.0, at=at, max_new_tokens=8)
        wanted = []
        for prompt in PROMPTS:
            wanted.append(greedy(plain, prompt, 8, functools.partial(added, where(len(prompt)), 4.0 * direction)))
        assert same(found, wanted)
        assert not same(found, unsteered)
        if at == "new":
            assert [tokens[0] for tokens in found] == [tokens[0] for tokens in unsteered]


def test_strength_zero_is_identity_in_tokens_and_logits(pair):
    model, _ = pair
    plain = generate(model, PROMPTS, max_new_tokens=8)
    for at in ("all", "prompt", "new"):
        assert same(steer(model, PROMPTS, "blocks.1", random(16), 0.0, at=at, max_new_tokens=8), plain)
    inputs = model.collate(PROMPTS)
    with torch.no_grad(), edited(model, {"blocks.1": lambda value: value}):
        logits = model.forward(inputs).logits
        with edited(model, {"blocks.1": add(random(16), 0.0)}):
            assert torch.equal(model.forward(inputs).logits, logits)


def test_directions_and_strengths_of_their_own(gpt2):
    directions, strengths = random(3, 16, seed=1), torch.tensor([0.0, 3.0, -3.0])
    found = steer(gpt2, PROMPTS, "blocks.1", directions, strengths, at="prompt", max_new_tokens=6)
    alone = [
        steer(gpt2, [p], "blocks.1", d, float(s), at="prompt", max_new_tokens=6)[0]
        for p, d, s in zip(PROMPTS, directions, strengths, strict=True)
    ]
    assert same(found, alone)
    sae = TopK(d_in=16, d_sae=40, k=5)
    by_feature = steer(gpt2, PROMPTS, "blocks.1", (sae, 7), 5.0, max_new_tokens=6)
    assert same(by_feature, steer(gpt2, PROMPTS, "blocks.1", sae.W_dec[7].detach(), 5.0, max_new_tokens=6))


def test_dropout_is_off_and_the_mode_as_found(gpt2):
    wanted = generate(gpt2, PROMPTS, max_new_tokens=6)
    for module in gpt2.modules():
        module.training = True
    try:
        assert same(generate(gpt2, PROMPTS, max_new_tokens=6), wanted)
        assert all(module.training for module in gpt2.modules())
    finally:
        for module in gpt2.modules():
            module.training = False


def test_any_edit_holds_at_every_step(gpt2):
    seen = []
    with edited(gpt2, {"blocks.1": [lambda value: seen.append(value.shape[1]) or value, replace(random(16))]}):
        found = generate(gpt2, PROMPTS, max_new_tokens=5)
    assert seen == [7, 8, 9, 10, 11]
    # Only one vector is left after the block, which is no position's own.
    assert not same(found, generate(gpt2, PROMPTS, max_new_tokens=5))


def test_draws_follow_the_softmax_and_their_counters(gpt2):
    prompts = [PROMPTS[0]] * 600
    drawn = torch.cat(generate(gpt2, prompts, max_new_tokens=1, temperature=2.0))
    with torch.no_grad():
        logits = gpt2.forward(gpt2.collate(prompts[:1])).logits[0, -1]
    wanted = (logits / 2.0).softmax(-1)
    found = torch.bincount(drawn, minlength=50) / 600
    assert (found - wanted).abs().max() < 4 * (0.25 / 600) ** 0.5
    assert wanted.max() < 0.9  # a draw can tell
    state = torch.get_rng_state()
    one = generate(gpt2, PROMPTS, max_new_tokens=6, temperature=2.0, seed=1)
    assert same(one, generate(gpt2, PROMPTS, max_new_tokens=6, temperature=2.0, seed=1))
    assert same(one[:2], generate(gpt2, PROMPTS[:2], max_new_tokens=6, temperature=2.0, seed=1))
    assert not same(one, generate(gpt2, PROMPTS, max_new_tokens=6, temperature=2.0, seed=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(generate(gpt2, PROMPTS, temperature=1e-6), generate(gpt2, PROMPTS))


def test_a_sequence_ends_at_the_end_of_text_and_the_others_go_on(gpt2, monkeypatch):
    free = generate(gpt2, PROMPTS, max_new_tokens=8)
    last = int(free[0][3])
    monkeypatch.setattr(gpt2, "special_ids", {"eos": {last}})
    ended = generate(gpt2, PROMPTS, max_new_tokens=8)
    for tokens, whole in zip(ended, free, strict=True):
        stop = whole.tolist().index(last) if last in whole else 8
        assert torch.equal(tokens, whole[:stop])
    assert len(ended[0]) <= 3
    assert max(map(len, ended)) == 8


def test_texts_go_on(speaking):
    texts = ["Sparse auto", "é"]
    (first, second) = speaking.generate(texts, max_new_tokens=6)
    tokens = generate(speaking, [part.tokens for part in speaking.tokenize(texts)], max_new_tokens=6)
    assert speaking.generate(texts[0], max_new_tokens=6) == [first]
    encoded = speaking.tokenize(texts)
    for text, part, new, shown in zip(texts, encoded, tokens, (first, second), strict=True):
        assert "".join(speaking.pieces_of(torch.cat([part.tokens, new]))).removeprefix("<s>") == text + shown
    steered = speaking.steer(texts, "blocks.0", random(16), 8.0, at="new", max_new_tokens=6, temperature=0.5)
    assert steered != [first, second]
    assert speaking.steer(texts, "blocks.0", random(16), 0.0, max_new_tokens=6) == [first, second]
    assert speaking.generate(texts, max_new_tokens=0) == ["", ""]


def test_what_cannot_go_on_is_refused(gpt2):
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32, vocab_size=50)
    bert = load_model(BertForMaskedLM(config).eval())
    for ask in (generate, lambda model, prompts: steer(model, prompts, "blocks.0", random(16))):
        with pytest.raises(ValueError, match=r"does not predict the next token, so it continues no text: use a causal"):
            ask(bert, PROMPTS)
    with pytest.raises(
        ValueError, match=r"prompts have \[7, 1, 4\] tokens, but with max_new_tokens=60 each has 1 to 4"
    ):
        generate(gpt2, PROMPTS, max_new_tokens=60)
    with pytest.raises(ValueError, match=r"prompts have \[0\] tokens"):
        generate(gpt2, [torch.zeros(0, dtype=torch.long)])
    with pytest.raises(ValueError, match=r"temperature is -1"):
        generate(gpt2, PROMPTS, temperature=-1.0)
    with pytest.raises(ValueError, match=r"direction has shape \[3\], but blocks.1 holds"):
        steer(gpt2, PROMPTS, "blocks.1", torch.ones(3))
    with pytest.raises(ValueError, match=r"site is 'blocks.9'"):
        steer(gpt2, PROMPTS, "blocks.9", torch.ones(16))
    with pytest.raises(ValueError, match="was loaded without a tokenizer"):
        gpt2.generate("a text")
