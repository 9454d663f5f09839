"""The page in a real browser: what a person sees, presses and may be attacked with."""

import base64
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from analyses.dashboard.exporting import export_page
from analyses.dashboard.packing import PackedBundle, packed, script
from analyses.dictionary.bundle import FeatureDictionary

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,900",
)
BIG = 131_072
MAPPED = ("mapped-texts", "mapped-pictures")


@pytest.fixture(scope="module")
def page(bundle_path, signed_path, grid_path, pictures_path, mapped_paths, tmp_path_factory):
    """A page of six dictionaries and a seventh that is only a table, of 131,072 features, whose chunks are missing."""
    index = export_page(
        [bundle_path, signed_path, grid_path, pictures_path, *mapped_paths.values()],
        tmp_path_factory.mktemp("page") / "page",
        title="<b>Test</b>",
    )
    data = index.parent / "data"
    names = [{"name": name} for name in ("planted", "signed", "grid", "pictures", *MAPPED, "big")]
    (data / "page.js").write_bytes(script("unweave.receive", None, "page", {"bundles": names}))
    (data / "big").mkdir()
    random = np.random.default_rng(0)
    columns = {name: packed(random.random(BIG), "f4") for name in ("density", "max", "mean", "label_score")}
    columns |= {"dead": packed(random.random(BIG) < 0.1, "u1"), "labels": [f"label {i % 977}" for i in range(BIG)]}
    columns["about"] = PackedBundle("big", FeatureDictionary(signed_path)).about()
    (data / "big" / "table.js").write_bytes(script("unweave.receive", "big", "table", columns))
    (data / "big" / "chunk-0001.js").write_text("// cut off")
    return index.as_uri()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        reason = "chromium or chromedriver is missing: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(chromedriver))
    yield driver
    driver.quit()


