import contextlib
import importlib.util
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from interp.capturing import capture
from interp.harvesting import harvest
from interp.preprocessing import Preprocessing
from interp.stores.disk import DiskStore
from interp.types import Inputs, Site

ROOT = Path(__file__).parents[2]
SITES = ["blocks.0", "blocks.1"]
SMALL: dict[str, Any] = {"labels": ["class"], "dtype": "float32", "chunk_examples": 8, "rows_per_shard": 40}


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_vision", ROOT / "tests/tiny_vision.py")
    module = sys.modules["tiny_vision"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tiny: ModuleType) -> Any:
    return tiny.TinyVision()


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _all(store: Any) -> torch.Tensor:
    return store.span(0, len(store)).values


def test_rows_are_those_of_the_model_without_its_class_token(model: Any, tiny: ModuleType, tmp_path: Path) -> None:
    items = tiny.pictures(20, corrupt=False)
    stores = harvest(model, items, SITES, tmp_path / "h", **SMALL)
    for name in SITES:
        store = stores[Site.parse(name)]
        for index, item in enumerate(items):
            rows = store.example(index)
            alone = capture(model, model.collate([item["image"]]), [name]).rows(name)
            assert rows.position.tolist() == list(range(1, 16))
            torch.testing.assert_close(rows.values, alone.values[1:])
            assert store.items[index].labels == {"class": item["class"]}
    provenance = stores[Site("blocks.0")].provenance
    assert provenance["counts"]["prefix"] == 20
    assert provenance["policy"]["exclude"] == ["prefix"]
    assert Preprocessing.from_json(provenance["policy"]["images"]["preprocessing"]) == model.preprocessing
    (whole,) = harvest(model, items, "blocks.0", exclude=(), **SMALL).values()
    assert whole.example(3).position.tolist() == list(range(16))
    (later,) = harvest(model, items, "blocks.0", exclude=(), first="drop", **SMALL).values()
    assert torch.equal(_all(later), _all(stores[Site("blocks.0")]))


def test_a_patch_is_found_at_its_place(model: Any) -> None:
    """A bright patch in row 1, column 3 changes the rows of position 1 + 1 * 5 + 3 most."""
    dark = np.zeros((12, 20), np.uint8)
    bright = dark.copy()
    bright[4:8, 12:16] = 255
    (store,) = harvest(model, [dark, bright], "blocks.0", dtype="float32").values()
    moved = (store.example(0).values - store.example(1).values).norm(dim=1)
    assert int(store.example(1).position[moved.argmax()]) == 9
    (patches,) = harvest(model, [dark, bright], "embed", dtype="float32").values()
    moved = (patches.example(0).values - patches.example(1).values).norm(dim=1)
    assert moved.nonzero().flatten().tolist() == [8]


