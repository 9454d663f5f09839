import pytest
import torch

from interp.stores.gathering import gathered, taken
from interp.types import Activations


def _rows(n: int, first: int = 0, *, grads: bool = False, dtype: torch.dtype = torch.float32) -> Activations:
    values = torch.randn(n, 3, generator=torch.Generator().manual_seed(first)).to(dtype)
    number = torch.arange(first, first + n)
    return Activations(values, number, number + 100, values + 1 if grads else None, None if grads else values[:, :2])


def _equal(a: Activations, b: Activations) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("values", "example", "position", "grads", "target")]
    return all(x is y if x is None or y is None else torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


@pytest.mark.parametrize("grads", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_those_that_indexing_gives(grads: bool, dtype: torch.dtype) -> None:
    rows = _rows(20, grads=grads, dtype=dtype)
    for numbers in (torch.tensor([3, 3, 0, 19]), torch.zeros(0, dtype=torch.long), torch.randperm(20)):
        assert _equal(taken(rows, numbers), rows[numbers])


@pytest.mark.parametrize("grads", [False, True])
def test_rows_of_several_parts_are_those_of_the_parts_in_one(grads: bool) -> None:
    """With memory that is kept: across calls that need more of it and less."""
    parts = [_rows(7, 0, grads=grads), _rows(1, 7, grads=grads), _rows(12, 8, grads=grads)]
    whole = Activations.concatenate(parts)
    room: dict[str, torch.Tensor] = {}
    earlier = []
    for n in (5, 17, 2, 0):
        chosen = [torch.randint(len(part), (n,)) for part in parts]
        chosen[1] = chosen[1][: n // 2]
        order = torch.randperm(sum(map(len, chosen)))
        numbers = torch.cat([which + part.example[0] for which, part in zip(chosen, parts, strict=True)])[order]
        found = gathered(parts, chosen, order, room)
        assert _equal(found, whole[numbers])
        assert _equal(gathered(parts, chosen, order), found)
        earlier.append((found, whole[numbers]))
    assert all(_equal(*pair) for pair in earlier), "a later call reached into what an earlier one gave"


def test_no_row_outside_is_given() -> None:
    with pytest.raises(IndexError):
        taken(_rows(4), torch.tensor([4]))
    with pytest.raises(IndexError):
        gathered([_rows(4)], [torch.tensor([5])], torch.tensor([0]))
