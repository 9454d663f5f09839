import pytest

from interp.sites import Geometry, Site

FRAMES = Geometry("sequence", prefix=1, stride=(320,), patch=(400,), rate=16_000.0)
PATCHES = Geometry("grid", (2, 3), prefix=1, stride=(4, 8), patch=(4, 8), input_size=(8, 24))
# What a ResNet's convolutions do: the patches stand half a stride before those of a plain tiling.
SHIFTED = Geometry("grid", (2, 3), stride=(4, 4), input_size=(8, 12), start=(-2, -2))
VOLUME = Geometry("grid", (2, 3, 4), stride=(2, 2, 2))


def test_a_position_covers_a_part_of_the_input():
    assert FRAMES.span(3) == ((640, 1040),)
    assert FRAMES.seconds(3) == (0.04, 0.065)
    assert PATCHES.span(1) == ((0, 4), (0, 8)) and PATCHES.span(6) == ((4, 8), (16, 24))
    assert SHIFTED.span(0) == ((-2, 2), (-2, 2)) and SHIFTED.span(5) == ((2, 6), (6, 10))
    assert VOLUME.span(23) == ((2, 4), (4, 6), (6, 8))


@pytest.mark.parametrize("geometry", [PATCHES, SHIFTED, VOLUME])
def test_each_point_belongs_to_the_position_that_covers_it(geometry):
    for position in range(geometry.prefix, geometry.positions):
        span = geometry.span(position)
        for point in (tuple(begin for begin, _ in span), tuple(end - 1 for _, end in span)):
            assert geometry.at(*point) == position


def test_points_and_positions_at_the_edges():
    assert [FRAMES.at(sample) for sample in (0, 319, 320, 10_000)] == [1, 1, 2, 32]
    assert PATCHES.at(7, 23) == PATCHES.at(90, 90) == 6
    assert SHIFTED.at(0, 1) == 0 and SHIFTED.at(2, 0) == 3 and SHIFTED.at(7, 11) == 5
    for position in (0, 7):
        with pytest.raises(ValueError, match=rf"position is {position}, but positions 1 to 6 cover"):
            PATCHES.span(position)
    with pytest.raises(ValueError, match=r"position is 0, but positions 1 to \.\.\. cover"):
        FRAMES.span(0)


def test_what_is_not_declared_is_not_guessed():
    for ask in (lambda: Geometry().span(0), lambda: Geometry("grid", (2, 2)).at(0, 0)):
        with pytest.raises(ValueError, match="declare its stride"):
            ask()
    with pytest.raises(ValueError, match="declare a sequence with rate="):
        PATCHES.seconds(1)
    with pytest.raises(ValueError, match=r"point is \(3,\), but this geometry has 2 axes"):
        PATCHES.at(3)


def test_what_is_written_is_read_back():
    assert Geometry.from_json(SHIFTED.to_json()) == SHIFTED
    older = {key: value for key, value in PATCHES.to_json().items() if key not in ("start", "channels", "rate")}
    assert Geometry.from_json(older) == PATCHES


def test_elements_are_counted_from_the_first():
    """One that counts from the end could be read, but edits of it would be passed over in silence."""
    for make in (lambda: Site.parse("rnn@out[-1]"), lambda: Site("rnn", index=-1)):
        with pytest.raises(ValueError, match=r"rnn@out\[-1\]|index is -1"):
            make()
