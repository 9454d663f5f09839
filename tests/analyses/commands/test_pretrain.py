import functools
import json

import pytest

from analyses.commands import pretrain as command

TABLE = f"# Encoders\n\n{command._MARKS[0]}\nold\n{command._MARKS[1]}\n\nThe end.\n"


@pytest.fixture
def few(monkeypatch):
    """A tenth of the glyphs, and a short diagnosis."""
    from interp.data import glyphs as source
    from interp.pretrain import judging

    every = source.glyphs
    fewer = {"train": 400, "held_out": 150}
    monkeypatch.setattr(source, "glyphs", lambda split: every(split)[: fewer[split]])
    monkeypatch.setattr("interp.pretrain.training.glyphs", source.glyphs)
    monkeypatch.setattr("interp.pretrain.training.diagnosis", functools.partial(judging.diagnosis, size=16, steps=1))


def test_a_recipe_is_trained_with_what_is_changed_and_judged_into_a_page(unweave, few, tmp_path):
    out = tmp_path / "encoder"
    words = ("--steps", "2", "--batch-size", "4", "--seed", "3", "--objective", "simclr")
    code, said, complaint = unweave("pretrain", "glyph-resnet", "--out", out, *words)
    assert code == 0, complaint
    assert said == f"{out}: resnet after 2 steps of simclr.\n"
    recipe = json.loads((out / "pretraining.json").read_text())["recipe"]
    assert (recipe["steps"], recipe["batch_size"], recipe["seed"], recipe["objective"]) == (2, 4, 3, "simclr")
    page = tmp_path / "page.md"
    page.write_text(TABLE)
    code, said, complaint = unweave("pretrain", "--judge", out, "--table", page)
    assert code == 0, complaint
    for name in ("raw pixels", "resnet, random weights", str(out), f"{out} less raw pixels"):
        assert f"\n| {name} " in said
    assert f"\n| {out}, layer 3 of the head " in said
    text = page.read_text()
    assert text.startswith("# Encoders\n\n<!-- judged")
    assert text.endswith("-->\n\nThe end.\n")
    assert "old" not in text
    assert said.strip() in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to do: name a recipe and --out to train, or encoders with --judge."),
        (["glyph-resnet"], "nothing to do: name a recipe and --out"),
        (["glyph-vitt", "--out", "o"], "recipe is 'glyph-vitt': did you mean glyph-vit?"),
        (["glyph-vit", "--out", "o", "--objective", "dino"], "objective is 'dino', but there are"),
        (["--judge", "nowhere"], "folder is nowhere, but holds no glyph encoder: give"),
        (["glyph-vit", "--out", "."], "out is ., but that is there already"),
    ],
)
def test_mistakes_are_one_line(unweave, words, said):
    code, _, complaint = unweave("pretrain", *words)
    assert code == 2
    assert complaint.startswith(f"unweave pretrain: {said}")
    assert complaint.count("\n") == 1


def test_a_page_without_marks_is_refused_before_judging(unweave, few, tmp_path):
    out = tmp_path / "encoder"
    assert unweave("pretrain", "glyph-vit", "--out", out, "--steps", "1", "--batch-size", "4")[0] == 0
    page = tmp_path / "page.md"
    page.write_text("nothing")
    code, _, complaint = unweave("pretrain", "--judge", out, "--table", page)
    assert code == 2
    assert "but holds no <!-- judged" in complaint
    assert page.read_text() == "nothing"
