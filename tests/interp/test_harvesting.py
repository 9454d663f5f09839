import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.capturing import capture
from interp.harvest_plan import Plan
from interp.harvest_rows import batches_of
from interp.harvesting import harvest
from interp.models.torch_module import TorchModel
from interp.stores.disk import DiskStore
from interp.types import Geometry, Inputs, Item, Site

SITES = ("blocks.0", "blocks.1")
SMALL = {"chunk_examples": 8, "rows_per_shard": 50}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _alone(model: Any, text: str, site: str) -> torch.Tensor:
    """What the model computes for one text, in a batch of its own."""
    (code,) = model.tokenize([text], 64)
    return capture(model, model.collate([code.tokens]), [site]).rows(site).values


def test_rows_are_what_the_model_computes(tiny_text: Any, sentences: Any, tmp_path: Path) -> None:
    items = sentences(40)
    stores = harvest(tiny_text, items, SITES, tmp_path / "h", dtype="float32", labels=["kind"], **SMALL)
    for name in SITES:
        store = stores[Site.parse(name)]
        for index, item in enumerate(items):
            rows = store.example(index)
            expected = _alone(tiny_text, item["text"], name) if item["text"] else torch.zeros(0, 8)
            torch.testing.assert_close(rows.values, expected)
            assert rows.position.tolist() == list(range(len(expected)))
            assert "".join(store.items[index].pieces).removeprefix("[CLS]").removesuffix("[SEP]") == item["text"]
            assert store.items[index].labels == {"kind": item["kind"]}
    assert store.provenance["counts"]["empty"] == sum(not item["text"] for item in items) > 0


def test_gradients_are_those_of_one_example(tiny_text: Any, sentences: Any) -> None:
    """The gradient at a row is that of its own example's loss, whatever batch it came in."""
    items = [item for item in sentences(12) if item["text"]]
    for loss, score in (
        ("next_token", lambda output, inputs: tiny_text.token_losses(output, inputs).sum()),
        ("embedding_norm", lambda output, inputs: tiny_text.embedding(output, inputs).norm(dim=-1).sum()),
    ):
        store = harvest(tiny_text, items, "blocks.0", dtype="float32", loss=loss)[Site("blocks.0")]
        for index, item in enumerate(items):
            inputs = tiny_text.collate([tiny_text.tokenize([item["text"]], 64)[0].tokens])
            alone = capture(tiny_text, inputs, ["blocks.0"], score=lambda out, i=inputs, s=score: s(out, i))
            torch.testing.assert_close(store.example(index).grads, alone.rows("blocks.0").grads)


def _sum_of_logits(output: torch.Tensor) -> torch.Tensor:
    return output.sum()


def test_a_loss_may_be_a_function(tiny_text: Any) -> None:
    (store,) = harvest(tiny_text, ["a b c"], "blocks.1", dtype="float32", loss=_sum_of_logits).values()
    rows = store.example(0)
    expected = tiny_text.module.head.weight.detach().sum(0) * (1 - rows.values.tanh() ** 2)
    torch.testing.assert_close(rows.grads, expected)
    with pytest.raises(ValueError, match="the manifest needs its name: define it with def"):
        harvest(tiny_text, ["a"], "blocks.1", loss=lambda output: output.sum())
    with pytest.raises(ValueError, match="the named ones are next_token, embedding_norm"):
        harvest(tiny_text, ["a"], "blocks.1", loss="previous_token")


