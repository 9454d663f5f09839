import errno
import json
import re
from importlib.resources import files

import pytest

from analyses.dashboard import exporting
from analyses.dashboard.exporting import export_page

STATIC = files("analyses.dashboard") / "static"
FILES = ["data/page.js", *(f"data/planted/chunk-000{i}.js" for i in range(3)), "data/planted/table.js"]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name != "page"]


def test_equal_bundles_give_equal_bytes(bundle_path, tmp_path):
    index = export_page([bundle_path], tmp_path / "page")
    assert index == tmp_path / "page" / "index.html"
    found = contents(index.parent)
    assert sorted(found) == sorted([*FILES, "icon.svg", "index.html", "page.json", "reader.css", "reader.js"])
    assert contents(export_page({"planted": bundle_path}, tmp_path / "again").parent) == found


def test_nothing_asks_the_network_and_nothing_runs_inline(signed_path, tmp_path):
    index = export_page([signed_path], tmp_path / "page", title="</title><script>alert(1)</script>")
    text = index.read_text()
    assert "&lt;/title&gt;&lt;script&gt;alert(1)" in text
    assert "script-src 'self' file:;" in text
    assert re.findall(r"<script[^>]*>", text) == ['<script src="reader.js">']
    for name in ("index.html", "reader.js", "reader.css"):
        source = (index.parent / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//\w+\.\w|@import|url\(|fetch\(|XMLHttpRequest|import\(|<script>", source)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(",
        (index.parent / "reader.js").read_text().split("\n", 1)[1],
    )


def test_several_bundles_lie_side_by_side(signed_path, tmp_path):
    index = export_page({"a": signed_path, "b": signed_path}, tmp_path / "page")
    mark = json.loads((index.parent / "page.json").read_text())
    assert mark["bundles"] == [{"name": "a", "features": 20}, {"name": "b", "features": 20}]
    assert (index.parent / "data" / "b" / "chunk-0000.js").read_bytes().startswith(b'unweave.receive("b",0,')


def test_a_new_page_replaces_the_old_one_whole(signed_path, tmp_path):
    export_page([signed_path], tmp_path / "page")
    export_page({"other": signed_path}, tmp_path / "page")
    assert sorted(path.name for path in (tmp_path / "page" / "data").iterdir()) == ["other", "page.js"]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("failing", [1, 3, 5, 6, 7, 8])
def test_a_failing_write_leaves_the_old_page(signed_path, tmp_path, monkeypatch, failing):
    export_page([signed_path], tmp_path / "page", title="old")
    before, real, calls = contents(tmp_path / "page"), exporting.write_bytes, []

    def write(path, data):
        calls.append(path)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "no space")
        return real(path, data)

    monkeypatch.setattr(exporting, "write_bytes", write)
    if failing < 8:
        with pytest.raises(OSError, match="What was there before is untouched"):
            export_page([signed_path], tmp_path / "page", title="new")
        assert contents(tmp_path / "page") == before
    else:  # There are seven files: the eighth write never comes.
        export_page([signed_path], tmp_path / "page", title="new")
        assert len(calls) == 7
        assert contents(tmp_path / "page") != before
    assert not leftovers(tmp_path)


def test_a_kill_between_the_renames_is_healed(signed_path, tmp_path):
    page = export_page([signed_path], tmp_path / "page").parent
    before = contents(page)
    page.rename(tmp_path / "page.previous")
    with pytest.raises(ValueError, match=r"manifest\.json"):
        export_page([tmp_path / "none"], page)
    assert contents(page) == before
    assert not leftovers(tmp_path)


def test_what_is_no_page_is_never_removed(bundle_path, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is no page made here: choose another folder"):
        export_page([bundle_path], tmp_path / "thesis")
    with pytest.raises(ValueError, match=r"the bundle .* lies there: choose another folder"):
        export_page([bundle_path], bundle_path.parent)
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_names_are_folders(bundle_path, tmp_path):
    for name in ("../up", "a/b", "", "a b", ".hidden"):
        with pytest.raises(ValueError, match="a name is made of letters"):
            export_page({name: bundle_path}, tmp_path / "page")
    with pytest.raises(ValueError, match=r"'planted' twice, but names differ: give a mapping"):
        export_page([bundle_path, bundle_path], tmp_path / "page")
    with pytest.raises(ValueError, match="bundles is empty"):
        export_page([], tmp_path / "page")
    with pytest.raises(ValueError, match="takes a list of folders"):
        export_page(str(bundle_path), tmp_path / "page")
    assert not list(tmp_path.iterdir())


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_keeps_wcag_contrast_on_paper_and_on_the_strongest_heat(mode):
    blocks = re.findall(r":root \{([^}]*)\}", STATIC.joinpath("reader.css").read_text())
    colors = dict(re.findall(r"--(\w+): (#\w{6})", blocks[mode]))
    pairs = [(text, ground) for text in ("text", "quiet", "link", "bad") for ground in ("paper", "panel")]
    for text, ground in [*pairs, ("text", "hot"), ("text", "cold"), ("quiet", "chosen"), ("link", "chosen")]:
        light, dark = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_the_page_is_small():
    sizes = {name: len(STATIC.joinpath(name).read_bytes()) for name in ("reader.js", "reader.css", "reader.html")}
    assert sizes["reader.js"] <= 30_500
    assert sum(sizes.values()) <= 46_000
