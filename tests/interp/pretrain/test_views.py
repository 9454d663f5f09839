import pytest
import torch

from interp.pretrain.views import GlyphViews, affine, as_input, moved, seeded


@pytest.fixture
def images():
    return torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def _still(degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    return torch.full((3,), degrees), torch.full((3,), scale), torch.tensor([shift] * 3)


def test_no_move_is_the_image_itself(images):
    assert torch.equal(affine(images, *_still()), images)


def test_whole_pixels_shift_right_and_down(images):
    shifted = affine(images, *_still(shift=(3.0, 5.0)))
    torch.testing.assert_close(shifted[..., 5:, 3:], images[..., :-5, :-3])
    assert (shifted[..., :5, :] == 0).all()
    assert (shifted[..., :3] == 0).all()


def test_ninety_degrees_is_a_quarter_turn_counter_clockwise(images):
    torch.testing.assert_close(affine(images, *_still(degrees=90.0)), torch.rot90(images, 1, (2, 3)), atol=1e-4, rtol=0)


def test_twice_as_large_shows_the_middle():
    images = torch.zeros(3, 1, 32, 32)
    images[..., 12:20, 10:22] = 1
    assert affine(images, *_still(scale=2.0)).sum() == pytest.approx(4 * images.sum().item(), rel=0.02)
    places = (affine(images, *_still(scale=2.0))[0, 0] > 0.5).nonzero()
    assert places.amin(dim=0).tolist() == [8, 4]
    assert places.amax(dim=0).tolist() == [23, 27]


def test_the_shift_comes_after_the_turn():
    images = torch.zeros(3, 1, 32, 32)
    images[..., 16, 26] = 1  # Right of the middle; a quarter turn brings it to the top.
    place = affine(images, *_still(degrees=90.0, shift=(4.0, 0.0)))[0, 0].flatten().argmax().item()
    assert divmod(place, 32) == (5, 20)


def test_moves_fill_their_ranges():
    dot = torch.zeros(500, 1, 32, 32)
    dot[:, :, 15:17, 15:17] = 1
    places = moved(dot, 0.0, 1.0, 4.0, seeded(0))
    grid = torch.arange(32) - 15.5
    x = (places * grid).sum(dim=(1, 2, 3)) / 4
    y = (places * grid[:, None]).sum(dim=(1, 2, 3)) / 4
    for shifts in (x, y):
        assert -4 <= shifts.min() < -3.8
        assert 3.8 < shifts.max() <= 4
        assert abs(shifts.mean()) < 0.4


def test_a_batch_is_a_function_of_seed_and_step(few_glyphs):
    def batch(step, seed=0):
        return GlyphViews(few_glyphs, degrees=20.0, scale=1.3, shift=4.0, seed=seed).batch(step, 8, 2)

    assert torch.equal(batch(3), batch(3))
    assert not torch.equal(batch(3), batch(4))
    assert not torch.equal(batch(3), batch(3, seed=1))


def test_views_show_one_code_point_in_different_fonts(few_glyphs):
    views = GlyphViews(few_glyphs, degrees=0.0, scale=1.0, shift=0.0, seed=0)
    points, fonts = few_glyphs.labels("codepoint"), few_glyphs.labels("font")
    images = as_input(few_glyphs.images)
    size = len(set(points))
    seen = set()
    for step in range(5):
        first, second = views.batch(step, size, 2)
        chosen = []
        for a, b in zip(first, second, strict=True):
            pairs = [
                (i, j)
                for i in (images == a).flatten(1).all(dim=1).nonzero()[:, 0].tolist()
                for j in (images == b).flatten(1).all(dim=1).nonzero()[:, 0].tolist()
                if points[i] == points[j] and fonts[i] != fonts[j]
            ]
            assert pairs
            chosen.append(points[pairs[0][0]])
            seen.add(fonts[pairs[0][0]])
        assert len(set(chosen)) == size  # Drawn without replacement.
    assert len(seen) > 5


def test_more_code_points_than_there_are_is_an_error(few_glyphs):
    with pytest.raises(ValueError, match="batch_size is 5000, but there are"):
        GlyphViews(few_glyphs, degrees=0.0, scale=1.0, shift=0.0, seed=0).batch(0, 5000, 2)
