"""What every objective keeps, found by looking into the folder."""

import pytest
import torch

from interp.pretrain.base import objectives
from interp.pretrain.views import GlyphViews, seeded

OBJECTIVES = objectives()


@pytest.fixture
def batch(few_glyphs):
    def make(objective, size=12):
        return GlyphViews(few_glyphs, degrees=15.0, scale=1.2, shift=2.0, seed=0).batch(0, size, objective.views)

    return make


def _made(name, encoder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OBJECTIVES[name](encoder)


def test_each_file_is_found():
    assert OBJECTIVES.keys() >= {"barlow_twins", "simclr", "simmim", "rotnet"}


@pytest.mark.parametrize("architecture", ["resnet", "vit"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_falls_and_reaches_every_parameter(name, architecture, tiny_encoder, batch):
    encoder = tiny_encoder(architecture)
    objective = _made(name, encoder)
    views = batch(objective)
    parameters = [*encoder.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, 5e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = objective.loss(encoder, views, seeded(0))
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 1:
            dead = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
            # A bias of the keys shifts all scores of a query alike, which softmax does not see.
            assert {n for n in dead if "k_proj.bias" not in n} == set()
            assert all(p.grad is not None and p.grad.any() for p in objective.parameters())
        optimizer.step()
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_a_function_of_batch_and_generator(name, tiny_encoder, batch):
    encoder = tiny_encoder()
    objective = _made(name, encoder)
    views = batch(objective)
    before = views.clone()
    torch.manual_seed(1)
    first = objective.loss(encoder, views, seeded(3))
    torch.manual_seed(2)
    assert torch.equal(objective.loss(encoder, views, seeded(3)), first)
    assert torch.equal(views, before)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_collapsed_encoder_keeps_the_loss_and_its_gradient_finite(name, tiny_encoder, batch):
    encoder = tiny_encoder()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    objective = _made(name, encoder)
    loss = objective.loss(encoder, batch(objective), seeded(0))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in [*encoder.parameters(), *objective.parameters()])


# A contrast with the rest of the batch is harder in a larger one.
@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - {"simclr"}))
def test_the_loss_is_a_mean_over_the_batch(name, tiny_encoder, batch):
    encoder = tiny_encoder().eval()
    objective = _made(name, encoder).eval()
    views = batch(objective)
    one = objective.loss(encoder, views, seeded(0)).item()
    two = objective.loss(encoder, torch.cat([views, views], dim=1), seeded(0)).item()
    assert two == pytest.approx(one, rel=0.15)  # SimMIM draws another mask.


@pytest.mark.parametrize("name", OBJECTIVES)
def test_arguments_are_plain_and_make_the_same_objective(name, tiny_encoder):
    encoder = tiny_encoder()
    objective = _made(name, encoder)
    again = OBJECTIVES[name](encoder, **objective.arguments)
    assert again.arguments == objective.arguments
    shapes = {key: value.shape for key, value in objective.state_dict().items()}
    assert shapes == {key: value.shape for key, value in again.state_dict().items()}
