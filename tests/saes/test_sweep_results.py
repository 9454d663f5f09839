import csv
import json

import pytest

from saes.sweep_results import summary, write


def _record(setting, l0, fvu, seed=0, failure=None, **more):
    about = {"name": f"{setting}-{seed}", "setting": setting, "method": "M", "family": "M"}
    about |= {"label": setting, "failure": failure}
    if failure:
        return about
    ends = {f"{name}_{end}": value for name, value in (("l0", l0), ("fvu", fvu)) for end in ("low", "high")}
    return about | {"l0": l0, "fvu": fvu, "dead": 0.5} | ends | more


def test_the_frontier_is_what_nothing_beats() -> None:
    points = {"a": (1, 0.5), "b": (2, 0.4), "c": (2, 0.45), "d": (4, 0.4), "e": (8, 0.1), "f": (8, 0.1), "g": (9, 0.05)}
    lines = summary([_record(name, *point) for name, point in points.items()])
    assert [line["setting"] for line in lines if line["frontier"]] == ["a", "b", "e", "f", "g"]
    assert [line["l0"] for line in lines] == sorted(point[0] for point in points.values())


def test_seeds_are_averaged_and_their_ends_are_the_interval() -> None:
    lines = summary([_record("a", l0, fvu, seed) for seed, (l0, fvu) in enumerate([(2, 0.3), (4, 0.1), (3, 0.2)])])
    (line,) = lines
    assert (line["l0"], line["l0_low"], line["l0_high"]) == (3, 2, 4)
    assert (line["fvu"], line["fvu_low"], line["fvu_high"]) == (pytest.approx(0.2), 0.1, 0.3)
    assert (line["seeds"], line["failed"], line["dead"]) == (3, 0, 0.5)


def test_one_seed_keeps_its_own_interval() -> None:
    (line,) = summary([_record("a", 2, 0.3, fvu_low=0.2, fvu_high=0.5)])
    assert (line["fvu"], line["fvu_low"], line["fvu_high"]) == (0.3, 0.2, 0.5)
    assert line["dead_low"] is None


def test_what_failed_counts_and_is_left_out() -> None:
    lines = summary(
        [
            _record("gone", 0, 0, failure="no finite loss"),
            _record("half", 2, 0.3),
            _record("half", 0, 0, seed=1, failure="no finite loss"),
            _record("undefined", 1, None),
        ]
    )
    assert [(line["setting"], line["failed"], line["frontier"]) for line in lines] == [
        ("half", 1, True),
        ("gone", 1, False),
        ("undefined", 0, False),
    ]
    assert (lines[0]["fvu"], lines[0]["fvu_low"]) == (0.3, None)  # Of one seed out of two: no interval.


def test_both_files_hold_the_records(tmp_path) -> None:
    records = [_record("a", 2, 0.3, prefixes=[4, 8]), _record("b", 0, 0, failure="no, not finite")]
    write(tmp_path, records)
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert found == {"settings": summary(records), "saes": records}
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["failure"] for row in rows] == ["", "no, not finite"]
    assert (float(rows[0]["fvu"]), json.loads(rows[0]["prefixes"]), rows[1]["fvu"]) == (0.3, [4, 8], "")
