"""The demo's whole path in small, with every socket blocked."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from analyses.commands import demo


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Refuse and record every connection and every look-up of a name."""
    asked: list[Any] = []

    def refuse(*address: Any, **_: Any) -> Any:
        asked.append(address)
        raise OSError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return asked


def test_the_demo_runs_without_a_network(
    tmp_path: Path, no_network: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"tokens": 6_000, "held_out_tokens": 3_000, "d_sae": 256, "k": 8, "steps": 12}
    small |= {"images": 60, "held_out_images": 40, "image_d_sae": 128, "image_k": 4}
    arguments = demo.Arguments(out=tmp_path / "demo", quiet=True, **small)
    demo.run(arguments)
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert [entry["method"] for entry in summary] == ["TopK", "BatchTopK", "BatchTopK"]
    for entry in summary[:2]:
        assert entry["site"] == "blocks.3" and entry["d_in"] == 384 and entry["d_sae"] == 256 and entry["k"] == 8
        assert entry["rows"] >= 5_000
    assert summary[2]["model"] == "glyph-vit" and summary[2]["rows"] == 60 * 64 and summary[2]["d_sae"] == 128
    for entry in summary:
        assert 0 < entry["fvu"] < 1 and 0 <= entry["dead"] <= 1 and entry["seconds"] > 0
        # After twelve steps the running threshold of BatchTopK is still on its way.
        assert entry["k"] / 2 < entry["l0"] < 2 * entry["k"]
    page = tmp_path / "demo" / "index.html"
    assert "page/index.html" in page.read_text() and (tmp_path / "demo" / "page" / "index.html").exists()
    assert (tmp_path / "demo" / "page" / "data" / "glyph_batch_topk" / "sheet-0000.png").exists()
    assert "glyph_batch_topk" in capsys.readouterr().out
    assert no_network == []

    first = {p: p.read_bytes() for p in sorted((tmp_path / "demo").rglob("*.safetensors"))}
    demo.run(arguments)  # Every stage is there: it goes on, and changes nothing.
    assert first == {p: p.read_bytes() for p in sorted((tmp_path / "demo").rglob("*.safetensors"))}
