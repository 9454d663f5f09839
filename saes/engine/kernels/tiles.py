"""How rows are cut into tiles: one rule for the kernels that gather rows of a table.

Programs run with the table's slice of columns outermost, so that a slice is gathered again and again before the next
one is begun: where it fits the L2 cache, only its first reading comes from memory. Counted for an H200, not measured.
"""

from jaxtyping import Float
from torch import Tensor

L2_BYTES = 32 * 2**20  # Of an H200's 60 MB, what is hoped for beside the streams that pass through.
WIDEST, NARROWEST = 512, 128  # Columns. Narrower reads the indices too often, wider takes too many registers.
CHUNK = 256  # Pairs; longer runs are summed in parts, so that no program waits for one that fires in every row.


def width(*tables: Float[Tensor, "_ d"]) -> int:
    """Columns of a tile, a power of two: the widest whose slices of all tables fit the cache and waste no lanes."""
    d, found = tables[0].shape[1], WIDEST
    while found > NARROWEST and (d % found or found * sum(len(t) * t.element_size() for t in tables) > L2_BYTES):
        found //= 2
    return min(found, power_of_two(d))


def pairs(columns: int) -> int:
    """Pairs that a program has in flight: about as many as a feature has in a batch."""
    return 16 if columns <= 64 else 8


def warps(elements: int) -> int:
    """Warps of a program, for 16 elements a thread."""
    return min(max(elements // 512, 1), 16)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n`."""
    return 1 << (n - 1).bit_length()


def cut(n: int, size: int) -> int:
    """Parts of `size` that cover `n`."""
    return -(-n // size)
