import pytest
import torch

from interp.pretrain.simmim import SimMIM, masked_l1, random_mask


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_loss_sees_masked_pixels_only():
    images, painted = torch.rand(2, 1, 8, 8, generator=_generator(0)), torch.rand(2, 1, 8, 8, generator=_generator(1))
    mask = random_mask(2, 4, 0.6, _generator()).repeat_interleave(2, 2).repeat_interleave(2, 3)
    painted.requires_grad_()
    loss = masked_l1(painted, images, mask)
    loss.backward()
    expected = sum(abs(p - i) for p, i, m in zip(painted.flatten(), images.flatten(), mask.flatten(), strict=True) if m)
    torch.testing.assert_close(loss, expected / mask.sum())
    assert (painted.grad[~mask] == 0).all()
    assert (painted.grad[mask] != 0).all()
    other = torch.where(mask, painted, painted + 5)
    assert torch.equal(masked_l1(other, images, mask), loss)


def test_the_encoder_does_not_see_what_it_paints(tiny_encoder):
    """Masked pixels may change as they will: what is painted stays the same, and only the target moves."""

    encoder, seen = tiny_encoder("vit").eval(), []
    encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    objective = SimMIM(encoder)
    batch = torch.rand(1, 3, 1, 32, 32, generator=_generator())
    mask = random_mask(3, 8, 0.6, _generator(7)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    loss = objective.loss(encoder, batch, _generator(7))
    assert (seen[0][mask] == 0).all()  # The token starts at 0.
    assert torch.equal(seen[0][~mask], batch[0][~mask])
    other = objective.loss(encoder, torch.where(mask, 1 - batch, batch), _generator(7))
    assert torch.equal(seen[0], seen[1])
    assert other != loss


def test_each_image_has_the_same_number_of_masked_patches():
    mask = random_mask(50, 8, 0.6, _generator())
    assert (mask.flatten(1).sum(dim=1) == round(0.6 * 64)).all()
    shares = mask.float().mean(dim=0)
    assert (shares > 0.3).all()  # No patch is left out: 50 draws of 0.6.
    assert (shares < 0.9).all()
    assert len({tuple(row) for row in mask.flatten(1).tolist()}) == 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"ratio": 1.0}, "ratio is 1.0, but some patches"), ({"patch": 5}, "patch is 5, but patches tile 32 pixels")],
)
def test_wrong_arguments_are_named(tiny_encoder, arguments, said):
    with pytest.raises(ValueError, match=said):
        SimMIM(tiny_encoder(), **arguments)
