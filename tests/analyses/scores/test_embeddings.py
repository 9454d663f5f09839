"""Scores of an embedding: its norm, its similarity to a reference, its place along a direction and among neighbours."""

from typing import Any

import pytest
import torch

from analyses.scores.base import Pass
from analyses.scores.embedding_norm import EmbeddingNorm
from analyses.scores.knn_margin import KNNMargin
from analyses.scores.projection import Projection
from analyses.scores.similarity import Similarity
from interp.models.torch_module import TorchModel
from interp.types import Inputs

DRAW = torch.Generator().manual_seed(0)
EMBEDDING = torch.randn(4, 6, generator=DRAW, dtype=torch.float64)
REFERENCE = torch.randn(4, 6, generator=DRAW, dtype=torch.float64)


def _run(output: Any = EMBEDDING) -> Pass:
    return Pass(TorchModel(torch.nn.Identity()), Inputs({"x": torch.zeros(4, 1)}), output)


def test_norm() -> None:
    expected = [sum(float(x) ** 2 for x in row) ** 0.5 for row in EMBEDDING]
    torch.testing.assert_close(EmbeddingNorm()(_run()), torch.tensor(expected, dtype=torch.float64))


def test_the_models_own_embedding_is_read() -> None:
    class Own(TorchModel):
        def embedding(self, output: dict[str, torch.Tensor], inputs: Inputs) -> torch.Tensor:
            return output["pooled"]

    run = Pass(Own(torch.nn.Identity()), Inputs({"x": torch.zeros(4, 1)}), {"pooled": 2 * EMBEDDING})
    torch.testing.assert_close(EmbeddingNorm()(run), 2 * EMBEDDING.norm(dim=1))
    with pytest.raises(
        ValueError, match=r"Identity has no embedding: its forward returned a tensor of shape \[4, 2, 3\]"
    ):
        EmbeddingNorm()(_run(EMBEDDING.view(4, 2, 3)))


def test_similarity_to_one_reference_and_to_one_each() -> None:
    each = Similarity(REFERENCE)(_run())
    for i in range(4):
        cosine = EMBEDDING[i] @ REFERENCE[i] / EMBEDDING[i].norm() / REFERENCE[i].norm()
        torch.testing.assert_close(each[i], cosine)
        torch.testing.assert_close(Similarity(REFERENCE[i])(_run())[i], cosine)
    torch.testing.assert_close(Similarity(REFERENCE, measure="dot")(_run()), (EMBEDDING * REFERENCE).sum(1))


def test_subspaces_add_up_to_the_whole_similarity() -> None:
    parts = [Similarity(REFERENCE, measure="dot", channels=own)(_run()) for own in ([0, 3], [1], [2, 4, 5])]
    torch.testing.assert_close(sum(parts), Similarity(REFERENCE, measure="dot")(_run()))


def test_the_reference_is_held_fixed() -> None:
    embedding = EMBEDDING.clone().requires_grad_()
    Similarity(embedding, measure="dot")(_run(embedding)).sum().backward()
    torch.testing.assert_close(embedding.grad, EMBEDDING)  # of z.z with both free it would be twice that


def test_references_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="channels are given, but cosines of subspaces do not add up"):
        Similarity(REFERENCE, channels=[0])
    with pytest.raises(ValueError, match="reference has width 5, but Identity embeds in 6"):
        Similarity(REFERENCE[:, :5])(_run())
    with pytest.raises(ValueError, match="reference has 3 entries, but there are 4 examples"):
        Similarity(REFERENCE[:3])(_run())
    with pytest.raises(ValueError, match="direction has width 5, but Identity embeds in 6"):
        Projection(REFERENCE[0, :5])(_run())


def test_projection() -> None:
    mean, direction = EMBEDDING.mean(0), REFERENCE[0]
    torch.testing.assert_close(Projection(direction)(_run()), EMBEDDING @ direction)
    torch.testing.assert_close(Projection(direction, mean)(_run()), (EMBEDDING - mean) @ direction)


def test_the_margin_equals_a_loop_over_the_bank() -> None:
    bank = torch.randn(30, 6, generator=DRAW, dtype=torch.float64)
    member = torch.arange(30) % 3 == 0
    margins = KNNMargin(bank, member, k=3)(_run())
    for row, margin in zip(EMBEDDING, margins, strict=True):
        cosines = [
            (float(row @ other / row.norm() / other.norm()), bool(own)) for other, own in zip(bank, member, strict=True)
        ]
        sides = [sorted((c for c, own in cosines if own == side), reverse=True)[:3] for side in (True, False)]
        assert abs(float(margin) - (sum(sides[0]) - sum(sides[1])) / 3) < 1e-12


def test_banks_that_do_not_fit_are_refused() -> None:
    bank, member = torch.randn(5, 6), torch.tensor([True, True, False, False, False])
    with pytest.raises(ValueError, match=r"k is 3, but the bank has 2 members and 3 others: choose k in 1..2"):
        KNNMargin(bank, member, k=3)
    with pytest.raises(ValueError, match="bank has width 6, but Identity embeds in 3"):
        KNNMargin(bank, member, k=1)(_run(EMBEDDING[:, :3]))
