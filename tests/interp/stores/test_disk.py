import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.harvesting import harvest
from interp.stores.disk import DiskStore, open_stores
from interp.stores.items import pack_items, unpack_item
from interp.types import ActivationStore, Item

SITES = ("blocks.0", "blocks.1")
OPTIONS = {"labels": ("kind",), "chunk_examples": 16, "rows_per_shard": 100}


@pytest.fixture
def folder(tmp_path: Path, tiny_text: Any, sentences: Any) -> Path:
    harvest(tiny_text, sentences(60), SITES, tmp_path / "store", loss="next_token", **OPTIONS)
    return tmp_path / "store"


@pytest.fixture
def memory(tiny_text: Any, sentences: Any) -> Any:
    return harvest(tiny_text, sentences(60), SITES, loss="next_token", **OPTIONS)


def _equal(a: Any, b: Any) -> bool:
    names = ("values", "example", "position", "grads")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def test_disk_and_memory_give_identical_batches(folder: Path, memory: Any) -> None:
    for site, store in open_stores(folder).items():
        twin = memory[site]
        assert isinstance(store, ActivationStore)
        assert len(store) == len(twin) > 300
        for seed in (None, 0, 1):
            pairs = zip(store.batches(64, seed=seed, epochs=2), twin.batches(64, seed=seed, epochs=2), strict=True)
            assert all(_equal(a, b) for a, b in pairs)
        late = next(store.batches(64, seed=1, start_step=9))
        assert _equal(late, next(twin.batches(64, seed=1, start_step=9)))


def test_examples_and_items_match_memory(folder: Path, memory: Any) -> None:
    for site, store in open_stores(folder).items():
        assert len(store.items) == len(memory[site].items) == 60
        for index in range(60):
            assert _equal(store.example(index), memory[site].example(index))
            mine, other = store.items[index], memory[site].items[index]
            assert torch.equal(mine.tokens, other.tokens)
            assert (mine.pieces, mine.labels) == (other.pieces, other.labels)
            assert len(store.example(index)) == len(mine.tokens)
    assert [item.labels["kind"] for item in store.items[3:6]] == ["kind 0", "kind 1", "kind 2"]
    with pytest.raises(IndexError, match="item is 60, but the store holds items 0 to 59"):
        store.items[60]


def test_rows_come_in_the_order_asked(folder: Path) -> None:
    store = DiskStore(folder, "blocks.0")
    everything = store.span(0, len(store))
    numbers = torch.tensor([len(store) - 1, 0, 250, 250, 99, 100, 101])
    assert _equal(store.rows(numbers), everything[numbers])
    assert len(store.rows(torch.zeros(0, dtype=torch.long))) == 0
    with pytest.raises(IndexError, match=f"there are {len(store)}"):
        store.rows(torch.tensor([len(store)]))


def test_stored_dtype_is_converted(folder: Path) -> None:
    half = DiskStore(folder, "blocks.0", dtype=torch.bfloat16).span(0, 10).values
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.float(), DiskStore(folder, "blocks.0").span(0, 10).values)


def test_writing_to_a_batch_does_not_reach_the_store(folder: Path) -> None:
    store = DiskStore(folder, "blocks.0", dtype=torch.bfloat16)
    before = store.span(0, 10).values.clone()
    store.span(0, 10).values.zero_()
    store.rows(torch.arange(10)).values.zero_()
    assert torch.equal(store.span(0, 10).values, before)
    store.verify()


def test_many_shards_hold_no_descriptors(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a Path would open one more
    store = DiskStore(folder, "blocks.0")
    kept = [store.rows(torch.randperm(len(store))) for _ in range(3)]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert len(kept) == 3


def test_a_shard_is_mapped_once(folder: Path) -> None:
    """A new mapping would find each page anew."""

    def mapped() -> list[str]:
        return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]

    store = DiskStore(folder, "blocks.0")
    store.rows(torch.randperm(len(store)))
    first = mapped()
    for _ in range(3):
        kept = store.rows(torch.randperm(len(store)))
    assert len(kept) == len(store)
    assert len(mapped()) == len(first) == 2 * len(list(folder.glob("address-*")))  # Addresses and values.