def test_every_kind_of_dataset_gives_the_same_bytes(tiny_text: Any, sentences: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    items = sentences(20)
    table = datasets.Dataset.from_list(items)
    kinds = {
        "texts": [item["text"] for item in items],
        "mappings": items,
        "generator": (item for item in items),
        "table": table,
        "stream": table.to_iterable_dataset(),
    }
    found = {}
    for name, dataset in kinds.items():
        harvest(tiny_text, dataset, SITES, tmp_path / name, **SMALL)
        files = _bytes(tmp_path / name)
        manifest = json.loads(files.pop("manifest.json"))
        manifest["dataset"].pop("name")
        found[name] = files, manifest
    assert all(other == found["texts"] for other in found.values())


def test_token_ids_give_the_rows_of_their_text(tiny_text: Any, sentences: Any) -> None:
    items = [item for item in sentences(10) if item["text"]]
    codes = tiny_text.tokenize([item["text"] for item in items], 64)
    padded = tiny_text.collate([code.tokens for code in codes]).tensors
    by_text = harvest(tiny_text, items, "blocks.0")[Site("blocks.0")]
    for rows in (
        [{"input_ids": code.tokens.tolist()} for code in codes],
        [{"tokens": code.tokens} for code in codes],
        [{"input_ids": i, "attention_mask": m} for i, m in zip(*padded.values(), strict=True)],
    ):
        by_ids = harvest(tiny_text, rows, "blocks.0")[Site("blocks.0")]
        assert torch.equal(by_ids.span(0, len(by_ids)).values, by_text.span(0, len(by_text)).values)
    assert by_ids.items[0].pieces[0] == " 1"


def test_a_stream_is_read_no_further_than_needed(tiny_text: Any) -> None:
    read = itertools.count()

    def endless() -> Iterator[str]:
        while True:
            next(read)
            yield "one two three"

    (store,) = harvest(tiny_text, endless(), "blocks.0", max_tokens=42, chunk_examples=8).values()
    assert len(store.items) == 9  # of 5 tokens each: the ninth reaches 42
    assert next(read) == 16


def test_special_tokens_and_first_positions_are_left_out(tiny_text: Any, sentences: Any) -> None:
    items = sentences(10)
    (whole,) = harvest(tiny_text, items, "blocks.0").values()
    (inner,) = harvest(tiny_text, items, "blocks.0", exclude=("cls", "sep")).values()
    (later,) = harvest(tiny_text, items, "blocks.0", first="drop").values()
    filled = sum(bool(item["text"]) for item in items)
    for index, item in enumerate(items):
        rows = whole.example(index).values
        assert torch.equal(inner.example(index).values, rows[1:-1])
        assert torch.equal(later.example(index).values, rows[1:])
        assert inner.example(index).position.tolist() == list(range(1, len(item["text"].split()) + 1))
    assert inner.provenance["counts"]["excluded"] == 2 * filled
    assert later.provenance["counts"]["first"] == filled


def test_a_pad_token_with_another_meaning_is_kept(tiny_text: Any) -> None:
    """GPT-2's pad is its end of text: leaving out padding must not leave out what ends a text."""
    tiny_text.special_ids = {"pad": {2}, "eos": {2}}
    (kept,) = harvest(tiny_text, ["a b"], "blocks.0").values()
    (left_out,) = harvest(tiny_text, ["a b"], "blocks.0", exclude=("pad", "eos")).values()
    assert (len(kept), len(left_out)) == (4, 3)


def test_rows_of_great_norm_are_left_out_at_all_sites(tiny_text: Any, sentences: Any) -> None:
    items = sentences(30)
    with torch.no_grad():
        tiny_text.module.embed.weight[tiny_text.tokenize(["sparse"], 64)[0].tokens[1]] *= (
            200  # a token that acts as a sink
        )
    options: dict[str, Any] = {"dtype": "float32", "chunk_examples": 8}
    whole = harvest(tiny_text, items, SITES, **options)
    calm = harvest(tiny_text, items, SITES, max_norm_ratio=8.0, **options)
    first_chunk = {site: store.rows(torch.arange(store.example_span(7)[1])) for site, store in whole.items()}
    keep = torch.ones(len(whole[Site("blocks.0")]), dtype=torch.bool)
    for site, store in whole.items():
        median = first_chunk[site].values.norm(dim=1).median()
        outside = store.span(0, len(store)).values.norm(dim=1) > 8 * median
        keep &= ~outside
        assert calm[site].provenance["counts"]["outliers"][str(site)] == int(outside.sum()) > 0
    for site, store in calm.items():
        assert torch.equal(store.span(0, len(store)).values, whole[site].span(0, len(keep)).values[keep])


def test_batches_keep_to_their_budget_and_take_every_item_once() -> None:
    lengths = torch.randint(0, 30, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = batches_of(lengths, 64)
    assert sorted(i for batch in batches for i in batch) == [i for i, length in enumerate(lengths) if length]
    for batch in batches:
        assert len(batch) * max(lengths[i] for i in batch) <= 64 or len(batch) == 1
    assert batches_of([100], 64) == [[0]]
    assert len(batches_of([4] * 32, 64)) == 2


def test_equal_calls_give_equal_bytes_and_a_second_call_changes_nothing(
    tiny_text: Any, sentences: Any, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        harvest(tiny_text, sentences(30), SITES, tmp_path / name, **SMALL)
    before = _bytes(tmp_path / "a")
    assert before == _bytes(tmp_path / "b")
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "a").rglob("*")}
    harvest(tiny_text, sentences(30), SITES, tmp_path / "a", **SMALL)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "a").rglob("*")} == stamps
    rows = [shard["rows"] for shard in json.loads(before["manifest.json"])["shards"]]
    assert set(rows[:-1]) == {50}
    assert 0 < rows[-1] <= 50


