import json

import pytest


@pytest.fixture(autouse=True)
def _datasets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    yield
    if shown:
        datasets.enable_progress_bars()


def test_from_a_folder_and_a_file_to_a_page(unweave, bert_folder, texts, tmp_path):
    """The whole way through the house: harvest, train, evaluate, dictionary."""
    out = tmp_path / "out"
    harvest = ("harvest", "--model", bert_folder, "--dataset", texts, "--sites", "blocks.0", "blocks.1", "--quiet")
    harvest += ("--out", out / "store", "--labels", "kind", "--dtype", "float32")
    code, said, complaint = unweave(*harvest)
    assert code == 0, complaint
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["blocks.0", "blocks.1"]
    manifest = (out / "store" / "manifest.json").read_bytes()
    assert unweave(*harvest)[:2] == (0, said)
    assert (out / "store" / "manifest.json").read_bytes() == manifest

    train = ("--store", out / "store", "--site", "blocks.1", "--run", out / "run", "--quiet", "--batch-size", "128")
    train += ("--method", "batch_topk", "--d-sae", "16", "--k", "2", "--epochs", "2")
    assert unweave("train", *train)[0] == 0
    sae = out / "run" / "saes" / "batchtopk.safetensors"
    words = (sae, "--store", out / "store", "--model", bert_folder, "--max-loss-examples", "8", "--resamples", "20")
    code, said, complaint = unweave("evaluate", *words)
    assert code == 0, complaint
    assert "embedding_cosine" in said or "loss_recovered" in said
    assert 0 < json.loads(sae.with_suffix(".evaluation.json").read_text())["metrics"]["fvu"]["value"] < 1

    words = (sae, "--store", out / "store", "--out", out / "dictionary", "--quiet")
    words += ("--held-out", out / "store", "--labels", "kind", "--top", "3", "--quantiles", "2", "1")
    code, said, complaint = unweave("dictionary", *words)
    assert code == 0, complaint
    assert said.splitlines()[0] == f"{out / 'dictionary'}: 16 features"
    page = out / "dictionary-page" / "index.html"
    assert said.splitlines()[-1] == f"open {page}"
    assert page.exists()


def test_documentation_is_a_dataset(monkeypatch, tmp_path):
    from analyses.commands import harvest
    from interp.data import documentation

    asked = {}
    monkeypatch.setattr(documentation, "documentation", lambda **words: asked.update(words) or ["a text"])

    def dataset(**words):
        given = {"model": "m", "sites": ("a",), "out": tmp_path, "dataset": "documentation"} | words
        return harvest.dataset_of(harvest.Arguments(**given), pictures=False)

    assert dataset() == (["a text"], ("package", "module", "kind"))
    assert asked == {"split": "train", "max_items": None}
    assert dataset(dataset="documentation:held_out", max_tokens=100_000, labels=("kind",))[1] == ("kind",)
    assert asked == {"split": "held_out", "max_items": 4000}
    dataset(split="all")
    assert asked["split"] == "all"
    with pytest.raises(ValueError, match=r"of split 'heldout': did you mean held_out\?"):
        dataset(dataset="documentation:heldout")


def test_a_dry_run_writes_nothing(unweave, bert_folder, texts, tmp_path):
    words = ("--model", bert_folder, "--dataset", texts, "--sites", "blocks.1", "--out", tmp_path / "s", "--dry-run")
    code, said, complaint = unweave("harvest", *words)
    assert code == 0, complaint
    assert " rows, " in said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--sites": "blocks.7"}, "site is 'blocks.7', but"),
        ({"--model": "./nowhere"}, "source is ./nowhere, but there is no such folder"),
        ({"--dataset": "NONE.jsonl"}, "name_or_folder is"),
        ({"--device": "gpu"}, "device is 'gpu', but torch cannot use it here"),
        ({"--exclude": "bso"}, "exclude"),
    ],
)
def test_mistakes_are_one_line(unweave, bert_folder, texts, tmp_path, monkeypatch, changed, said):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    given = {"--model": bert_folder, "--dataset": texts, "--sites": "blocks.1", "--out": tmp_path / "s"} | changed
    code, _, complaint = unweave("harvest", *(word for pair in given.items() for word in pair))
    assert code == 2
    assert complaint.startswith(f"unweave harvest: {said}")
    assert complaint.count("\n") == 1


def test_a_folder_of_pictures_and_the_glyphs(unweave, tmp_path):
    """One picture is broken: the harvest says which, and goes on when it is told to."""
    import numpy as np
    import torch
    from PIL import Image
    from transformers import ViTConfig, ViTModel

    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTModel(ViTConfig(image_size=16, patch_size=8, num_channels=1, **shape)).save_pretrained(tmp_path / "vit")
    steps = {"do_resize": True, "size": {"height": 16, "width": 16}, "do_rescale": True, "do_normalize": True}
    about = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5], "image_std": [0.5], **steps}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(about))
    for i in range(6):
        (tmp_path / "pictures" / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 24), 40 * i, np.uint8)).save(tmp_path / "pictures" / f"c{i % 2}" / f"{i}.png")
    (tmp_path / "pictures" / "c0" / "2.png").write_bytes(b"no picture")
    words = ("harvest", "--model", tmp_path / "vit", "--sites", "blocks.1", "--quiet", "--out", tmp_path / "store")
    code, _, complaint = unweave(*words, "--dataset", tmp_path / "pictures")
    assert code != 0 and "2.png" in complaint and "on_error='skip'" in complaint
    code, said, complaint = unweave(*words, "--dataset", tmp_path / "pictures", "--on-error", "skip")
    assert code == 0, complaint
    assert said.strip() == f"{tmp_path / 'store'}: 20 rows of width 8 at blocks.1"
    from interp.stores.disk import DiskStore

    store = DiskStore(tmp_path / "store")
    assert [item.labels["class"] for item in store.items] == ["c0"] * 3 + ["c1"] * 3
    assert store.items[0].image.shape == (16, 16, 1) and store.example(0).position.tolist() == [1, 2, 3, 4]
    code, said, complaint = unweave(*words[:-1], tmp_path / "g", "--dataset", "glyphs:held_out", "--max-tokens", "500")
    assert code == 0, complaint
    assert DiskStore(tmp_path / "g").items[0].labels.keys() >= {"character", "category", "font"}
