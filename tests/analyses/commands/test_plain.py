from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.commands import yaml_file
from analyses.commands.plain import MisfitError, from_plain, record_from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    pair: tuple[int, int] = (1, 2)

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError("rate is below 0: give more.")


@dataclass(frozen=True)
class Outer:
    path: Path
    names: tuple[str, ...] = ()
    kind: Literal["a", "b"] | None = None
    inner: Inner = Inner()
    many: tuple[Inner, ...] | None = None
    free: dict[str, Any] = field(default_factory=dict)
    on: bool = False


words = st.text(max_size=5)
inners = st.builds(
    Inner, rate=st.floats(0, 1e30), pair=st.tuples(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
)
outers = st.builds(
    Outer,
    path=st.sampled_from([Path("a/b"), Path("1"), Path("null"), Path("1e-3"), Path("yes")]),
    names=st.lists(st.one_of(words, st.sampled_from(["1", "no", "~", "1e3", "- a", "a: b", "é中\n"]))).map(tuple),
    kind=st.sampled_from(["a", "b", None]),
    inner=inners,
    many=st.none() | st.lists(inners, max_size=2).map(tuple),
    free=st.dictionaries(words, st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words, max_size=3),
    on=st.booleans(),
)


@given(outers)
def test_what_is_written_as_yaml_reads_back_equal(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(yaml_file.written(to_plain(value)), encoding="utf-8")
    assert record_from_plain(Outer, yaml_file.read(path)) == value


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029", "plain", "äö → 日本", "two\nlines", "1e-3"])
def test_text_survives_yaml(tmp_path, text):
    (tmp_path / "a.yaml").write_text(yaml_file.written({"text": text}), encoding="utf-8")
    assert yaml_file.read(tmp_path / "a.yaml") == {"text": text}


def test_whole_numbers_are_numbers_but_truth_values_are_not():
    assert from_plain(float, 3, "x") == 3.0
    with pytest.raises(MisfitError, match=r"x is True \(bool\), but it takes a whole number"):
        from_plain(int, True, "x")


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"path": "p", "nmes": []}, r"^nmes is no key it takes: did you mean names\?$"),
        ({"path": "p", "inner": {"rat": 1}}, r"^inner\.rat is no key it takes: did you mean rate\?$"),
        (
            {"path": "p", "inner": {"rate": "high"}},
            r"^inner\.rate is 'high' \(str\), but it takes a number: write it so\.$",
        ),
        ({"path": "p", "inner": {"pair": [1]}}, r"^inner\.pair holds 1 values, but it takes 2"),
        ({"path": "p", "inner": {"pair": 1}}, r"^inner\.pair is 1 \(int\), but it takes a list of a whole number"),
        ({"path": "p", "inner": {"rate": -1}}, r"^inner: rate is below 0: give more\.$"),
        ({"path": "p", "many": [{}, {"rat": 1}]}, r"^many\[1\]\.rat is no key it takes: did you mean rate\?$"),
        ({"path": "p", "names": "one"}, r"^names is 'one' \(str\), but it takes a list of text"),
        ({"path": "p", "names": [1]}, r"^names\[0\] is 1 \(int\), but it takes text"),
        ({"path": "p", "kind": "c"}, r"^kind is 'c': known are a, b\.$"),
        ({"path": None}, r"^path is null, but it takes a path"),
        ({"path": "p", "on": "yes"}, r"^on is 'yes' \(str\), but it takes true or false"),
        ({"path": "p", "inner": 3}, r"^inner is 3 \(int\), but it holds keys and values"),
        ({}, r"^path is missing: it has no default, so give it\.$"),
    ],
)
def test_what_does_not_fit_is_named_with_its_key(plain, message):
    with pytest.raises(MisfitError, match=message):
        record_from_plain(Outer, plain)


def test_missing_keys_may_be_left_to_flags():
    assert record_from_plain(Outer, {}, missing="later").path == "later"
