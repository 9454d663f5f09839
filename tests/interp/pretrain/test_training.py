import dataclasses
import functools
import json

import pytest
import torch

from interp.models.glyph_encoders import load_encoder
from interp.pretrain.judging import diagnosis
from interp.pretrain.training import RECIPES, Recipe, _schedule, pretrain, start, train
from interp.pretrain.views import GlyphViews

SHORT = Recipe(steps=3, batch_size=8, warmup=1, arguments={"d_hidden": 16, "d_out": 8})


@pytest.fixture
def untrained(monkeypatch, tiny_encoder):
    """The loop on a tiny encoder, diagnosed on a few glyphs."""
    loop = "interp.pretrain.training"
    monkeypatch.setattr(f"{loop}.random_encoder", lambda architecture, seed: tiny_encoder(architecture))
    monkeypatch.setattr(f"{loop}.diagnosis", functools.partial(diagnosis, size=32, steps=1))


def _weights(encoder):
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])


def test_equal_recipes_give_equal_weights_and_other_seeds_do_not(untrained, few_glyphs):
    def trained(recipe, noise):
        torch.manual_seed(noise)  # The global generator is not read.
        encoder, objective = start(recipe)
        views = GlyphViews(few_glyphs, degrees=20.0, scale=1.3, shift=4.0, seed=recipe.seed)
        losses = train(encoder, objective, views, recipe)
        assert len(losses) == 1
        return _weights(encoder)

    first = trained(SHORT, 1)
    assert torch.equal(first, trained(SHORT, 2))
    assert not torch.equal(first, trained(dataclasses.replace(SHORT, seed=1), 1))


def test_each_step_draws_anew(untrained, few_glyphs):
    encoder, objective = start(dataclasses.replace(SHORT, objective="simmim", arguments={}))
    seeds, loss = [], objective.loss

    def listening(encoder, batch, generator):
        seeds.append(generator.initial_seed())
        return loss(encoder, batch, generator)

    objective.loss = listening
    views = GlyphViews(few_glyphs, degrees=20.0, scale=1.3, shift=4.0, seed=0)
    train(encoder, objective, views, SHORT)
    train(encoder, objective, views, dataclasses.replace(SHORT, seed=1))
    assert len(set(seeds)) == 6


def test_a_folder_holds_the_encoder_in_half_precision_and_its_recipe(untrained, few_glyphs, tmp_path):
    encoder = pretrain(SHORT, tmp_path / "out", images=few_glyphs, progress=False)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json", "pretraining.json"}
    again = load_encoder(tmp_path / "out")
    torch.testing.assert_close(_weights(again), _weights(encoder).half().float(), rtol=0, atol=0)
    about = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert Recipe(**about["recipe"]) == SHORT
    assert len(about["before"]) == len(about["after"]) == 4  # The encoder and three layers of the head.
    assert about["before"] != about["after"]


def test_a_folder_that_is_there_is_left_alone(tmp_path, few_glyphs):
    with pytest.raises(ValueError, match="that is there already: choose another folder"):
        pretrain(SHORT, tmp_path, images=few_glyphs)


def test_a_failing_disk_leaves_no_folder(untrained, few_glyphs, tmp_path, failing_disk):
    with failing_disk("write", 2), pytest.raises(OSError, match="could not write"):
        pretrain(SHORT, tmp_path / "out", images=few_glyphs, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops(untrained, few_glyphs, tmp_path):
    recipe = dataclasses.replace(SHORT, learning_rate=1e30, steps=20)
    with pytest.raises(FloatingPointError, match=r"the loss is .* lower learning_rate"):
        pretrain(recipe, tmp_path / "out", images=few_glyphs, progress=False)
    assert not (tmp_path / "out").exists()


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe(steps=110, warmup=10)
    factors = [_schedule(step, recipe) for step in range(110)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[109] == pytest.approx(0, abs=1e-3)


def test_the_diagnosis_sees_collapse(untrained, few_glyphs):
    encoder, objective = start(SHORT)
    views = GlyphViews(few_glyphs, degrees=0.0, scale=1.0, shift=0.0, seed=0)
    healthy = diagnosis(encoder, objective, views, size=16, steps=4)
    with torch.no_grad():
        for parameter in encoder.model.encoder.stages[-1].parameters():
            parameter.zero_()
    collapsed = diagnosis(encoder, objective, views, size=16, steps=4)
    assert healthy[0]["width"] == 16
    assert 1 < healthy[0]["rankme"] <= 16
    assert collapsed[0]["rankme"] <= 1
    assert collapsed[0]["mean_diagonal"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"objective": "dino"}, "objective is 'dino', but there are barlow_twins,"), ({"steps": 0}, "steps is 0")],
)
def test_wrong_recipes_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**arguments)


def test_recipes_have_the_names_of_their_encoders():
    assert {name: recipe.architecture for name, recipe in RECIPES.items()} == {
        "glyph-resnet": "resnet",
        "glyph-vit": "vit",
    }
