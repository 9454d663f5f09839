import re

import numpy as np
import pytest
import seaborn as sns
import torch
from matplotlib.colors import to_rgba

from analyses.maps import Maps
from analyses.plots.map_texts import as_html, map_texts
from interp.types import Geometry

TOKENS = [["[CLS]", "A", " cat", "."], ["[CLS]", "$5_", "\nis", " a<b>", "", "&"]]


@pytest.fixture
def maps() -> Maps:
    draw = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < torch.tensor([4, 6])[:, None]
    signed, positive = torch.randn(2, 6, generator=draw) * mask, torch.rand(2, 6, generator=draw) * mask
    values = {("a", "HiResCAM"): signed, ("a", "NormGrad"): positive}
    return Maps(values, torch.tensor([1.5, -2.0]), {"a": Geometry()}, mask)


def grounds(ax) -> np.ndarray:
    return np.array([patch.get_facecolor() for patch in ax.patches])


def test_tokens_in_order_on_the_colour_of_their_value(maps: Maps) -> None:
    figure = map_texts(maps, TOKENS)
    blocks = figure.axes[:4]
    assert [ax.get_title(loc="left") for ax in blocks] == ["a  HiResCAM", "a  NormGrad"] * 2
    assert [text.get_text() for text in figure.texts] == ["score 1.5", "score -2"]
    assert [text.get_text() for text in blocks[0].texts] == TOKENS[0]  # padding is left out
    assert [patch.get_x() for patch in blocks[0].patches] == [0, 5, 6, 10]
    assert [patch.get_width() for patch in blocks[0].patches] == [5, 1, 4, 1]
    for k, (palette, least) in enumerate((("vlag", -1), ("rocket_r", 0))):
        values = list(maps.values.values())[k]
        most = float(values.abs().max())  # one scale for all examples
        for example, length in enumerate((4, 6)):
            share = (values[example, :length].numpy() / most - least) / (1 - least)
            found = grounds(figure.axes[2 * example + k])
            drawn = [0, 1, 2, 3] if example == 0 else [0, 1, 2, 3, 4, 5, 6]
            where = [0, 1, 2, 3] if example == 0 else [0, 1, 2, 2, 3, 4, 5]  # the third token is cut at its line break
            expected = sns.color_palette(palette, as_cmap=True)(share)[where]
            assert np.allclose(found[drawn], expected, atol=1 / 128)
    ends = [ax.texts[0].get_text() for ax in figure.axes[4:]]
    most = float(maps["HiResCAM"].abs().max())
    assert ends[0] == f"{-most:.2g} to {most:.2g}"
    assert ends[1] == f"0 to {float(maps['NormGrad'].max()):.2g}"


def test_text_is_shown_as_it_is(maps: Maps) -> None:
    ax = map_texts(maps, TOKENS, examples=[1]).axes[0]
    assert [text.get_text() for text in ax.texts] == ["[CLS]", "$5_", "↵", "is", " a<b>", "", "&"]
    assert not any(text.get_parse_math() for text in ax.texts)
    assert [round(patch.get_y()) for patch in ax.patches] == [0, 0, 0, 1, 1, 1, 1]
    assert ax.patches[5].get_width() == 1  # a token that shows nothing can be seen


def test_lines_are_wrapped_between_tokens_and_long_ones_cut(maps: Maps) -> None:
    figure = map_texts(maps, [TOKENS[0], ["[CLS]", "0123456789x", "日本", "a\u0301", "\x00", "\t"]], columns=8)
    first, second = figure.axes[0], figure.axes[2]
    assert [(p.get_x(), round(p.get_y())) for p in first.patches] == [(0, 0), (5, 0), (0, 1), (4, 1)]
    assert [text.get_text() for text in second.texts] == ["[CLS]", "01234567", "89x", "日本", "a\u0301", "·", "→"]
    assert [p.get_width() for p in second.patches] == [5, 8, 3, 4, 1, 1, 1]
    assert (grounds(second)[1] == grounds(second)[2]).all()
    narrow = map_texts(maps, TOKENS, columns=1, examples=[0]).axes[0]
    assert len(narrow.patches) == len("".join(TOKENS[0]))


def test_ink_can_be_read_on_every_ground(maps: Maps) -> None:
    ax = map_texts(maps, TOKENS, examples=[1]).axes[1]
    for patch, text in zip(ax.patches, ax.texts, strict=True):
        ground, ink = (np.dot(to_rgba(c)[:3], (0.299, 0.587, 0.114)) for c in (patch.get_facecolor(), text.get_color()))
        assert abs(ground - ink) >= 0.5


