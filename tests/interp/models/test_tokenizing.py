import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from interp.models.tokenizing import Tokenizing

TEXT = "naïve  café 😀 x\n\t你好 "


def by_bytes(**names):
    """One token a byte, so that characters are cut into several."""
    words = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(BPE({word: i for i, word in enumerate(words)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **names)


def tokenizing(**names):
    return Tokenizing(by_bytes(**names), name="bytes", longest=100, prepend_bos=True)


def test_pieces_join_to_the_text_though_characters_are_cut():
    model = tokenizing(bos_token="<s>")
    (encoded,) = model.tokenize([TEXT])
    assert encoded.pieces[0] == "<s>"
    assert "".join(encoded.pieces[1:]) == TEXT
    assert len(encoded.pieces) == len(encoded.tokens) == 1 + len(TEXT.encode())


def test_pieces_of_ids_alone_join_to_the_text():
    model = tokenizing(bos_token="<s>")
    (encoded,) = model.tokenize([TEXT])
    pieces = model.pieces_of(encoded.tokens)
    assert "".join(pieces[1:]) == TEXT
    assert len(pieces) == len(encoded.tokens)
    assert pieces[1 + TEXT.encode().index("😀".encode()) + 3] == "😀"  # at the last of its four bytes
    torn = model.pieces_of(encoded.tokens[:4])
    assert torn[-1].endswith("\N{REPLACEMENT CHARACTER}")  # cut inside a character: shown, not hidden


def test_bos_starts_a_text_once_and_counts_against_the_limit():
    model = tokenizing(bos_token="<s>")
    (encoded,) = model.tokenize(["abcdef"], max_length=4)
    assert encoded.tokens[0] == 0
    assert encoded.pieces == ("<s>", "a", "b", "c")
    assert model.tokenize(["abcdef"], max_length=1)[0].pieces == ("<s>",)
    assert tokenizing().tokenize(["ab"])[0].pieces == ("a", "b")  # no bos known, none added
    assert model.longest == 64
    assert model.special_ids == {"bos": {0}}


def test_padding_takes_any_lengths():
    inputs = tokenizing().collate([torch.tensor([5]), torch.tensor([6, 7, 8], dtype=torch.int32)])
    assert inputs.mask.tolist() == [[True, False, False], [True, True, True]]
    assert inputs.tensors["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    with pytest.raises(ValueError, match="token_ids has 1 examples, the longest of 0 tokens"):
        tokenizing().collate([torch.tensor([], dtype=torch.long)])
