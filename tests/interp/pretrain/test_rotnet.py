import torch

from interp.pretrain.rotnet import rotations


def _images():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_quarter_turn_is_counter_clockwise_and_labels_count_them():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 0, 2] = 1  # Top right goes to the top left, then down the left side, then right.
    copies, turns = rotations(image)
    assert turns.tolist() == [0, 1, 2, 3]
    assert [tuple(copy[0].nonzero()[0].tolist()) for copy in copies] == [(0, 2), (0, 0), (2, 0), (2, 2)]


def test_turns_add_up_modulo_four():
    images = _images()
    copies, turns = rotations(images)
    for copy, a in zip(copies.split(3), turns[::3].tolist(), strict=True):
        again, more = rotations(copy)
        for twice, b in zip(again.split(3), more[::3].tolist(), strict=True):
            assert torch.equal(twice, copies[3 * ((a + b) % 4) : 3 * ((a + b) % 4) + 3])


def test_copies_follow_one_another_with_one_label_each():
    images = _images()
    copies, turns = rotations(images)
    assert torch.equal(copies[:3], images)
    assert turns.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
