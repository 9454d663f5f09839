import pytest

from analyses.commands.nearness import meant


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("batchtopk", ["batch_topk", "relu"], "did you mean batch_topk?"),
        ("d-sae", ["d_sae", "k"], "did you mean d_sae?"),
        ("TOPK", ["TopK"], "did you mean TopK?"),
        ("zzz", ["b", "a"], "known are a, b."),
        ("x", [], "there are none."),
    ],
)
def test_names_the_nearest_or_else_all(name, known, said):
    assert meant(name, known) == said
