"""Speech models against their own outputs, and against their formulas written out."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor

from interp.capturing import capture, edited
from interp.harvesting import harvest
from interp.loading import load_model
from interp.models.audio import AudioModel
from interp.types import Inputs


def _adapters():
    path = Path(__file__).with_name("feature_adapters.py")
    spec = importlib.util.spec_from_file_location("feature_adapters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases = _adapters()
D, HEADS, LAYERS, KINDS, tiny = cases.D, cases.HEADS, cases.LAYERS, cases.SPEECH, cases.built_speech
# Group norm goes with a norm after each part, layer norm with one before: as the released base and large models.
NORMS = [("wav2vec2", "group"), ("wav2vec2", "layer"), ("hubert", "group"), ("hubert", "layer"), ("unispeech", "layer")]


def waves(*lengths, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [0.3 * torch.randn(length, generator=generator) + 0.1 for length in lengths]


def reference(plain, values):
    """Every named place of one unpadded batch, from the weights and the papers' formulas."""
    settings, found = plain.config, {}
    x = values[:, None]
    for i, layer in enumerate(plain.feature_extractor.conv_layers):
        x = F.conv1d(x, layer.conv.weight, layer.conv.bias, stride=settings.conv_stride[i])
        if settings.feat_extract_norm == "layer":
            x = F.layer_norm(x.mT, (8,), layer.layer_norm.weight, layer.layer_norm.bias).mT
        elif i == 0:
            x = F.group_norm(x, 8, layer.layer_norm.weight, layer.layer_norm.bias)
        x = F.gelu(x)
        found[f"conv.{i}"] = x.mT
    projection, encoder = plain.feature_projection, plain.encoder
    x = projection.projection(projection.layer_norm(x.mT))
    convolved = encoder.pos_conv_embed.conv(x.mT)[:, :, :-1]
    found |= {"embed": x, "pos_embed": F.gelu(convolved).mT}
    x = x + found["pos_embed"]
    if not settings.do_stable_layer_norm:
        x = found["embed_ln"] = encoder.layer_norm(x)
    for i, block in enumerate(encoder.layers):
        parts = inside(block, x, settings.do_stable_layer_norm)
        found |= {f"blocks.{i}{name}": value for name, value in parts.items()}
        x = parts[""]
    if settings.do_stable_layer_norm:
        found["ln_final"] = encoder.layer_norm(x)
    return found