def test_fingerprint_names_the_rows_of_one_site(folder: Path, tmp_path: Path, tiny_text: Any, sentences: Any) -> None:
    a, b = open_stores(folder).values()
    assert a.fingerprint != b.fingerprint
    again = harvest(tiny_text, sentences(60), SITES, tmp_path / "again", loss="next_token", **OPTIONS)
    assert [store.fingerprint for store in again.values()] == [a.fingerprint, b.fingerprint]
    other = harvest(tiny_text, sentences(60, seed=1), SITES, tmp_path / "other", loss="next_token", **OPTIONS)
    assert a.fingerprint != next(iter(other.values())).fingerprint


def test_provenance_says_where_rows_come_from(folder: Path, memory: Any) -> None:
    for site, store in open_stores(folder).items():
        assert store.provenance == memory[site].provenance
        assert store.provenance["model"]["name"] == "tiny-text"
        assert str(folder) not in json.dumps(store.provenance)


def test_a_folder_of_several_sites_asks_which(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"site is not given, but .* holds blocks\.0, blocks\.1: give one"):
        DiskStore(folder)
    with pytest.raises(ValueError, match=r"site is 'blocks\.7', but"):
        DiskStore(folder, "blocks.7")


def test_a_cut_file_is_found_when_opened(folder: Path) -> None:
    file = folder / "blocks.0/values-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"values-00001.* holds \d+ bytes, but the manifest says \d+: the file was cut"
    ):
        DiskStore(folder, "blocks.0")
    assert len(DiskStore(folder, "blocks.1")) > 0


def test_an_edited_file_is_found_when_read(folder: Path) -> None:
    file = folder / "blocks.0/values-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    store = DiskStore(folder, "blocks.0")
    store.span(0, 50)  # the first shard is as it was
    with pytest.raises(ValueError, match=r"values-00001.* its content was changed"):
        store.span(100, 110)
    with pytest.raises(ValueError, match="its content was changed"):
        store.verify()
    DiskStore(folder, "blocks.0", check=False).span(100, 110)


def test_a_broken_header_is_found_when_opened(folder: Path) -> None:
    file = folder / "address-00000.safetensors"
    data = bytearray(file.read_bytes())
    for broken in (b"\xff" * 8 + data[8:], data[:8] + b"{" * 20 + data[28:], data.replace(b'"I32"', b'"I64"')):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"address-00000.* its header does not fit"):
            DiskStore(folder, "blocks.0")


def test_a_missing_file_is_found_when_opened(folder: Path) -> None:
    (folder / "items-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"items-00002\.safetensors is missing, but the manifest lists it"):
        DiskStore(folder, "blocks.0")


def test_manifests_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        DiskStore(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"it has no manifest\.json"):
        DiskStore(tmp_path / "empty")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    stray = [manifest["sites"][0] | {"folder": "../elsewhere"}]
    for change, message in (
        ({"version": 99}, "is of format version 99, but this unweave reads 1"),
        ({"kind": "other"}, "is of kind 'other'"),
        ({"sites": stray}, r"is damaged .*\.\./elsewhere"),
    ):
        (folder / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ValueError, match=message):
            DiskStore(folder, "blocks.0")
    (folder / "manifest.json").write_bytes(b'{"version": ')
    with pytest.raises(ValueError, match="is not JSON"):
        DiskStore(folder, "blocks.0")


def test_an_unfinished_harvest_says_so(folder: Path) -> None:
    folder.rename(folder.with_name("store.partial"))
    with pytest.raises(ValueError, match=r"is not finished .* run the same command again"):
        DiskStore(folder)


def test_items_survive_packing() -> None:
    items = [
        Item(torch.tensor([5, 6]), ("caf\u00e9", " \U0001f600\udcff"), {"kind": "\u4e2d", "font": ""}),
        Item(torch.zeros(0, dtype=torch.long)),
        Item(torch.tensor([7]), ("",), {}),
    ]
    packed = pack_items(items)
    for index, item in enumerate(items):
        found = unpack_item(packed, index)
        assert torch.equal(found.tokens, item.tokens)
        assert (found.pieces, found.labels) == (item.pieces, item.labels)
    pictures = pack_items([Item(labels={"font": "x"}), Item()])
    assert unpack_item(pictures, 0) == Item(labels={"font": "x"})
    assert unpack_item(pictures, 1) == Item()