class Reader:
    """What the tests do to a page."""

    def __init__(self, driver, page):
        self.driver, self.page = driver, page

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def open(self, place=""):
        self.driver.get("about:blank")
        self.driver.get(self.page + place)
        self.settle()

    def settle(
        self, what="!document.querySelector('#feature[aria-busy]') && document.querySelector('#feature h2, .bad')"
    ):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 10, 0.02).until(lambda _: self.js(f"return !!({what})"))

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, 0).send_keys(*keys).perform()
        self.settle()

    def fill(self, name, value):
        self.js(
            "const i=document.getElementById(arguments[0]); i.value=arguments[1]; i.dispatchEvent(new Event('input'))",
            name,
            value,
        )

    def texts(self, selector):
        return self.js("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    @property
    def listed(self):
        return [int(text) for text in self.texts("#rows td.c-feature")]

    @property
    def hash(self):
        return self.js("return location.hash")

    @property
    def heading(self):
        return self.texts("#feature h2 small")[0]

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture
def reader(driver, page):
    reader = Reader(driver, page)
    reader.errors()
    return reader


def test_opens_from_a_file_with_no_request_outside_and_no_error(reader):
    reader.driver.get_log("performance")
    reader.open()
    assert reader.texts("header h1") == ["<b>Test</b>"]
    assert reader.hash == "#planted/0"
    assert reader.heading == "Feature 0"
    assert reader.listed[:20] == list(range(20))
    assert "150 features" in reader.texts("#about")[0]
    reader.press("jjj1k2")
    events = [json.loads(entry["message"])["message"] for entry in reader.driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    folder = reader.page.removesuffix("index.html")
    # Of our page: the browser's own first one may still be loading its parts.
    urls = [request["request"]["url"] for request in sent if request["documentURL"].startswith(folder)]
    assert any(url.endswith("data/planted/chunk-0000.js") for url in urls)
    assert [url for url in urls if not url.startswith(folder)] == []
    assert reader.errors() == []


def test_hostile_text_is_text(reader, bundle_path):
    attack = '</script><img src=x onerror="window.hacked=1">'
    reader.open("#planted/0")
    first = reader.js("return document.querySelector('.example')")
    shown = reader.js(
        "return [arguments[0].querySelector('.window').textContent, arguments[0].querySelector('.meta').textContent]",
        first,
    )
    top = FeatureDictionary(bundle_path).feature(0)[0]
    assert attack in top["tokens"]
    assert shown[0] == "".join(top["tokens"])
    assert f"package: {attack}" in shown[1]
    reader.open("#planted/2")
    assert attack in reader.texts("#feature h2")[0]
    assert attack in reader.texts("#rows td.c-label")
    assert reader.js("return [window.hacked ?? null, document.querySelectorAll('img, main script').length]") == [
        None,
        0,
    ]
    assert reader.errors() == []


def test_heat_is_the_windows_activation_on_one_scale(reader, signed_path):
    reader.open("#signed/3")
    example = FeatureDictionary(signed_path).feature(3)[0]
    tokens = reader.js(
        "return [...document.querySelector('.example').querySelectorAll('.tok')].map((t) => "
        "[t.className, t.style.getPropertyValue('--a'), t.dataset.tip])"
    )
    assert len(tokens) == len(example["window"])
    for place, (name, share, tip) in enumerate(tokens):
        step = example["window"][place] - 128
        assert ("hot" in name, "cold" in name) == (step > 0, step < 0)
        assert share == (f"{100 * abs(step) / 127:.1f}%" if step else "")
        assert ("marked" in name) == (example["start"] + place == example["position"])
        assert f"at position {example['start'] + place}" in tip
    full = max(abs(e["activation"]) for e in FeatureDictionary(signed_path).feature(3))
    assert f"{full:.3g}" in reader.texts(".legend")[0]


def test_patches_are_shown_as_the_grid_without_the_prefix(reader, grid_path):
    reader.open("#grid/0")
    examples = [e for e in FeatureDictionary(grid_path).feature(0) if e["bin"] == "top"]
    shown = reader.js(
        "return [...document.querySelectorAll('.example')].map((e) => [getComputedStyle(e.querySelector('.grid'))"
        ".gridTemplateColumns.split(' ').length, "
        "[...e.querySelectorAll('.tok')].map((t) => t.style.getPropertyValue('--a'))])"
    )
    assert len(shown) == len(examples) > 0
    for (columns, shares), example in zip(shown, examples, strict=True):
        assert columns == 3
        assert shares == [f"{100 * step / 255:.1f}%" if step else "" for step in example["window"][1:]]
    assert "42 patches" in reader.texts("#about")[0]


def test_images_lie_under_their_patches(reader, pictures_path):
    reader.open("#pictures/0")
    examples = [e for e in FeatureDictionary(pictures_path).feature(0) if e["bin"] == "top"]
    shown = reader.js(
        "const size = (node) => { const box = node.getBoundingClientRect(); return [box.width, box.height]; };"
        "return [...document.querySelectorAll('.example')].map((e) => {"
        " const i = e.querySelector('img'), g = e.querySelector('.grid'), n = g.querySelectorAll('.tok').length;"
        " return i && [i.naturalWidth, i.style.objectPosition, size(i), size(g), n]; })"
    )
    assert {e["item"] for e in examples} == set(range(5))
    for found, example in zip(shown, examples, strict=True):
        if example["item"] == 4:
            assert found is None
        else:  # 6 x 5 pixels, shown 21 times larger; the patches cover 4 of the 5 rows
            assert found == [24, f"{-6 * example['item']}px 0px", [126, 105], [126, 84], 6]
    sheet = np.asarray(Image.open(pictures_path / "items" / "sheet-0000.png"))
    assert [int(sheet[0, 6 * i, 0]) for i in range(4)] == [0, 60, 120, 180]


def liveliest(path):
    """A feature of a bundle that has maps, its examples as the page lists them, and its maps."""
    bundle = FeatureDictionary(path)
    feature = int(np.argmax([len(bundle.maps(f)) for f in range(len(bundle))]))
    return feature, [e for e in bundle.feature(feature) if e["bin"] == "top"], bundle.maps(feature)


def spelled(value):
    """A number as the page writes it, for those that are not tiny."""
    return f"{value:.3g}" if 0.01 <= abs(value) < 100 else None


def test_maps_lie_beside_the_heat_of_pictures(reader, mapped_paths):
    feature, examples, maps = liveliest(mapped_paths["pictures"])
    reader.open(f"#mapped-pictures/{feature}")
    shown = reader.js(
        "const place = (n) => { const b = n.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; };"
        "return [...document.querySelectorAll('.example')].map((e) => {"
        " const [heat, map] = e.querySelectorAll('.picture');"
        " return map ? [place(heat), place(map), place(map.querySelector('.grid')),"
        "  [...map.querySelectorAll('.tok')].map((t) => [t.className, t.style.getPropertyValue('--m'), t.dataset.tip])]"
        "  : null; })"
    )
    assert len(shown) == len(examples)
    largest = max(np.abs(one).max() for one in maps.values())
    for found, example in zip(shown, examples, strict=True):
        one = maps.get((example["item"], example["position"]))
        assert (found is None) == (one is None) == (example["rank"] >= 3)
        if found is None:
            continue
        heat, beside, grid, cells = found
        assert beside[0] > heat[0] + heat[2] and beside[1:] == heat[1:] and grid == beside
        for k, (value, (name, share, tip)) in enumerate(zip(one.ravel(), cells, strict=True)):
            assert ("up" in name, "down" in name) == (value > 0, value < 0)
            assert share == (f"{100 * abs(value) / largest:.1f}%" if value else "")
            assert tip.endswith(f" from row {k // 5}, column {k % 5}")
            assert tip.split(" ")[0] == (spelled(value) or tip.split(" ")[0])
    legend = reader.texts(".legend.map")[0]
    assert legend.endswith("HiResCAM at embed, beside") and spelled(largest) in legend
    assert reader.errors() == []


def test_maps_underline_the_tokens_that_a_firing_comes_from(reader, mapped_paths):
    feature, examples, maps = liveliest(mapped_paths["texts"])
    reader.open(f"#mapped-texts/{feature}")
    shown = reader.js(
        "return [...document.querySelectorAll('.example')].map((e) => [[...e.querySelectorAll('.tok')].map((t) =>"
        " [t.style.getPropertyValue('--m'), t.dataset.tip, getComputedStyle(t).borderBottomWidth]),"
        " (e.querySelector('.beyond') || {}).textContent])"
    )
    largest = max(np.abs(one).max() for one in maps.values())
    for (tokens, beyond), example in zip(shown, examples, strict=True):
        one = maps.get((example["item"], example["position"]))
        for place, (share, tip, width) in enumerate(tokens):
            value = 0 if one is None else one[example["start"] + place]
            assert ("   map " in tip) == (one is not None)
            assert float(share.rstrip("%") or 0) == pytest.approx(100 * np.sqrt(abs(value) / largest), abs=0.06)
            assert width == ("3px" if value else "0px")
        outside = 0 if one is None else one.sum() - one[example["start"] :][: len(tokens)].sum()
        assert (beyond is None) == (abs(outside) < 1e-6)
    assert reader.texts(".legend.map")[0].endswith("HiResCAM at embed, underlined (square-root scale)")
    assert reader.errors() == []


def test_a_key_and_a_button_hide_the_maps_and_every_feature_remembers(reader, mapped_paths):
    feature, *_ = liveliest(mapped_paths["pictures"])
    seen = "return document.querySelector('.picture.map').getBoundingClientRect().width > 0"
    reader.open(f"#mapped-pictures/{feature}")
    assert (
        reader.js(seen) and reader.js("return document.getElementById('maps').getAttribute('aria-pressed')") == "true"
    )
    assert reader.js("return document.querySelector('#help .if-maps').hidden") is False
    reader.press("m")
    assert not reader.js(seen)
    assert reader.js("return document.getElementById('maps').getAttribute('aria-pressed')") == "false"
    texts, *_ = liveliest(mapped_paths["texts"])
    reader.js(f"location.hash = '#mapped-texts/{texts}'")
    reader.settle("document.querySelector('.window .up')")
    color = "return getComputedStyle(document.querySelector('.window .up')).borderBottomColor"
    assert reader.js(color) == "rgba(0, 0, 0, 0)"
    reader.js("document.getElementById('maps').focus(); document.activeElement.click()")
    assert reader.js(color) != "rgba(0, 0, 0, 0)"
    reader.open("#planted/0")
    assert reader.js("return document.getElementById('maps')") is None
    assert reader.js("return document.querySelector('#help .if-maps').hidden") is True
    reader.press("m")
    assert reader.errors() == []


def test_filters_combine(reader, bundle_path):
    columns = FeatureDictionary(bundle_path).features()
    reader.open()
    reader.fill("query", "BRACK")
    assert reader.listed == [0]
    reader.fill("query", "14")
    assert reader.listed == [14, *range(140, 150)]
    reader.fill("query", "no such label")
    assert reader.texts(".nothing") == ["No feature passes these filters."]
    reader.fill("query", "")
    reader.js("document.getElementById('hide-dead').click()")
    low, high = np.quantile(columns["density"][~columns["dead"]], [0.3, 0.4])
    reader.fill("low", str(low))
    reader.fill("high", str(high))
    inside = np.flatnonzero((columns["density"] >= low) & (columns["density"] <= high) & ~columns["dead"])
    assert reader.listed == inside.tolist()
    assert reader.texts("#shown") == [f"{len(inside)} of 150"]


@pytest.mark.parametrize("column", ["density", "label_score", "label"])
def test_headers_sort_both_ways_and_put_the_missing_last(reader, bundle_path, column):
    values = FeatureDictionary(bundle_path).features()[column]
    if column == "label":
        known = sorted((str(v).lower(), i) for i, v in enumerate(values) if isinstance(v, str))
    else:
        known = sorted((v, i) for i, v in enumerate(values.astype(np.float32)) if not np.isnan(v))
    up = [i for _, i in known]
    down = [i for _, i in sorted(known, key=lambda pair: (-[k for k, _ in known].index(pair[0]), pair[1]))]
    reader.open()
    head = f"document.querySelector('th.c-{column}')"
    for direction in ("ascending", "descending") if column == "label" else ("descending", "ascending"):
        reader.js(f"{head}.querySelector('button').click()")
        assert reader.js(f"return {head}.getAttribute('aria-sort')") == direction
        expected = (up if direction == "ascending" else down)[:20]
        assert reader.listed[: len(expected)] == expected
    if column != "density":
        assert reader.listed[len(known)] == min(set(range(150)) - set(up))


def test_keys_move_and_the_history_remembers(reader):
    from selenium.webdriver.common.keys import Keys

    reader.open("#planted/62")
    reader.press("j")
    reader.press(Keys.ARROW_DOWN)  # Over the border of two chunks.
    assert (reader.hash, reader.heading) == ("#planted/64", "Feature 64")
    reader.press("k")
    assert reader.hash == "#planted/63"
    reader.driver.back()
    reader.settle("document.querySelector('#feature h2 small').textContent === 'Feature 64'")
    reader.driver.forward()
    reader.settle("document.querySelector('#feature h2 small').textContent === 'Feature 63'")
    reader.press("/")
    reader.press("under", Keys.ENTER)
    assert reader.hash == "#planted/4"
    reader.press("2")
    assert reader.texts("[role=tab][aria-selected=true]")[0].startswith("Quantiles")
    reader.press("?")
    assert reader.js("return document.getElementById('help').open")
    reader.press(Keys.ESCAPE)
    assert not reader.js("return document.getElementById('help').open")


def test_links_lead_to_neighbours_rows_and_dictionaries(reader):
    reader.open("#planted/1")
    target = reader.js("const a=document.querySelector('.near a'); a.click(); return a.getAttribute('href')")
    reader.settle(f"location.hash === {target!r}")
    reader.js("document.querySelector('#rows tr[data-feature=\"7\"] .c-label').click()")
    reader.settle("document.querySelector('#feature h2').textContent === 'Feature 7punctuation'")
    reader.js("const s=document.getElementById('bundle'); s.value='signed'; s.dispatchEvent(new Event('change'))")
    reader.settle("location.hash === '#signed/0'")
    reader.js("location.hash = '#planted/150'")
    reader.settle("document.querySelector('#feature').textContent.includes('features 0 to 149')")
    reader.js("location.hash = '#nowhere/1'")
    reader.settle("document.querySelector('#feature').textContent.includes('no dictionary “nowhere”')")


def test_a_dead_feature_says_so(reader):
    reader.open("#planted/5")
    assert "never fired in" in reader.texts("#feature .state")[0]
    assert reader.texts(".example") == []


def test_a_missing_or_damaged_chunk_is_an_error_that_can_be_tried_again(reader):
    reader.open("#big/0")
    assert "data/big/chunk-0000.js could not be loaded" in reader.texts("[role=alert]")[0]
    assert reader.texts("[role=alert] button") == ["Try again"]
    reader.press("j")
    reader.js("location.hash = '#big/64'")
    reader.settle("document.querySelector('#feature').textContent.includes('chunk-0001.js is damaged')")


def test_131072_features_are_filtered_at_once(reader):
    reader.open("#big/131000")
    assert 131000 in reader.listed
    assert len(reader.listed) < 80  # Only what can be seen is in the page.
    reader.js("document.querySelector('th.c-density button').click()")
    times = []
    for query in ("label 97", "9", "label 976", ""):
        reader.fill("query", query)
        times.append(reader.js("return unweave.filterMs"))
    print("filter of 131,072 rows, ms:", [round(t, 1) for t in times])
    assert max(times) < 2000
    density = np.frombuffer(base64.b64decode(packed(np.random.default_rng(0).random(BIG), "f4")), "<f4")
    assert reader.listed[:15] == np.argsort(-density, kind="stable")[:15].tolist()


def test_a_narrow_window_stacks_without_scrolling_sideways(reader):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    reader.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        reader.open("#planted/0")
        assert reader.js("return document.documentElement.scrollWidth <= innerWidth")
        boxes = "list", "feature"
        bottom, top = (
            reader.js(f"return document.getElementById('{b}').getBoundingClientRect().{e}")
            for b, e in zip(boxes, ("bottom", "top"), strict=True)
        )
        assert bottom <= top
    finally:
        reader.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
