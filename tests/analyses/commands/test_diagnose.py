import json

import pytest

from interp.diagnosis import diagnose
from interp.stores.disk import DiskStore


def test_the_table_the_numbers_and_the_figure_are_those_of_diagnose(unweave, store, tmp_path):
    files = [tmp_path / "new" / name for name in ("figure.png", "figure.svg", "numbers.json")]
    code, said, complaint = unweave("diagnose", store, "--site", "blocks.1", "--out", *files)
    assert code == 0, complaint
    expected = diagnose(DiskStore(store, "blocks.1"))
    assert said == "".join(f"{line}\n" for line in (expected, *files))
    assert json.loads(files[2].read_text()) == expected.to_json()
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in files[1].read_bytes()


def test_a_sample_is_asked_for_by_rows(unweave, store):
    code, said, _ = unweave("diagnose", store, "--site", "blocks.0", "--rows", "100")
    assert code == 0
    assert said == f"{diagnose(DiskStore(store, 'blocks.0'), rows=100)}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "path is nowhere, but there is no such folder"),
        (["STORE"], "site is not given, but"),
        (["STORE", "--site", "blocks.1", "--rows", "0"], "rows is 0, but at least one row is read"),
        (["nowhere", "--out", "figure.gif"], "--out has figure.gif, but it is written as .png, .svg, .pdf or .json"),
    ],
)
def test_mistakes_are_one_line(unweave, store, words, said):
    code, _, complaint = unweave("diagnose", *(str(store) if word == "STORE" else word for word in words))
    assert code == 2
    assert complaint.startswith(f"unweave diagnose: {said}")
    assert complaint.count("\n") == 1


def test_ctrl_c_leaves_nothing(unweave, store, tmp_path, monkeypatch):
    def stopped(self, start, stop):
        raise KeyboardInterrupt

    monkeypatch.setattr(DiskStore, "span", stopped)
    out = tmp_path / "new" / "numbers.json"
    code, said, complaint = unweave("diagnose", store, "--site", "blocks.1", "--out", out)
    assert (code, said) == (130, "")
    assert complaint == "unweave diagnose: stopped; run the same command again to start over.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_leaves_what_was_there(unweave, store, tmp_path, failing_disk):
    out = tmp_path / "figure.png"
    out.write_bytes(b"before")
    with failing_disk("write", 0):
        code, _, complaint = unweave("diagnose", store, "--site", "blocks.1", "--out", out)
    assert code == 2
    assert "make room or choose another folder" in complaint
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]
