import json

import pytest

from interp.stores.disk import DiskStore
from saes.evaluation import evaluate
from saes.loading import load


def test_the_table_and_the_files_say_what_evaluate_finds(unweave, store, sae_file, tmp_path):
    code, said, complaint = unweave(
        "evaluate", sae_file, "--store", store, "--out", tmp_path / "new", "--resamples", "50"
    )
    assert code == 0, complaint
    expected = evaluate(load(sae_file), DiskStore(store, "blocks.1"), resamples=50)
    written = json.loads((tmp_path / "new" / "topk.evaluation.json").read_text())
    assert written.items() >= expected.to_json().items()
    assert (written["class"], written["arguments"]["k"]) == ("TopK", 2)
    head, line, foot = said.splitlines()
    assert head.split()[0] == "SAE"
    assert line.startswith("topk ")
    fvu = expected["fvu"]
    assert f"{fvu.value:.4g} [{fvu.low:.4g}, {fvu.high:.4g}]" in line
    assert foot.startswith(f"{expected.rows:,} rows of {expected.examples:,} examples at blocks.1")


def test_results_lie_beside_the_sae_by_default(unweave, store, sae_file):
    assert unweave("evaluate", sae_file, "--store", store, "--resamples", "0")[0] == 0
    assert sae_file.with_name("topk.evaluation.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--store", "STORE"], "no SAE is given: name the .safetensors files"),
        (["none.safetensors", "--store", "STORE"], "none.safetensors is no file: name"),
        (["SAE", "SAE", "--store", "STORE", "--out", "o"], "2 SAEs would share o/topk.evaluation.json"),
        (["SAE", "--store", "nowhere"], "path is nowhere, but there is no such folder"),
        (["SAE", "--store", "STORE", "--site", "blocks.9"], "site is 'blocks.9', but"),
        (["TEXT", "--store", "STORE"], "TEXT cannot be read as a saved SAE"),
    ],
)
def test_mistakes_are_one_line(unweave, store, sae_file, tmp_path, words, said):
    text = tmp_path / "text.safetensors"
    text.write_text("no weights")
    names = {"STORE": str(store), "SAE": str(sae_file), "TEXT": str(text)}
    code, _, complaint = unweave("evaluate", *(names.get(word, word) for word in words))
    assert code == 2
    assert complaint.startswith(f"unweave evaluate: {said.replace('TEXT', str(text))}")
    assert complaint.count("\n") == 1
