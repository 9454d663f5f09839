import torch

from analyses.dictionary.mapper import pooled
from interp.types import Geometry


def test_cells_are_added_up_and_cover_what_they_did():
    maps = torch.randn(2, 7, 5, dtype=torch.float64)
    geometry = Geometry("grid", (7, 5), stride=(4, 2), patch=(4, 3), input_size=(28, 10), start=(0, -1))
    found, own = pooled(maps, geometry, 3)
    slowly = torch.zeros(2, 3, 3, dtype=torch.float64)
    for row in range(7):
        for column in range(5):
            slowly[:, row // 3, column // 2] += maps[:, row, column]
    torch.testing.assert_close(found, slowly)
    assert (own.grid, own.stride, own.input_size, own.start) == ((3, 3), (12, 4), (28, 10), (0, -1))
    assert pooled(maps, geometry, 7) == (maps, geometry)


def test_sequences_keep_their_positions():
    maps = torch.randn(2, 90)
    assert pooled(maps, Geometry(), 32)[0] is maps
