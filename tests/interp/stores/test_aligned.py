from pathlib import Path
from typing import Any

import pytest
import torch

from interp.harvesting import harvest
from interp.stores import aligned
from interp.stores.appended import appended
from interp.stores.concatenated import concatenated
from interp.stores.disk import DiskStore
from interp.stores.memory import MemoryStore
from interp.stores.paired import paired
from interp.stores.sources import check_row_stores
from interp.types import Activations, Geometry

SITES = ("blocks.0", "blocks.1")


def _store(example: Any, position: Any, d: int = 3, **about: Any) -> MemoryStore:
    example, position = torch.as_tensor(example), torch.as_tensor(position)
    values = torch.randn(len(example), d, generator=torch.Generator().manual_seed(d))
    return MemoryStore(Activations(values, example, position), **about)


def _both(a: Any, b: Any, message: str) -> None:
    """Paired and concatenated refuse in the same words, but for the names of their arguments."""
    with pytest.raises(ValueError, match=message.format(a="store_in", b="store_out")):
        paired(a, b)
    with pytest.raises(ValueError, match=message.format(a=r"stores\[0\]", b=r"stores\[2\]")):
        concatenated([a, a, b])


def test_the_first_address_that_differs_is_named() -> None:
    a = _store([0, 0, 1, 1, 1], [0, 1, 0, 1, 2], site="left")
    _both(
        a,
        _store([0, 0, 1, 1, 1], [0, 1, 0, 2, 3], d=2, site="right"),
        r"{b} \(right\) is not aligned with {a} \(left\): row 3 is example 1, position 2, but example 1, position 1 in "
        r"{a} \(5 and 5 rows\): harvest both sites in one call",
    )
    _both(a, _store([0, 0, 2, 2, 2], [0, 1, 0, 1, 2]), "row 2 is example 2, position 0, but example 1, position 0 in")
    longer = _store([0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 2, 0])
    _both(a, longer, r"row 5 is example 2, position 0, but past the end in {a} \(6 and 5 rows\)")
    _both(longer, a, r"row 5 is past the end, but example 2, position 0 in {a} \(5 and 6 rows\)")


@pytest.mark.parametrize("span", [1, 4, 7, 100])
def test_the_row_is_that_of_a_slow_search(monkeypatch: pytest.MonkeyPatch, span: int) -> None:
    monkeypatch.setattr(aligned, "_SPAN", span)
    generator = torch.Generator().manual_seed(0)
    example = torch.arange(28) // 3
    for row in (0, 3, 4, 6, 7, 13, 27):
        position = torch.randint(0, 5, (28,), generator=generator)
        other = position.clone()
        other[row:] += torch.randint(0, 2, (28 - row,), generator=generator)
        other[row] = position[row] + 1
        first = next(i for i in range(28) if position[i] != other[i])
        _both(_store(example, position), _store(example, other), rf"row {first} is example {int(example[first])}, ")
        paired(_store(example, other), _store(example, other.clone(), d=5))


def test_other_sources_are_refused() -> None:
    def made(**provenance: Any) -> MemoryStore:
        return _store([0, 1], [0, 0], provenance=provenance)

    known = made(model={"name": "m", "fingerprint": "1" * 64}, dataset={"name": "d", "fingerprint": "2"})
    other = {"name": "m2", "fingerprint": "9" * 64}
    _both(known, made(model=other), r"{b} was harvested with model m2 \(9{{12}}\), but {a} with m \(1{{12}}\): harvest")
    _both(known, made(dataset=other), r"{b} was harvested with dataset m2 .* with d \(2\): harvest")
    paired(known, made(model={"name": "a copy of m", "fingerprint": "1" * 64}))
    paired(known, made())  # Rows made by hand say nothing of a model.
    grid = Geometry(kind="grid", grid=(1, 2))
    _both(known, _store([0, 1], [0, 0], geometry=grid), r"{b} has Geometry\(kind='grid'.* take sites that agree")
    with pytest.raises(ValueError, match="stores are none, but rows are taken by number"):
        concatenated([])
    with pytest.raises(ValueError, match="stores are MemoryStore, str, but rows are taken by number: give stores in"):
        check_row_stores([known, "store"])


def test_harvests_of_other_rows_are_refused(tiny_text: Any, sentences: Any, tmp_path: Path) -> None:
    kept = harvest(tiny_text, sentences(12), SITES, tmp_path / "kept", rows_per_shard=40)
    less = harvest(tiny_text, sentences(12), SITES, tmp_path / "less", rows_per_shard=40, first="drop")
    _both(
        *(kept[tiny_text.site("blocks.0")], less[tiny_text.site("blocks.1")]),
        r"row 0 is example 0, position 1, but example 0, position 0 in {a}",
    )
    other = harvest(tiny_text, sentences(12, seed=1), SITES, tmp_path / "other")
    _both(next(iter(kept.values())), next(iter(other.values())), "{b} was harvested with dataset list")


def test_one_harvest_is_known_by_its_hashes(
    tiny_text: Any, sentences: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows in (("a", 40), ("b", 64), ("more", 40)):
        harvest(tiny_text, sentences(20, seed=int(name == "more")), SITES, tmp_path / name, rows_per_shard=rows)
    read: list[str] = []
    real = DiskStore._read
    monkeypatch.setattr(DiskStore, "_read", lambda self, number, name: read.append(name) or real(self, number, name))
    a, b, more = ([DiskStore(tmp_path / name, site) for site in SITES] for name in ("a", "b", "more"))
    paired(*a)
    concatenated([concatenated(a), paired(*a)])
    assert read == []
    paired(a[0], b[1])  # Other files, the same addresses.
    assert set(read) == {"address"}
    ends = [appended([ours, theirs]) for ours, theirs in zip(a, more, strict=True)]
    read.clear()
    paired(*ends)
    assert read == []
