"""`unweave maps` on tiny models; what it writes is compared with `attribute` called by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from analyses.attributing import attribute
from analyses.embeddings import embedding_of
from analyses.scores.class_logit import ClassLogit
from analyses.scores.embedding_norm import EmbeddingNorm
from analyses.scores.latent import Latent
from analyses.scores.next_token_loss import NextTokenLoss
from analyses.scores.similarity import Similarity
from interp import durability
from interp.types import Site

LINES = ["the cat sat", "", "on a mat", "probes find sparse directions that name a feature"]


def tiny(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / f"{name}.py")
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def models(monkeypatch):
    """`tiny-vision` (logits of a class token) and `tiny-text` (logits of every position) by name."""
    from interp import loading

    made = {"tiny-vision": tiny("tiny_vision").TinyVision(), "tiny-text": tiny("tiny_text").TinyText()}
    real = loading.load_model
    monkeypatch.setattr(loading, "load_model", lambda name, **given: made.get(name) or real(name, **given))
    return made


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def lines(tmp_path, monkeypatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES))
    yield path
    if shown:
        datasets.enable_progress_bars()


@pytest.fixture
def dictionary(tmp_path) -> Path:
    from saes.topk import TopK

    torch.manual_seed(0)
    sae = TopK(d_in=8, d_sae=16, k=4)
    sae.site = Site("blocks.0")
    sae.save(tmp_path / "sae.safetensors")
    return tmp_path / "sae.safetensors"


def same(out, expected):
    """What is written is what `attribute` gives, to the bit."""
    found = load_file(out / "maps.safetensors")
    assert {key for key in found if "/" in key} == {"/".join(key) for key in expected.values}
    for key, values in expected.values.items():
        assert torch.equal(found["/".join(key)], values)
    assert torch.equal(found["scores"], expected.scores)
    return json.loads((out / "maps.json").read_text())


def collated(model, folder):
    return model.collate([str(folder / f"{i}.png") for i in range(3)])


def tokenized(model):
    return model.collate([code.tokens for code in model.tokenize([line for line in LINES if line], 64)])


def test_pictures_where_the_highest_logit_comes_from(unweave, models, pictures, tmp_path):
    out = tmp_path / "runs" / "maps"
    code, said, complaint = unweave("maps", "tiny-vision", pictures, "--out", out)
    assert (code, complaint) == (0, "")
    model = models["tiny-vision"]
    # Of the last block only the class token is read, so its patches explain nothing.
    expected = attribute(model, collated(model, pictures), "blocks.0", methods=["NormGrad", "HiResCAM"])
    about = same(out, expected)
    assert sorted(path.name for path in out.iterdir()) == ["maps.json", "maps.png", "maps.safetensors"]
    assert about["geometries"]["blocks.0"]["grid"] == [3, 5]
    assert about["model"] == {"name": "tiny-vision", "fingerprint": model.fingerprint}
    assert about["arguments"]["limit"] == 16 and "out" not in about["arguments"]
    best = model.forward(collated(model, pictures)).argmax(1).tolist()
    head, *table, last = said.splitlines()
    assert head == "NormGrad, HiResCAM at blocks.0: the highest logit"
    for i, line in enumerate(table):
        assert about["examples"][i]["name"] == f"{i}.png"
        assert line.split() == [str(i), f"{expected.scores[i]:.4g}", "class", str(best[i]), f"{i}.png"]
    assert last == f"open {out / 'maps.png'}"
    assert Image.open(out / "maps.png").size > (300, 300)
    assert about["examples"][0]["score"] == pytest.approx(float(expected.scores[0]))


def test_texts_as_a_picture_and_as_a_page(unweave, models, lines, tmp_path):
    out = tmp_path / "maps"
    code, said, complaint = unweave("maps", "tiny-text", lines, "--out", out)
    assert (code, complaint) == (0, "")
    model = models["tiny-text"]
    methods = ["NormGrad", "IntegratedGradients"]
    about = same(out, attribute(model, tokenized(model), "embed", score=EmbeddingNorm(), methods=methods))
    assert load_file(out / "maps.safetensors")["mask"].sum(1).tolist() == [5, 5, 10]
    assert about["details"]["embed/IntegratedGradients"].keys() >= {"gap"}
    assert about["examples"][1]["tokens"] == ["[CLS]", "on", " a", " mat", "[SEP]"]  # an empty line is no example
    assert "the norm of the embedding (tiny-text has no trained logits; --score chooses another)" in said
    assert "probes find sparse directions that name a feature" in said
    assert said.splitlines()[-1] == f"open {out / 'maps.html'}"
    page = (out / "maps.html").read_text()
    assert page.startswith("<!doctype html>") and page.count("<span style=") == 2 * 20 + 2
    assert (out / "maps.png").exists()


def test_what_a_causal_model_says_next_is_a_class(unweave, models, lines, tmp_path):
    model = models["tiny-text"]
    model.is_causal = True
    code, said, _ = unweave("maps", "tiny-text", lines, "--out", tmp_path / "maps", "--methods", "NormGrad")
    assert code == 0
    same(tmp_path / "maps", attribute(model, tokenized(model), "embed", methods=["NormGrad"]))
    best = model.forward(tokenized(model))[0, 4].argmax()
    assert f"class {f' {best}'!r}  the cat sat" in said
    code, said, _ = unweave("maps", "tiny-text", lines, "--out", tmp_path / "loss", "--score", "loss")
    assert code == 0 and "the loss of the next token, in nats" in said
    methods = ["NormGrad", "IntegratedGradients"]
    same(tmp_path / "loss", attribute(model, tokenized(model), "embed", score=NextTokenLoss(), methods=methods))


def test_a_class_a_reference_a_norm(unweave, models, pictures, lines, tmp_path):
    model = models["tiny-vision"]
    inputs = collated(model, pictures)
    words = ("maps", "tiny-vision", pictures, "--sites", "blocks.0", "input", "--methods", "NormGrad", "gradient")
    alone = model.collate([str(pictures / "1.png")])
    for name, score, given in (
        ("class", ClassLogit(2), ("--class-index", "2")),
        ("like", Similarity(embedding_of(model, alone)[0]), ("--reference", pictures / "1.png")),
        ("norm", EmbeddingNorm(), ("--score", "norm", "--batch-size", "2")),
    ):
        code, _, complaint = unweave(*words, "--out", tmp_path / name, *given)
        assert (code, complaint) == (0, "")
        asked = {"score": score, "methods": ["NormGrad", "Gradient"], "batch_size": 2 if name == "norm" else 32}
        same(tmp_path / name, attribute(model, inputs, ["blocks.0", "input"], **asked))
    text = models["tiny-text"]
    (tmp_path / "reference.txt").write_text("on a mat")
    words = ("maps", "tiny-text", lines, "--out", tmp_path / "text", "--methods", "NormGrad", "--reference")
    assert unweave(*words, tmp_path / "reference.txt")[0] == 0
    score = Similarity(embedding_of(text, text.collate([text.tokenize(["on a mat"], 64)[0].tokens]))[0])
    same(tmp_path / "text", attribute(text, tokenized(text), "embed", score=score, methods=["NormGrad"]))


def test_features_of_a_dictionary_as_score_and_as_maps(unweave, models, pictures, dictionary, tmp_path):
    from saes.loading import load

    model, sae = models["tiny-vision"], load(dictionary)
    inputs = collated(model, pictures)
    fired = int(sae.encode(model_rows(model, inputs)).dense().sum(0).argmax())
    words = ("maps", "tiny-vision", pictures, "--out", tmp_path / "one", "--sae", dictionary, "--feature", fired)
    code, said, complaint = unweave(*words, "--sites", "embed")
    assert (code, complaint) == (0, "") and f"the largest code of feature {fired} of {dictionary}" in said
    score = Latent(sae, fired)
    same(tmp_path / "one", attribute(model, inputs, "embed", score=score, methods=["NormGrad", "HiResCAM"]))
    words = ("maps", "tiny-vision", pictures, "--out", tmp_path / "many", "--through", dictionary, "--features", "3")
    code, said, complaint = unweave(*words)
    assert (code, complaint) == (0, "")
    expected = attribute(model, inputs, methods=["NormGrad", "HiResCAM"], through=sae, features=3)
    about = same(tmp_path / "many", expected)
    assert about["features"] == list(expected.features) and about["sites"] == ["blocks.0"]
    assert f"of features {', '.join(map(str, expected.features))} at blocks.0" in said


def model_rows(model, inputs):
    from interp.capturing import capture

    return capture(model, inputs, ["blocks.0"]).rows("blocks.0").values


def test_scenes_are_judged_by_the_truth(unweave, models, tmp_path):
    words = ("maps", "tiny-vision", "scenes", "--out", tmp_path / "maps", "--limit", "2", "--methods", "NormGrad")
    code, said, complaint = unweave(*words, "--judge", "--class-index", "0")
    assert (code, complaint) == (0, "")
    table = (tmp_path / "maps" / "judgement.md").read_text()
    assert table in said and "PointingGame" in table and "| blocks.0 | NormGrad |" in table


def test_the_truth_of_a_scene_is_where_its_picture_shows_it(models, tmp_path):
    from analyses.commands import map_inputs, maps
    from interp.data.scenes import scenes

    model = models["tiny-vision"]
    given = map_inputs.read(model, maps.Arguments("tiny-vision", "scenes", tmp_path, limit=3))
    rows = scenes(3, seed=0, size=(16, 20), split="train")
    assert torch.equal(
        given.inputs.tensors["pixel_values"], model.collate([row["image"] for row in rows]).tensors["pixel_values"]
    )
    assert given.truth.shape == (3, 12, 20)
    for found, row in zip(given.truth, rows, strict=True):
        assert 0.3 < float(found.float().mean()) / float(row["mask"].any(0).mean()) < 2


def test_one_picture_and_glyphs(unweave, models, pictures, tmp_path):
    code, said, _ = unweave("maps", "tiny-vision", pictures / "2.png", "--out", tmp_path / "one")
    assert code == 0 and said.splitlines()[1].endswith("2.png")
    code, said, _ = unweave("maps", "tiny-vision", "glyphs:held_out", "--out", tmp_path / "g", "--limit", "2")
    assert code == 0 and len(said.splitlines()) == 4


def test_a_picture_of_every_eight_examples_and_equal_bytes(unweave, models, tmp_path):
    words = ("maps", "tiny-vision", "scenes:held_out", "--limit", "9", "--methods", "NormGrad", "--out")
    for name in "ab":
        assert unweave(*words, tmp_path / name)[0] == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["maps-2.png", "maps.json", "maps.png", "maps.safetensors"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_each_map_may_have_a_scale_of_its_own(unweave, models, pictures, lines, tmp_path, monkeypatch):
    from analyses.plots import map_matrix, map_texts

    drawn = {}
    for module, name in ((map_matrix, "map_examples"), (map_texts, "map_texts")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda maps, *a, r=real, n=name, **k: drawn.update({n: maps}) or r(maps, *a, **k)
        )
    for model, data, name in (("tiny-vision", pictures, "map_examples"), ("tiny-text", lines, "map_texts")):
        words = ("maps", model, data, "--methods", "HiResCAM", "--score", "norm", "--out", tmp_path / model)
        assert unweave(*words)[0] == 0
        raw = load_file(tmp_path / model / "maps.safetensors")
        (values,) = drawn[name].values.values()
        assert torch.equal(values, next(part for key, part in raw.items() if "/" in key))
        assert unweave(*words, "--scale", "own", "--overwrite")[0] == 0
        (own,) = drawn[name].values.values()
        for found, value in zip(own, values, strict=True):
            assert torch.allclose(found, value / value.abs().max())
        again = load_file(tmp_path / model / "maps.safetensors")
        assert all(torch.equal(again[key], part) for key, part in raw.items())


def test_norms_that_say_little_are_told(unweave, models, pictures, tmp_path, monkeypatch):
    model = models["tiny-vision"]
    model.embedding = lambda output, inputs: torch.nn.functional.normalize(output) + 1e-4 * output
    code, said, _ = unweave("maps", "tiny-vision", pictures, "--out", tmp_path / "maps", "--score", "norm")
    assert code == 0 and "these norms are nearly the same" in said


def test_a_picture_that_cannot_be_read(unweave, models, pictures, tmp_path):
    (pictures / "1.png").write_bytes(b"no picture")
    words = ("maps", "tiny-vision", pictures, "--out", tmp_path / "maps")
    code, _, complaint = unweave(*words)
    assert code == 2
    assert complaint.startswith("unweave maps: item 1 (1.png) cannot be read as a picture: no image of a format")
    assert not (tmp_path / "maps").exists()
    code, said, _ = unweave(*words, "--on-error", "skip")
    assert code == 0 and [line.split()[-1] for line in said.splitlines()[1:-1]] == ["0.png", "2.png"]
    for path in pictures.iterdir():
        path.write_bytes(b"no picture")
    code, _, complaint = unweave(*words, "--on-error", "skip", "--overwrite")
    assert code == 2 and "but no example of it can be read" in complaint


def test_maps_are_replaced_when_asked_and_nothing_else_ever_is(unweave, models, pictures, tmp_path):
    words = ("maps", "tiny-vision", pictures, "--methods", "NormGrad", "--out", tmp_path / "maps")
    assert unweave(*words)[0] == 0
    code, _, complaint = unweave(*words)
    assert code == 2 and "maps are there already: give another folder, or --overwrite" in complaint
    assert unweave(*words, "--overwrite", "--limit", "1")[0] == 0
    assert len(load_file(tmp_path / "maps" / "maps.safetensors")["scores"]) == 1
    code, _, complaint = unweave(*words[:-1], pictures, "--overwrite")
    assert code == 2 and "which holds something that is no maps" in complaint
    assert len(list(pictures.iterdir())) == 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_stopped_while_writing_it_leaves_what_was_there(unweave, models, pictures, tmp_path, monkeypatch, stop):
    def stopped(*_words):
        raise stop("no room")

    words = ("maps", "tiny-vision", pictures, "--methods", "NormGrad", "--out", tmp_path / "maps")
    with monkeypatch.context() as patched:
        patched.setattr(durability, "write_json", stopped)
        code, said, complaint = unweave(*words)
        assert (code, said) == (130 if stop is KeyboardInterrupt else 2, "")
        assert stop is OSError or "stopped; nothing was written" in complaint
        assert {path.name for path in tmp_path.iterdir()} == {"pictures"}
    assert unweave(*words)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "maps").iterdir()}
    monkeypatch.setattr(durability, "write_json", stopped)
    assert unweave(*words, "--overwrite", "--limit", "1")[0] != 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "maps").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "maps"}


def test_a_real_encoder_of_a_folder(unweave, bert_folder, texts, lines, tmp_path):
    """Its masked-language head has logits, but of no class: the norm it is."""
    words = ("maps", bert_folder, texts, "--out", tmp_path / "maps", "--limit", "2", "--quiet")
    code, said, complaint = unweave(*words)
    assert code == 0, complaint
    assert said.startswith("NormGrad, IntegratedGradients at embed: the norm of the embedding (tiny-bert has no")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sites", "blocks.7"], "site is 'blocks.7', but"),
        (["--methods", "GardCAM"], "methods names 'GardCAM', but known are"),
        (["--score", "loss"], "tiny-vision gives logits of shape [1, 3] for input_ids"),
        (["--score", "similarity"], "the score is similarity, but to nothing"),
        (["--score", "latent", "--feature", "1"], "the score is a latent, but which one is not said"),
        (["--sae", "SAE"], "the score is a latent, but which one is not said"),
        (["--score", "norm", "--class-index", "1"], "--class-index is given, but the score is norm: leave it out"),
        (["--feature", "1", "--reference", "x.png"], "--feature is given, but the score is similarity"),
        (["--reference", "x.png"], "--reference is x.png, but there is no such file"),
        (["--reference", "SAE"], "--reference is SAE, which tiny-vision cannot read (no image"),
        (["--class-index", "3"], "index is 3, but there are 3 classes"),
        (["--score", "latent", "--sae", "SAE", "--feature", "16"], "feature is 16, but the dictionary has 16"),
        (["--features", "3"], "--features is given, but it counts features of a dictionary"),
        (["--through", "SAE", "--features", "99"], "features is 99, but the dictionary has 16"),
        (["--through", "SAE", "--judge"], "--judge judges maps of layers, but --through gives maps of features"),
        (
            ["--through", "SAE", "--methods", "Occlusion"],
            "Occlusion runs the model with other activations, which have no features",
        ),
        (["--limit", "0"], "--limit is 0, but it counts examples: give 1 or more."),
        (["--batch-size", "0"], "--batch-size is 0, but it counts examples"),
        (["--device", "gpu"], "device is 'gpu', but torch cannot use it here"),
        (["--sites", "blocks.1"], "the score has no gradient at blocks.1"),
        (["--sits", "blocks.1"], "--sits is no option: did you mean --sites?"),
    ],
)
def test_mistakes_are_one_line(unweave, models, pictures, dictionary, tmp_path, words, said):
    named = [str(dictionary) if word == "SAE" else word for word in words]
    code, out, complaint = unweave("maps", "tiny-vision", pictures, "--out", tmp_path / "maps", *named)
    assert (code, out) == (2, "")
    assert complaint.startswith(f"unweave maps: {said.replace('SAE', str(dictionary))}")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "maps").exists()


def test_data_and_model_that_do_not_fit(unweave, models, pictures, lines, tmp_path):
    for model, data, said in (
        ("tiny-vision", tmp_path / "none", "name_or_folder is"),
        ("tiny-vision", lines, "column is 'image', but the dataset has text"),
        ("tiny-text", pictures, "text is 'text', but item 0 has the columns image"),
        ("tiny-text", "scenes", "dataset is 'scenes', but tiny-text takes texts"),
        ("tiny-vision", "scenes:heldout", "dataset is 'scenes:heldout' of split 'heldout': did you mean held_out?"),
        ("./nowhere", lines, "source is ./nowhere, but there is no such folder"),
    ):
        code, _, complaint = unweave("maps", model, data, "--out", tmp_path / "maps")
        assert code == 2 and complaint.startswith(f"unweave maps: {said}"), complaint
        assert complaint.count("\n") == 1
    models["tiny-text"].tokenize = models["tiny-vision"].preprocessing = None
    bare = type("Bare", (), {"name": "bare", "sites": lambda self: [], "site": lambda self, name: name})()
    models["tiny-vision"] = bare
    code, _, complaint = unweave("maps", "tiny-vision", pictures, "--out", tmp_path / "maps")
    assert code == 2 and "which takes neither pictures nor texts" in complaint


def test_arguments_may_stand_in_a_file(unweave, tmp_path):
    words = ("maps", "m", "d", "--out", "o", "--sites", "a", "b@in", "--methods", "GradCAM", "--score", "latent")
    words += ("--sae", "s.safetensors", "--feature", "3", "--judge", "--print-config")
    code, said, complaint = unweave(*words)
    assert (code, complaint) == (0, "")
    (tmp_path / "maps.yaml").write_text(said)
    assert unweave("maps", "--config", tmp_path / "maps.yaml", "--print-config") == (0, said, "")
