import pytest

from analyses.dictionary.bundle import FeatureDictionary


def build(unweave, sae_file, store, out, *words):
    return unweave("dictionary", sae_file, "--store", store, "--out", out, "--quiet", "--top", "3", *words)


def test_options_reach_the_bundle_and_a_second_call_finds_it_there(unweave, sae_file, store, tmp_path):
    out = tmp_path / "dictionary"
    code, said, complaint = build(unweave, sae_file, store, out, "--no-page", "--quantiles", "3", "1")
    assert code == 0, complaint
    assert said == f"{out}: 16 features\n"
    assert not (tmp_path / "dictionary-page").exists()
    recipe = FeatureDictionary(out).manifest["identity"]["recipe"]
    assert (recipe["top"], recipe["quantiles"]) == (3, [3, 1])
    code, said, _ = build(unweave, sae_file, store, out, "--quantiles", "3", "1", "--title", "Ours")
    assert code == 0
    assert "Ours" in (tmp_path / "dictionary-page" / "index.html").read_text()
    assert said.endswith(f"open {tmp_path / 'dictionary-page' / 'index.html'}\n")


def test_maps_are_made_after_the_bundle_and_shown(unweave, sae_file, store, tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(
        "interp.loading.load_model", lambda source: {"tiny-text": sys.modules["tiny_text"].TinyText}[source]()
    )
    out = tmp_path / "dictionary"
    code, said, complaint = build(unweave, sae_file, store, out, "--maps", "norm-grad", "--maps-top", "2")
    assert code == 0, complaint
    about = FeatureDictionary(out).manifest["maps"]
    assert about["asked"] == {"method": "NormGrad", "site": "embed", "top": 2, "side": 32}
    assert said.startswith(f"{out}: 16 features\n{about['mapped']} maps by NormGrad at embed\nopen ")
    assert '"maps":{"method":"NormGrad"' in (tmp_path / "dictionary-page/data/dictionary/table.js").read_text()
    for words, expected in (
        (["--maps", "NormGard"], "methods names 'NormGard', but known are "),
        (["--maps", "NormGrad", "--maps-site", "blokcs.0"], "site is 'blokcs.0', but tiny-text has no such place; "),
        (["--model", "tiny-text"], "--model needs --maps: "),
    ):
        code, said, complaint = build(unweave, sae_file, store, tmp_path / "none", *words)
        assert (code, said) == (2, "") and complaint.startswith(f"unweave dictionary: {expected}")
        assert complaint.count("\n") == 1 and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "kind"], "--labels needs --held-out"),
        (["--window", "-1", "3"], "window is"),
        (["--site", "blocks.9"], "site is 'blocks.9'"),
        (["--quantiles", "3"], ""),
        (["--pag"], "--pag is no option: did you mean --page?"),
    ],
)
def test_mistakes_are_one_line(unweave, sae_file, store, tmp_path, words, said):
    code, out, complaint = build(unweave, sae_file, store, tmp_path / "d", *words)
    assert (code, out) == (2, "")
    assert complaint.startswith(f"unweave dictionary: {said}")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "d").exists()