def test_every_kind_of_dataset_gives_the_same_rows(model: Any, tiny: ModuleType, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    items = tiny.pictures(10, corrupt=False)
    files = [tmp_path / f"{number:02d}.png" for number in range(10)]
    for file, item in zip(files, items, strict=True):
        file.write_bytes(item["image"]["bytes"])
    opened = [Image.open(io.BytesIO(item["image"]["bytes"])) for item in items]
    table = datasets.Dataset.from_list(
        items, features=datasets.Features({"image": datasets.Image(), "class": datasets.Value("string")})
    )
    from interp.data.images import images

    kinds = {
        "mappings": items,
        "pictures": opened,
        "arrays": [np.array(picture) for picture in opened],
        "paths": files,
        "bytes": [item["image"] for item in items],
        "bytes alone": [{"bytes": item["image"]["bytes"]} for item in items],
        "generator": (item for item in items),
        "table": table,
        "stream": table.to_iterable_dataset(),
        "folder": images(tmp_path),
    }
    found = {name: harvest(model, dataset, "blocks.1", dtype="float32") for name, dataset in kinds.items()}
    for name, stores in found.items():
        assert torch.equal(_all(stores[Site("blocks.1")]), _all(found["mappings"][Site("blocks.1")])), name


def test_a_picture_that_cannot_be_read_ends_the_harvest_or_is_skipped(
    model: Any, tiny: ModuleType, tmp_path: Path
) -> None:
    items, path = tiny.pictures(30), tmp_path / "h"
    good = [item if number % 7 != 3 else tiny.pictures(1)[0] for number, item in enumerate(items[:17])]
    with pytest.raises(ValueError, match=r"item 17 \(17\.png\) cannot be read as a picture: .*pass on_error='skip'"):
        harvest(model, [*good, *items[17:]], SITES, path, **SMALL)
    assert len(json.loads((tmp_path / "h.partial/progress.json").read_bytes())["shards"]) == 5
    stamp = (tmp_path / "h.partial/address-00000.safetensors").stat().st_mtime_ns
    stores = harvest(model, [*good, *items[17:]], SITES, path, on_error="skip", **SMALL)
    assert (path / "address-00000.safetensors").stat().st_mtime_ns == stamp
    harvest(model, [*good, *items[17:]], SITES, tmp_path / "whole", on_error="skip", **SMALL)
    assert _bytes(path) == _bytes(tmp_path / "whole")
    store = stores[Site("blocks.1")]
    assert [len(store.example(i)) for i in range(30)] == [0 if i in (17, 24) else 15 for i in range(30)]
    assert store.items[24].labels == {"class": items[24]["class"]}
    skipped = store.provenance["counts"]["skipped"]
    assert [(entry["item"], entry["file"]) for entry in skipped] == [(17, "17.png"), (24, "24.png")]
    assert "truncated" in skipped[0]["reason"]
    assert store.provenance["counts"]["empty"] == 0
    with pytest.raises(ValueError, match="none of 2 items could be read, the first because of: .*truncated"):
        harvest(model, [items[17], items[24]], "blocks.0", on_error="skip")


def test_broken_pictures_of_every_form_are_skipped(model: Any, tiny: ModuleType, tmp_path: Path) -> None:
    good, broken = (tiny.pictures(4)[i]["image"]["bytes"] for i in (0, 3))
    items = [good, Image.open(io.BytesIO(broken)), "a text, no path " * 30, Image.new("L", (0, 5))]
    (store,) = harvest(model, [{"image": item} for item in items], "blocks.0", on_error="skip").values()
    assert [entry["item"] for entry in store.provenance["counts"]["skipped"]] == [1, 2, 3]


def test_a_palette_is_part_of_a_picture(model: Any) -> None:
    fingerprints = set()
    for shade in (10, 200):
        picture = Image.new("P", (20, 12))
        picture.putpalette([shade] * 768)
        (store,) = harvest(model, [picture], "blocks.0").values()
        fingerprints.add(store.provenance["dataset"]["fingerprint"])
    assert len(fingerprints) == 2


def test_what_is_not_read_cannot_end_a_harvest(model: Any, tiny: ModuleType) -> None:
    (store,) = harvest(model, tiny.pictures(8), "blocks.0", max_tokens=3 * 16).values()
    assert len(store.items) == 3


def test_thumbnails_show_what_the_model_saw(model: Any, tiny: ModuleType, tmp_path: Path) -> None:
    items = tiny.pictures(9)
    (kept,) = harvest(model, items, "blocks.0", on_error="skip", **SMALL).values()
    (store,) = harvest(model, items, "blocks.0", tmp_path / "h", on_error="skip", **SMALL).values()
    for index, item in enumerate(items):
        if index == 3:
            assert store.items[index].image is None
            continue
        seen = model.preprocessing.fitted(item["image"]).pixels
        assert seen.shape == (12, 20, 1)
        assert torch.equal(store.items[index].image, seen)
        assert torch.equal(kept.items[index].image, seen)
    (small,) = harvest(model, items, "blocks.0", tmp_path / "s", on_error="skip", thumbnails=10, **SMALL).values()
    assert small.items[0].image.shape == (6, 10, 1)
    (none,) = harvest(model, items, "blocks.0", tmp_path / "n", on_error="skip", thumbnails=0, **SMALL).values()
    assert none.items[0].image is None
    assert torch.equal(_all(none), _all(store))


def test_another_preprocessing_is_another_request(model: Any, tiny: ModuleType, tmp_path: Path) -> None:
    items = tiny.pictures(5, corrupt=False)
    harvest(model, items, "blocks.0", tmp_path / "h", **SMALL)
    model.preprocessing = Preprocessing((12, 20), mode="L", resize=(12, 20), mean=(0.4,), std=(0.3,))
    with pytest.raises(ValueError, match=r"policy\.images\.preprocessing\.crop was True, is False"):
        harvest(model, items, "blocks.0", tmp_path / "h", **SMALL)


def _flipped(items: list[Any]) -> Inputs:
    return Inputs(
        {"pixel_values": torch.stack([torch.from_numpy(item["image"]).flip(-1)[None] / 255 for item in items])}
    )


def test_a_collate_of_ones_own_goes_before_the_preprocessing(model: Any) -> None:
    items = [{"image": np.full((12, 20), value, np.uint8)} for value in (10, 200)]
    (store,) = harvest(model, items, "blocks.0", collate=_flipped, dtype="float32").values()
    expected = capture(model, _flipped(items), ["blocks.0"]).rows("blocks.0").values
    torch.testing.assert_close(_all(store), expected)  # with the class token: what is excluded is asked for
    assert "images" not in store.provenance["policy"]
    (inner,) = harvest(model, items, "blocks.0", collate=_flipped, exclude=("prefix",), dtype="float32").values()
    torch.testing.assert_close(inner.example(1).values, expected[17:])


def test_sites_of_other_positions_and_pooled_ones(model: Any, tiny: ModuleType) -> None:
    items = tiny.pictures(3, corrupt=False)
    with pytest.raises(ValueError, match=r"blocks\.0 has other positions than embed.*two folders"):
        harvest(model, items, ["embed", "blocks.0"])
    (pooled,) = harvest(model, items, "head").values()
    assert [len(pooled.example(i)) for i in range(3)] == [1, 1, 1]


def test_labels_of_glyphs_come_along(model: Any) -> None:
    from interp.data.glyphs import glyphs

    rows = glyphs("train")[:12]
    (store,) = harvest(model, rows, "blocks.0", labels=["category", "font"]).values()
    assert [item.labels["font"] for item in store.items] == rows.labels("font")
    assert store.provenance["dataset"]["name"] == "glyphs train"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "picture"}, "image is 'picture', but item 0 has the columns image, class: name the one"),
        ({"labels": ["kind"]}, r"labels has \['kind'\], but item 0 has the columns image, class"),
        ({"thumbnails": -1}, "thumbnails is -1, but it is pixels a side: give 0 for none"),
        ({"exclude": ("register",)}, r"exclude has \['register'\], but special tokens are called .*prefix"),
    ],
)
def test_arguments_are_checked(model: Any, tiny: ModuleType, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        harvest(model, tiny.pictures(2), "blocks.0", **options)


def test_what_to_do_on_an_error_is_checked(model: Any, tiny: ModuleType) -> None:
    with pytest.raises(Exception, match="'ignore'"):  # By the shape checker when it is on, by us when it is off.
        harvest(model, tiny.pictures(2), "blocks.0", on_error="ignore")  # type: ignore[call-overload]


def test_an_estimate_counts_thumbnails(model: Any, tiny: ModuleType, tmp_path: Path) -> None:
    items = tiny.pictures(200, corrupt=False)
    plan = harvest(model, items, SITES, tmp_path / "h", dry_run=True)
    harvest(model, items, SITES, tmp_path / "h")
    size = sum(file.stat().st_size for file in (tmp_path / "h").rglob("*.safetensors"))
    assert plan.rows == len(DiskStore(tmp_path / "h", "blocks.0")) == 3000
    assert 0.8 < plan.bytes / size < 1.25


def test_a_kill_between_any_two_files(
    model: Any, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of the list of what was skipped: it is as it would be without the kill."""

    class Killed(BaseException):
        pass

    items, options = tiny.pictures(24), SMALL | {"on_error": "skip", "rows_per_shard": 110}
    harvest(model, items, "blocks.0", tmp_path / "whole", **options)
    whole, real = _bytes(tmp_path / "whole"), os.replace
    assert len(json.loads(whole["manifest.json"])["counts"]["skipped"]) == 3
    for after in range(len(whole)):
        calls = itertools.count()

        def replace(a: Path, b: Path, calls: Any = calls, after: int = after) -> None:
            if next(calls) >= after:
                raise Killed
            real(a, b)

        with monkeypatch.context() as patch:
            patch.setattr("interp.durability.os.replace", replace)
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up
            with pytest.raises(Killed):
                harvest(model, items, "blocks.0", tmp_path / f"{after}", **options)
        harvest(model, items, "blocks.0", tmp_path / f"{after}", **options)
        assert _bytes(tmp_path / f"{after}") == whole


# Imports once, then forks a process for every line of input; writes are slow, so that kills fall inside files.
_SERVER = """
import importlib.util, json, os, sys, time
root, sites, options = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, root)
spec = importlib.util.spec_from_file_location("tiny_vision", root + "/tests/tiny_vision.py")
tiny = sys.modules["tiny_vision"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
import torch
import interp.stores.disk
from interp import durability
from interp.harvesting import harvest
torch.set_num_threads(1)
class Slow:
    def __getattr__(self, name): return getattr(os, name)
    def write(self, fd, data):
        time.sleep(0.002)
        return os.write(fd, data[: max(1, len(data) // 2)])
durability.os = Slow()
print(0, flush=True)
for path in sys.stdin:
    child = os.fork()
    if not child:
        try:
            harvest(tiny.TinyVision(), tiny.pictures(24), sites, path.strip(), **options)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_kills_at_random_moments_leave_no_trace(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _SERVER, str(ROOT), json.dumps(SITES), json.dumps(SMALL | {"on_error": "skip"})]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, env=environment, text=True, bufsize=1) as server:
        read = lambda: int(server.stdout.readline())  # noqa: E731
        try:
            read()  # it has imported all it needs
            start = time.perf_counter()
            print(tmp_path / "whole", file=server.stdin)
            assert (read(), read())[1] == 0
            duration, killed, rng = time.perf_counter() - start, 0, random.Random(0)
            for _ in range(3):
                print(tmp_path / "killed", file=server.stdin)
                process = read()
                time.sleep(duration * rng.uniform(0.05, 0.5))  # what a later one finds done makes it shorter
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(process, signal.SIGKILL)
                killed += read() == signal.SIGKILL
            print(tmp_path / "killed", file=server.stdin)
            assert (read(), read())[1] == 0
        finally:
            server.kill()
    assert killed > 0
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["killed", "whole"]