def test_padding_on_the_left_is_left_out_too(maps: Maps) -> None:
    flipped = Maps({("a", "m"): maps["HiResCAM"].flip(1)}, None, maps.geometries, maps.mask.flip(1))
    figure = map_texts(flipped, [TOKENS[0][::-1], TOKENS[1][::-1]])
    usual = map_texts(Maps({("a", "m"): maps["HiResCAM"]}, None, maps.geometries, maps.mask), TOKENS)
    assert np.allclose(grounds(figure.axes[0]), grounds(usual.axes[0])[::-1])
    assert figure.texts[0].get_text() == ""  # nothing was scored


def test_a_row_a_feature(maps: Maps) -> None:
    values = torch.rand(2, 3, 6)
    figure = map_texts(Maps({("a", "m"): values}, None, maps.geometries, maps.mask, features=(7, 31, 2)), TOKENS)
    assert [ax.get_title(loc="left") for ax in figure.axes[:3]] == [
        "a  m  feature 7",
        "a  m  feature 31",
        "a  m  feature 2",
    ]
    assert len(figure.axes) == 2 * 3 + 3
    share = (values[0, 1, :4] / values[:, 1].where(maps.mask, torch.tensor(0.0)).max()).numpy()
    assert np.allclose(grounds(figure.axes[1]), sns.color_palette("rocket_r", as_cmap=True)(share), atol=1 / 128)


def test_a_page_has_the_same_colours_and_all_of_it_is_escaped(maps: Maps) -> None:
    tokens = [TOKENS[0], ["[CLS]", "<script>alert(1)</script>", '"\n', " a<b>", "", "&"]]
    page = as_html(maps, tokens)
    assert page._repr_html_() == page.text
    assert "<script" not in page.text and "&lt;script&gt;" in page.text and "&quot;↵\n" in page.text
    assert set(re.findall(r"<(\w+)", page.text)) == {"div", "span"}
    found = re.findall(r'<span style="background:(#\w{6});color:\w+" title="([^"]*)">', page.text)
    assert len(found) == 2 * (4 + 6)
    drawn = np.concatenate([grounds(ax) for ax in map_texts(maps, [TOKENS[0], list("abcdef")]).axes[:4]])
    assert np.allclose([to_rgba(colour) for colour, _ in found], drawn, atol=1 / 128)
    values = [float(value) for _, value in found[:4]]
    assert values == pytest.approx(maps["HiResCAM"][0, :4].tolist(), rel=1e-2)
    odd = as_html(Maps({("<i>", "m"): torch.rand(1, 1)}, None, {"<i>": Geometry()}), [["a"]])
    assert "<i>" not in odd.text


def test_maps_of_nothing_but_zeros_can_be_drawn() -> None:
    figure = map_texts(Maps({("a", "m"): torch.zeros(1, 2)}, None, {"a": Geometry()}), [["a", "b"]])
    assert figure.axes[1].texts[0].get_text() == "0 to 1"


def test_what_cannot_be_drawn_is_refused(maps: Maps) -> None:
    with pytest.raises(ValueError, match=r"examples are \[2\], but maps are of 0 to 1"):
        map_texts(maps, TOKENS, examples=[2])
    with pytest.raises(ValueError, match=r"examples are \[\], but maps"):
        as_html(maps, TOKENS, examples=[])
    with pytest.raises(ValueError, match="tokens are of 1 examples, but maps of 2"):
        map_texts(maps, TOKENS[:1])
    with pytest.raises(ValueError, match=r"tokens\[0\] has 3 entries, but maps of a have 4 positions"):
        map_texts(maps, [TOKENS[0][1:], TOKENS[1]])
    with pytest.raises(ValueError, match="columns is 0, but a line has characters"):
        map_texts(maps, TOKENS, columns=0)
    picture = Maps({("a", "m"): torch.rand(2, 3, 3)}, None, {"a": Geometry("grid", grid=(3, 3))})
    with pytest.raises(
        ValueError, match=r"maps of a have 2 axes, but a text has one: draw those of pictures with .*map_m"
    ):
        map_texts(picture, TOKENS)
    longer = Maps({("a", "m"): torch.rand(2, 9)}, None, {"a": Geometry()}, maps.mask)
    with pytest.raises(ValueError, match="have 9 positions"):
        map_texts(longer, TOKENS)