def test_items_without_text_at_the_end_are_counted(tiny_text: Any, tmp_path: Path) -> None:
    """Shards end on every possible border, and every item is found again."""
    texts = ["a b", "", "c", " ", "", "d e f", "", ""]
    for rows_per_shard in range(1, 14):
        (store,) = harvest(
            tiny_text,
            texts,
            "blocks.0",
            tmp_path / f"{rows_per_shard}",
            chunk_examples=2,
            rows_per_shard=rows_per_shard,
        ).values()
        assert [len(store.example(i)) for i in range(len(texts))] == [4, 0, 3, 0, 0, 5, 0, 0]
        assert [len(item.tokens) for item in store.items] == [4, 0, 3, 0, 0, 5, 0, 0]


def test_another_request_is_refused_and_named(tiny_text: Any, sentences: Any, tmp_path: Path) -> None:
    path = tmp_path / "h"
    harvest(tiny_text, sentences(20), SITES, path, **SMALL)
    before = _bytes(path)
    with pytest.raises(ValueError, match=r"policy\.max_length was 64, is 16.*overwrite=True"):
        harvest(tiny_text, sentences(20), SITES, path, max_length=16, **SMALL)
    with pytest.raises(ValueError, match=r"sites was \['blocks.0', 'blocks.1'\], is \['blocks.0'\]"):
        harvest(tiny_text, sentences(20), "blocks.0", path, **SMALL)
    with pytest.raises(ValueError, match="another dataset: its first 20 items are not those given now"):
        harvest(tiny_text, sentences(20, seed=1), SITES, path, **SMALL)
    with torch.no_grad():
        tiny_text.module.head.weight += 1
    with pytest.raises(ValueError, match=r"model\.fingerprint was"):
        harvest(tiny_text, sentences(20), SITES, path, **SMALL)
    assert _bytes(path) == before
    harvest(tiny_text, sentences(20, seed=1), SITES, path, overwrite=True, **SMALL)
    harvest(tiny_text, sentences(20, seed=1), SITES, tmp_path / "fresh", **SMALL)
    assert _bytes(path) == _bytes(tmp_path / "fresh")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["fresh", "h"]