def inside(block, x, before):
    """The parts of a block that norms before attention and MLP, or after them."""
    attention, mlp, found = block.attention, block.feed_forward, {"@in": x}
    y = block.layer_norm(x) if before else x
    q, k, v = (part(y) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    of_heads = (part.split(D // HEADS, -1) for part in (q, k))
    pattern = torch.stack([(a @ b.mT / 2).softmax(-1) for a, b in zip(*of_heads, strict=True)], 1)
    z = torch.cat([pattern[:, i] @ c for i, c in enumerate(v.split(D // HEADS, -1))], -1)
    out = attention.out_proj(z)
    middle = x + out
    found[".attn.hook_pattern"] = pattern
    found |= {".attn@in": y, ".attn.q@in": y, ".attn.k@in": y, ".attn.v@in": y, ".attn.o": out, ".attn": out}
    found |= {f".attn.{name}#{HEADS}": part for name, part in (("q", q), ("k", k), ("v", v), ("o@in", z))}
    first = (x, y) if before else (middle, block.layer_norm(middle))
    y = block.final_layer_norm(middle) if before else first[1]
    hidden = mlp.intermediate_dense(y)
    out = mlp.output_dense(F.gelu(hidden))
    found |= {".mlp@in": y, ".mlp.in@in": y, ".mlp.in": hidden, ".mlp.out@in": F.gelu(hidden), ".mlp.out": out}
    second = (middle, y) if before else (y + out, block.final_layer_norm(y + out))
    found |= {".mlp": out, ".ln1@in": first[0], ".ln1": first[1], ".ln2@in": second[0], ".ln2": second[1]}
    return found | {"": middle + out if before else second[1]}


@pytest.mark.parametrize(("kind", "norm"), NORMS)
def test_every_named_place_equals_the_formulas(kind, norm):
    plain = tiny(kind, norm)
    plain.set_attn_implementation("eager")
    model = AudioModel(plain)
    inputs = model.collate(waves(1000, 1000))
    with torch.no_grad():
        expected = reference(plain, inputs.tensors["input_values"])
        own = plain(**inputs.tensors, output_hidden_states=True)
    found = capture(model, inputs, list(expected))
    assert {str(site) for site in found.values} == expected.keys()
    assert expected.keys() == set(map(str, model._parts))
    for name, value in expected.items():
        torch.testing.assert_close(found.values[model.site(name)], value, atol=1e-5, rtol=1e-5)
        if value.ndim == 3:
            assert torch.equal(found.rows(name).values, found.values[model.site(name)].flatten(0, 1))
    for i in range(LAYERS):
        torch.testing.assert_close(expected[f"blocks.{i}@in"], own.hidden_states[i], atol=1e-5, rtol=1e-5)
    last = expected["ln_final"] if norm == "layer" else expected[f"blocks.{LAYERS - 1}"]
    torch.testing.assert_close(last, own.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_names_of_text_models_and_own_paths():
    model = AudioModel(tiny("hubert"))
    names = {
        "blocks.1.attn.hook_z": "blocks.1.attn.o@in#4",
        "blocks.1.attn.q": "blocks.1.attn.q#4",
        "blocks.0.hook_resid_mid": "blocks.0.ln2@in",
        "blocks.0.mlp.hook_post": "blocks.0.mlp.out@in",
        "encoder.layers.1": "blocks.1",
        "encoder.layers.1.attention.k_proj": "blocks.1.attn.k#4",
    }
    assert {name: str(model.site(name)) for name in names} == names
    assert str(AudioModel(tiny("hubert", "group")).site("blocks.0.hook_resid_mid")) == "blocks.0.ln1@in"
    with pytest.raises(ValueError, match="nearest are .*blocks.1"):
        model.site("blocks.9")
    with pytest.raises(ValueError, match="Linear, but a speech model is one of wav2vec2"):
        AudioModel(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="sdpa attention, which makes no pattern"):
        model.place(model.site("blocks.0.attn.hook_pattern"))


def test_frames_lie_in_the_waveform_as_the_convolutions_say():
    model = AudioModel(tiny("wav2vec2"))
    whole, first = (model.geometry(model.site(name)) for name in ("blocks.1.mlp", "conv.0"))
    assert (whole.stride, whole.patch, whole.rate) == ((320,), (400,), 16_000)
    assert (first.stride, first.patch) == ((5,), (10,))
    assert whole.span(3) == ((960, 1360),) and whole.seconds(3) == (0.06, 0.085) and whole.at(1279) == 3
    assert [model.frames(n) for n in (399, 400, 719, 720, 16_000)] == [0, 1, 1, 2, 49]


@pytest.mark.parametrize("site", ["conv.0", "conv.3", "conv.6"])
@pytest.mark.parametrize("sample", [330, 1000, 1279, 2010])
def test_a_click_shows_at_its_frames_and_nowhere_else(site, sample):
    model = AudioModel(tiny("wav2vec2"), normalize=False)
    (quiet,) = waves(2400)
    loud = quiet.clone()
    loud[sample] += 1
    values = capture(model, model.collate([quiet, loud]), [site]).values[model.site(site)]
    geometry = model.geometry(model.site(site))
    # By more than rounding: the last frames of two sounds of a batch are summed in another order on some machines.
    changed = ((values[0] - values[1]).abs() > 1e-6).any(-1).nonzero().flatten().tolist()
    heard = [p for p in range(values.shape[1]) if geometry.span(p)[0][0] <= sample < geometry.span(p)[0][1]]
    assert changed == heard
    assert sample // geometry.stride[0] == geometry.at(sample)
    assert geometry.at(sample) in changed


@pytest.mark.parametrize(("kind", "norm"), [("wav2vec2", "layer"), ("hubert", "layer"), ("wav2vec2", "group")])
def test_waveforms_are_made_ready_as_the_feature_extractor_does(kind, norm):
    model = AudioModel(tiny(kind, norm))
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    sounds = waves(1500, 2100, 1111) if norm == "layer" else waves(1500, 1500)
    inputs = model.collate([sounds[0].numpy().astype(np.float64), *sounds[1:]], rate=16_000.0)
    expected = extractor([s.numpy() for s in sounds], sampling_rate=16_000, padding=True, return_tensors="pt")
    torch.testing.assert_close(inputs.tensors["input_values"], expected["input_values"], atol=1e-5, rtol=1e-5)
    if norm == "group":
        assert inputs.mask is None and set(inputs.tensors) == {"input_values"}
        return
    assert torch.equal(inputs.tensors["attention_mask"], expected["attention_mask"].long())
    own = model.module._get_feature_vector_attention_mask(inputs.mask.shape[1], expected["attention_mask"])
    assert torch.equal(inputs.mask, own.bool())
    raw = AudioModel(tiny(kind, norm), normalize=False).collate(sounds)
    assert torch.equal(raw.tensors["input_values"][2, :1111], sounds[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_equals_one_at_a_time(kind):
    model = AudioModel(tiny(kind))
    sounds, sites = waves(1500, 2700, 1111), ["conv.6", "embed", "blocks.0.attn.o@in", "blocks.1", "ln_final"]
    batch = model.collate(sounds)
    found = capture(model, batch, sites)
    with torch.no_grad():
        together = model.embedding(model.forward(batch), batch)
    for i, sound in enumerate(sounds):
        alone = model.collate([sound])
        single = capture(model, alone, sites)
        for site in sites:
            rows = found.rows(site)
            torch.testing.assert_close(
                rows.values[rows.example == i], single.rows(site).values, atol=1e-5, rtol=1e-5, msg=site
            )
        with torch.no_grad():
            embedding = model.embedding(model.forward(alone), alone)
        torch.testing.assert_close(together[i : i + 1], embedding, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(embedding, single.values[model.site("ln_final")].mean(1), atol=1e-5, rtol=1e-5)


def test_padding_is_refused_where_it_would_change_the_frames():
    """That the models refused do change is shown by padding them by hand."""
    short, long = waves(1500, 2700)
    shifted = tiny("hubert", conv_pos_batch_norm=True)
    shifted.encoder.pos_conv_embed.batch_norm.bias.data += 1
    for plain in (tiny("wav2vec2", "group"), shifted):
        model = AudioModel(plain)
        with pytest.raises(ValueError, match=r"2 lengths \(1500, 2700.*one by one \(batch_tokens=1"):
            model.collate([short, long])
        padded = F.pad(short, (0, 1200))[None]
        mask = (torch.arange(2700) < 1500)[None].long()
        alone = capture(model, Inputs({"input_values": short[None]}), ["blocks.0"]).values.popitem()[1]
        other = Inputs({"input_values": padded, "attention_mask": mask})
        frames = capture(model, other, ["blocks.0"]).values.popitem()[1][:, : alone.shape[1]]
        assert not torch.allclose(frames, alone, atol=1e-5)


def test_waveforms_of_another_kind_are_refused():
    model = AudioModel(tiny("wav2vec2"))
    with pytest.raises(ValueError, match="rate is 8000, but Wav2Vec2Model hears 16000"):
        model.collate(waves(1000), rate=8000.0)
    for wrong in (torch.zeros(2, 1000), torch.zeros(1000, dtype=torch.int16), torch.zeros(399)):
        with pytest.raises(ValueError, match=r"waveform 0 has shape .* 400 samples or more"):
            model.collate([wrong])
    with pytest.raises(ValueError, match="waveforms is empty"):
        model.collate([])


def test_edits_reach_the_model():
    model = AudioModel(tiny("wav2vec2"))
    inputs = model.collate(waves(1200, 1500))
    with torch.no_grad():
        plain = model.forward(inputs).hidden
        for site in ("conv.2", "embed", "blocks.0.attn.q", "blocks.1.attn.o@in", "blocks.1.mlp.in"):
            with edited(model, {site: lambda values: values.clone()}):
                assert torch.equal(model.forward(inputs).hidden, plain)
            with edited(model, {site: lambda values: values * torch.linspace(0, 1, values.shape[-1])}):
                assert not torch.allclose(model.forward(inputs).hidden, plain, atol=1e-4), site
    # The last convolution's channels are the last axis: dropping the third is dropping that filter.
    with torch.no_grad(), edited(model, {"conv.6": lambda values: values * (torch.arange(8) != 2)}):
        dropped = model.forward(inputs).hidden
    layer = model.module.feature_extractor.conv_layers[6]
    handle = layer.register_forward_hook(lambda _m, _args, out: out * (torch.arange(8) != 2)[:, None])
    with torch.no_grad():
        assert torch.equal(model.forward(inputs).hidden, dropped)
    handle.remove()


def test_gradients_go_back_to_the_front_end():
    model = AudioModel(tiny("hubert"))
    inputs = model.collate(waves(1200, 1500))
    found = capture(
        model, inputs, ["conv.0", "blocks.0@in"], score=lambda output: model.embedding(output, inputs).norm(dim=1)
    )
    values = found.values[model.site("blocks.0@in")].requires_grad_()
    with edited(model, {"blocks.0@in": lambda _: values}):
        score = model.embedding(model.forward(inputs), inputs).norm(dim=1).sum()
    (expected,) = torch.autograd.grad(score, values)
    torch.testing.assert_close(found.grads[model.site("blocks.0@in")], expected, atol=1e-6, rtol=1e-5)
    grads = found.grads[model.site("conv.0")]
    assert grads.shape[-1] == 8 and grads[0].any()


def test_places_inside_the_front_end_are_read_by_channel():
    model = AudioModel(tiny("wav2vec2"))
    paths = [f"feature_extractor.conv_layers.{part}" for part in ("1", "1.conv", "1.layer_norm")]
    found = capture(model, model.collate(waves(1200)), ["conv.1", *paths])
    expected = found.rows("conv.1")
    assert all(found.rows(path).values.shape == expected.values.shape for path in paths)
    torch.testing.assert_close(found.rows(paths[0]).values, expected.values)


def test_heads_keep_their_scores():
    inputs = AudioModel(tiny("hubert")).collate(waves(1200, 1500))
    with torch.no_grad():
        ctc = tiny("hubert", "layer", "HubertForCTC")
        output = AudioModel(ctc).forward(inputs)
        torch.testing.assert_close(output.logits, ctc(**inputs.tensors).logits)
        torch.testing.assert_close(output.hidden, ctc.hubert(**inputs.tensors).last_hidden_state)
        trained = tiny("wav2vec2", "layer", "Wav2Vec2ForPreTraining")
        output = AudioModel(trained).forward(inputs)
        assert output.logits is None
        torch.testing.assert_close(output.hidden, trained.wav2vec2(**inputs.tensors).last_hidden_state)


def test_the_fingerprint_leaves_out_what_only_training_reads():
    model = AudioModel(tiny("wav2vec2"))
    before = model.fingerprint
    with torch.no_grad():
        model.module.masked_spec_embed += 1
        assert model.fingerprint == before
        model.module.feature_projection.projection.bias += 1
        assert model.fingerprint != before


def test_a_harvest_of_waveforms():
    model = AudioModel(tiny("hubert"))

    def sounds(batch):
        return model.collate([item["audio"] for item in batch])

    items = [{"audio": wave, "word": str(i)} for i, wave in enumerate(waves(1500, 2700, 1111, 2000, 1500))]
    stores = harvest(
        model,
        items,
        ["conv.6", "blocks.0"],
        labels=["word"],
        collate=sounds,
        batch_tokens=2,
        dtype="float32",
    )
    with pytest.raises(ValueError, match="takes no text: give collate="):
        harvest(model, [{"text": "a word"}], "blocks.0")
    store = stores[model.site("blocks.0")]
    assert store.geometry.seconds(2) == (0.04, 0.065)
    assert [len(store.example(i)) for i in range(5)] == [model.frames(len(item["audio"])) for item in items]
    for i, item in enumerate(items):
        rows = capture(model, model.collate([item["audio"]]), ["blocks.0"]).rows("blocks.0")
        torch.testing.assert_close(store.example(i).values, rows.values, atol=1e-5, rtol=1e-5)
        assert store.example(i).position.tolist() == rows.position.tolist()


@pytest.mark.parametrize(("cls", "norm"), [(None, "group"), ("HubertForCTC", "layer")])
def test_folders_and_loaded_models(cls, norm, tmp_path):
    plain = tiny("hubert", norm, cls)
    plain.save_pretrained(tmp_path / "m")
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=False).save_pretrained(tmp_path / "m")
    model, loaded = load_model(tmp_path / "m", attention="eager"), load_model(plain)
    assert (model.name, model.rate, model.normalize) == ("m", 8000.0, False)
    assert (loaded.name, loaded.rate, loaded.normalize) == (type(plain).__name__, 16_000.0, True)
    assert model.fingerprint == loaded.fingerprint
    inputs = model.collate(waves(1000))
    with torch.no_grad():
        output = model.forward(inputs)
        torch.testing.assert_close(output.hidden, loaded.forward(inputs).hidden, atol=1e-5, rtol=1e-5)
    assert (output.logits is None) == (cls is None)
    assert capture(model, inputs, ["blocks.0.attn.hook_pattern"]).values
    (tmp_path / "m" / "preprocessor_config.json").unlink()
    assert load_model(tmp_path / "m").rate == 16_000.0


def test_what_cannot_be_loaded_says_so(tmp_path):
    plain = tiny("wav2vec2")
    with pytest.raises(ValueError, match="tokenizer is given, but source is a speech model"):
        load_model(plain, tokenizer=object())
    plain.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"Wav2Vec2Model"', '"Wav2Vec2ForCTC"'))
    with pytest.raises(ValueError, match="lacks 2 weights, lm_head.bias first"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="only weights in safetensors are loaded"):
        load_model(tmp_path)
