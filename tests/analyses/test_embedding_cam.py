"""EmbeddingCAM as the paper writes it, its subspaces, and a planted object."""

import pytest
import torch
from torch import nn

from analyses.attributing import attribute
from analyses.embedding_cam import embedding_cam
from analyses.embeddings import embedding_of
from analyses.scores.similarity import Similarity
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs


class Embeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).relu().mean((2, 3)))


@pytest.fixture
def model() -> TorchModel:
    torch.manual_seed(0)
    return TorchModel(Embeds().double(), geometry={"layer": Geometry("grid", grid=(8, 8), channels="first")})


def _images(seed: int, b: int = 3) -> Inputs:
    return Inputs({"x": torch.randn(b, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)})


def test_equals_the_gradient_of_the_inner_product_by_hand(model: TorchModel) -> None:
    inputs, references = _images(1), _images(2)
    found = embedding_cam(model, inputs, references, "layer", batch_size=2)
    fixed = embedding_of(model, references)
    for i in range(3):
        acts = model.module.layer(inputs.tensors["x"][i : i + 1]).detach().requires_grad_()
        score = model.module.head(acts.relu().mean((2, 3)))[0] @ fixed[i]
        (grads,) = torch.autograd.grad(score, acts)
        torch.testing.assert_close(found["GradCAM"][i], (grads.mean((2, 3), keepdim=True) * acts.detach()).sum(1)[0])
        assert found.scores is not None and float(found.scores[i]) == pytest.approx(float(score.detach()))


def test_subspaces_are_mapped_apart_and_add_up(model: TorchModel) -> None:
    inputs, one = _images(1), _images(2, 1)
    parts = embedding_cam(model, inputs, one, "layer", subspaces=[[0, 3], [1], [2, 4]])
    assert parts.features == (0, 1, 2) and parts["GradCAM"].shape == (3, 3, 8, 8)
    whole = embedding_cam(model, inputs, one, "layer")
    torch.testing.assert_close(parts["GradCAM"].sum(1), whole["GradCAM"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.scores, whole.scores)
    alone = Similarity(embedding_of(model, one)[0], "dot", [1])
    torch.testing.assert_close(
        parts["GradCAM"][:, 1], attribute(model, inputs, "layer", score=alone)["GradCAM"], rtol=1e-12, atol=1e-12
    )


def test_shows_the_object_that_both_have() -> None:
    net = Embeds()
    net.layer = nn.Conv2d(3, 6, 1, bias=False)
    torch.nn.init.zeros_(net.layer.weight)
    net.layer.weight.data[:3, :, 0, 0] = torch.eye(3)  # a channel for each colour
    net.head = nn.Identity()
    model = TorchModel(net, geometry={"layer": Geometry("grid", grid=(8, 8), channels="first")})
    both, one = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    both[:, 0, 1:4, 1:4], both[:, 1, 5:8, 5:8], one[:, 0, 4:7, 0:3] = 1, 1, 1
    found = embedding_cam(model, Inputs({"x": both}), Inputs({"x": one}), "layer")["GradCAM"][0]
    assert torch.equal(found > 0, both[0, 0] > 0)


def test_wrong_numbers_and_channels_are_refused(model: TorchModel) -> None:
    with pytest.raises(ValueError, match="references are 2 for 3 examples"):
        embedding_cam(model, _images(1), _images(2, 2), "layer")
    for wrong in ([5], []):
        with pytest.raises(ValueError, match="but the embedding has channels 0 to 4"):
            embedding_cam(model, _images(1), _images(2), "layer", subspaces=[[0], wrong])