def test_what_is_no_harvest_is_never_replaced(tiny_text: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds something that is no harvest"):
            harvest(tiny_text, ["a"], "blocks.0", tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_row_that_is_not_finite_is_named(tiny_text: Any, tmp_path: Path) -> None:
    texts = ["a b c"] * 20
    clean = [*texts, "fine"]
    with torch.no_grad():
        tiny_text.module.embed.weight[tiny_text.tokenize(["broken"], 64)[0].tokens[1]] = float("nan")
    path, options = tmp_path / "h", {"chunk_examples": 4, "rows_per_shard": 16}
    with pytest.raises(ValueError, match=r"blocks\.0 has .* the first at example 20, position 1: look at that item"):
        harvest(tiny_text, [*texts, "broken"], "blocks.0", path, **options)
    done = json.loads((tmp_path / "h.partial/progress.json").read_bytes())
    assert len(done["shards"]) == 6
    stamp = (tmp_path / "h.partial/address-00000.safetensors").stat().st_mtime_ns
    harvest(tiny_text, clean, "blocks.0", path, **options)  # goes on from the last shard
    assert (path / "address-00000.safetensors").stat().st_mtime_ns == stamp
    tiny_text.module.embed.weight.data[:] = 1e5
    with pytest.raises(ValueError, match="NaN or infinity as float16.*choose a wider dtype"):
        harvest(tiny_text, clean, "blocks.0", dtype="float16")


def test_datasets_that_give_nothing(tiny_text: Any, tmp_path: Path) -> None:
    for path in (None, tmp_path / "h"):
        with pytest.raises(ValueError, match="dataset has no items"):
            harvest(tiny_text, [], "blocks.0", path)
        with pytest.raises(ValueError, match="dataset gave no rows: of 2 items 2 were empty"):
            harvest(tiny_text, ["", " "], "blocks.0", path)
    assert not (tmp_path / "h").exists()
    with pytest.raises(ValueError, match="dataset is a str, but a harvest reads items"):
        harvest(tiny_text, "text", "blocks.0")
    with pytest.raises(ValueError, match=r"text is 'text', but item 0 has the columns body: name the one"):
        harvest(tiny_text, [{"body": "a"}], "blocks.0")
    with pytest.raises(ValueError, match="holds a int, but text is needed"):
        harvest(tiny_text, [{"text": 3}], "blocks.0")
    with pytest.raises(ValueError, match=r"labels has \['kind'\], but item 0 has the columns text"):
        harvest(tiny_text, [{"text": "a"}], "blocks.0", labels=["kind"])
    with pytest.raises(ValueError, match="item 0 of the dataset is a int"):
        harvest(tiny_text, [3], "blocks.0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"rows_per_shard": -1}, "rows_per_shard is -1"),
        ({"dtype": "int8"}, "dtype is 'int8', but rows are stored as one of bfloat16"),
        ({"exclude": ("bso",)}, r"exclude has \['bso'\], but special tokens are called"),
        ({"max_norm_ratio": 0.5}, "max_norm_ratio is 0.5"),
        ({"first": "maybe"}, "first"),
    ],
)
def test_arguments_are_checked(tiny_text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        harvest(tiny_text, ["a"], "blocks.0", **options)


def test_an_estimate_writes_nothing(tiny_text: Any, sentences: Any, tmp_path: Path) -> None:
    items = sentences(640)
    plan = harvest(tiny_text, items, SITES, tmp_path / "h", dry_run=True)
    assert isinstance(plan, Plan)
    assert list(tmp_path.iterdir()) == []
    harvest(tiny_text, items, SITES, tmp_path / "h")
    store = DiskStore(tmp_path / "h", "blocks.0")
    size = sum(f.stat().st_size for f in (tmp_path / "h").rglob("*.safetensors"))
    assert 0.8 < plan.rows / len(store) < 1.25
    assert 0.7 < plan.bytes / size < 1.4
    assert plan.minutes > 0
    capped = harvest(tiny_text, items, SITES, dry_run=True, max_tokens=1000)
    assert capped.rows == pytest.approx(1000, rel=0.01)
    assert "give max_tokens" in str(harvest(tiny_text, iter(items), SITES, dry_run=True))


def _stack(pictures: list[torch.Tensor]) -> Inputs:
    return Inputs({"x": torch.stack(pictures)})


def test_images_are_the_same_rows(tmp_path: Path) -> None:
    """Patches of a convolution, against the convolution itself."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 5, 2, 2))
    model = TorchModel(network, geometry=Geometry("grid", (3, 3), 0, (2, 2), (2, 2), (6, 6)))
    pictures = list(torch.randn(10, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
    path = tmp_path / "h"
    (store,) = harvest(model, pictures, "0", path, collate=_stack, dtype="float32", batch_tokens=30, **SMALL).values()
    assert store.geometry.grid == (3, 3)
    for index, picture in enumerate(pictures):
        rows = store.example(index)
        assert rows.position.tolist() == list(range(9))
        torch.testing.assert_close(rows.values, network(picture[None])[0].detach().flatten(1).T)
    assert store.items[3] == Item()
    with pytest.raises(ValueError, match="another dataset"):
        harvest(model, [p + 1 for p in pictures], "0", path, collate=_stack, dtype="float32", batch_tokens=30, **SMALL)
    with pytest.raises(ValueError, match="takes no text: give collate="):
        harvest(model, pictures, "0")


def test_pooled_sites_have_one_row_an_example(tiny_text: Any) -> None:
    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(50, 4), torch.nn.Linear(4, 3)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            weights = attention_mask[:, :, None] / attention_mask.sum(1)[:, None, None]
            return self.head((self.embed(input_ids) * weights).sum(1))

    model = type(tiny_text)()
    TorchModel.__init__(model, Pooled())
    (store,) = harvest(model, ["a b", "", "c"], "head", exclude=("cls",)).values()
    assert [len(store.example(i)) for i in range(3)] == [1, 0, 1]
    with pytest.raises(ValueError, match="head has other positions than embed.*two folders"):
        harvest(model, ["a b"], ["embed", "head"])


def test_a_bar_is_shown_on_a_terminal_only(
    tiny_text: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tqdm")
    harvest(tiny_text, ["a b"], "blocks.0")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    harvest(tiny_text, ["a b"], "blocks.0", progress=False)
    assert capsys.readouterr().err == ""
    harvest(tiny_text, ["a b"], "blocks.0")
    assert "harvest" in capsys.readouterr().err
