from pathlib import Path

import pytest

from analyses.commands import resolving


def test_general_options_may_stand_anywhere():
    general, rest = resolving.split(["--debug", "a", "--config=x.yaml", "--k", "3", "--print-config"])
    assert general == resolving.General(Path("x.yaml"), print_config=True, debug=True)
    assert rest == ["a", "--k", "3"]


@pytest.mark.parametrize("words", [["--config"], ["--config="], ["--config", "a", "--config", "b"]])
def test_one_file_it_is(words):
    with pytest.raises(ValueError, match=r"--config takes one file, but (none|2) came"):
        resolving.split(words)


def test_flag_over_file_over_default(unweave, tmp_path):
    file = tmp_path / "harvest.yaml"
    file.write_text("model: from-file\ndataset: documentation\nsites: [blocks.1]\nout: store\nmax_length: 64\n")
    code, said, _ = unweave("harvest", "--config", file, "--model", "from-flag", "--sites", "a", "b", "--print-config")
    assert code == 0
    lines = said.splitlines()
    assert "model: from-flag" in lines
    assert "dataset: documentation" in lines
    assert "max_length: 64" in lines
    assert "batch_tokens: 4096" in lines
    assert "sites:\n- a\n- b\n" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x", "modle is no key it takes: did you mean model?"),
        ("max_length: many", "max_length is 'many' (str), but it takes a whole number: write it so."),
        ("first: none", "first is 'none': known are drop, keep."),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_the_file_and_key_are_named(unweave, tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    code, said, complaint = unweave("harvest", "--config", file)
    assert (code, said) == (2, "")
    assert complaint.startswith(f"unweave harvest: {file}")
    assert message in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["harvest", "--model", "m", "--dataset", "d", "--sites", "a", "b@in", "--out", "o", "--loss", "next_token"],
        [
            "train",
            "--store",
            "s",
            "--run",
            "r",
            "--method",
            "batch_topk",
            "--d-sae",
            "64",
            "--lr",
            "1e-5",
            "--clip",
            "None",
        ],
        ["evaluate", "a.safetensors", "b.safetensors", "--store", "s"],
        ["dictionary", "a.safetensors", "--store", "s", "--out", "o", "--quantiles", "3", "2", "--no-page"],
        ["demo", "--k", "4"],
        ["doctor"],
    ],
)
def test_what_print_config_prints_gives_the_same(unweave, tmp_path, words):
    code, said, complaint = unweave(*words, "--print-config")
    assert (code, complaint) == (0, "")
    file = tmp_path / "printed.yaml"
    file.write_text(said)
    assert unweave(words[0], "--config", file, "--print-config") == (0, said, "")
