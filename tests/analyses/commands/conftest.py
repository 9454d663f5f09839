"""What the commands are run on: a tiny BERT in a folder, texts in a file, a store, a trained SAE."""

import json
from pathlib import Path

import pytest

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "sat", "on", "the", "mat", "."]


@pytest.fixture
def unweave(capsys):
    """Run the command; gives exit code, stdout and stderr."""
    from analyses.commands.main import main

    def call(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory) -> Path:
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("models") / "tiny-bert"
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=128, **names).save_pretrained(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        BertForMaskedLM(BertConfig(vocab_size=len(WORDS), **shape)).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """200 sentences as JSON lines, with a label."""
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    rows = [
        {"text": " ".join(WORDS[5 + (i * 7 + j * j) % 7] for j in range(3 + i % 9)), "kind": f"k{i % 2}"}
        for i in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """A store on disk of two sites, without a model."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("tiny_text", Path(__file__).parents[2] / "tiny_text.py")
    import sys

    module = sys.modules.setdefault("tiny_text", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    from interp.harvesting import harvest

    path = tmp_path_factory.mktemp("stores") / "store"
    harvest(module.TinyText(), module.sentences(120), ["blocks.0", "blocks.1"], path, labels=["kind"])
    return path


@pytest.fixture(scope="session")
def sae_file(tmp_path_factory, store) -> Path:
    """An SAE of `blocks.1`, trained for a few steps."""
    from interp.stores.disk import DiskStore
    from saes.topk import TopK
    from saes.training import TrainConfig, train

    rows = DiskStore(store, "blocks.1")
    run = tmp_path_factory.mktemp("runs") / "run"
    train(TopK(d_in=rows.d_in, d_sae=16, k=2), rows, TrainConfig(tokens=2000, batch_size=100), run=run, progress=False)
    return run / "saes" / "topk.safetensors"
