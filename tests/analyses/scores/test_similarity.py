"""EmbeddingCAM is GradCAM of the similarity to a reference: `analyses.embedding_cam` makes it so."""

import pytest
import torch
from torch import nn

from analyses.attributing import attribute
from analyses.embeddings import embedding_of
from analyses.scores.class_logit import ClassLogit
from analyses.scores.similarity import Similarity
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs

GRID = Geometry("grid", grid=(8, 8), stride=(1, 1), input_size=(8, 8), channels="first")
SUBSPACES = ([0, 3], [1], [2, 4, 5])


class Embeds(nn.Module):
    """Convolutions, their mean over positions, and a head where there is one."""

    def __init__(self, *, head: bool = False) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 6) if head else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).relu().mean((2, 3)))


def _model(*, head: bool = False) -> TorchModel:
    torch.manual_seed(0)
    return TorchModel(Embeds(head=head).double(), geometry={"layer": GRID})


def _images(seed: int, b: int = 3) -> Inputs:
    return Inputs({"x": torch.randn(b, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)})


def _cam(model: TorchModel, inputs: Inputs, score: Similarity, method: str = "GradCAM") -> torch.Tensor:
    return attribute(model, inputs, "layer", score=score, methods=[method])["layer", method]


@pytest.mark.parametrize("head", [False, True])
def test_embedding_cam_is_the_papers_grad_cam_of_the_inner_product_with_a_proxy(head: bool) -> None:
    model, inputs = _model(head=head), _images(1)
    proxy = nn.functional.normalize(embedding_of(model, _images(2, 5)), dim=1).mean(0)
    maps = _cam(model, inputs, Similarity(proxy, measure="dot"))
    for i in range(3):
        acts = model.module.layer(inputs.tensors["x"][i : i + 1]).detach().requires_grad_()
        loss = model.module.head(acts.relu().mean((2, 3)))[0] @ proxy
        (grads,) = torch.autograd.grad(loss, acts)
        torch.testing.assert_close(maps[i], (grads.mean((2, 3), keepdim=True) * acts.detach()).sum(1)[0])


def test_embedding_cam_of_a_one_hot_proxy_is_grad_cam_of_a_class() -> None:
    model, inputs = _model(head=True), _images(1)
    one_hot = torch.eye(6, dtype=torch.float64)[4]
    of_class = attribute(model, inputs, "layer", score=ClassLogit(4))["layer", "GradCAM"]
    torch.testing.assert_close(_cam(model, inputs, Similarity(one_hot, measure="dot")), of_class)


def test_embedding_cam_of_a_mean_is_the_inner_product_of_each_position_with_the_reference() -> None:
    torch.manual_seed(0)
    net, inputs = Embeds(), _images(1)
    net.forward = lambda x: net.layer(x).mean((2, 3))
    model = TorchModel(net.double(), geometry={"layer": GRID})
    references = embedding_of(model, _images(2))
    expected = torch.einsum("bdhw,bd->bhw", model.module.layer(inputs.tensors["x"]).detach(), references) / 64
    for method in ("GradCAM", "HiResCAM"):
        maps = _cam(model, inputs, Similarity(references, measure="dot"), method)
        torch.testing.assert_close(maps, expected, rtol=1e-12, atol=1e-12)
    scores = (embedding_of(model, inputs) * references).sum(1)
    torch.testing.assert_close(maps.sum((1, 2)), scores)  # the map adds up to the similarity


@pytest.mark.parametrize("method", ["GradCAM", "HiResCAM"])
def test_embedding_cams_of_subspaces_add_up_to_that_of_the_whole(method: str) -> None:
    model, inputs = _model(head=True), _images(1)
    reference = embedding_of(model, _images(2))
    parts = [_cam(model, inputs, Similarity(reference, measure="dot", channels=own), method) for own in SUBSPACES]
    whole = _cam(model, inputs, Similarity(reference, measure="dot"), method)
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=1e-12)
    assert all((part - whole).abs().max() > 1e-3 for part in parts)


def _scenes(places: dict[int, tuple[int, int]], seed: int) -> torch.Tensor:
    """Dim noise, and a bright square of three a side in a colour of its own at each place."""
    image = 0.1 * torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for colour, (i, j) in places.items():
        image[colour, i : i + 3, j : j + 3] += 1
    return image


@pytest.mark.parametrize("colour", [0, 1])
def test_embedding_cam_finds_the_object_that_the_reference_shows_and_not_the_other(colour: int) -> None:
    torch.manual_seed(0)
    net = Embeds()
    net.layer = nn.Conv2d(3, 6, 1)
    nn.init.orthogonal_(net.layer.weight)
    nn.init.zeros_(net.layer.bias)
    net.forward = lambda x: net.layer(x).mean((2, 3))
    model = TorchModel(net.double(), geometry={"layer": GRID})
    shown = torch.stack([_scenes({colour: (i, 4 - i)}, seed=i) for i in range(4)])
    proxy = nn.functional.normalize(embedding_of(model, Inputs({"x": shown})), dim=1).mean(0)
    scene = _scenes({0: (0, 1), 1: (5, 4)}, seed=9)
    (found,) = _cam(model, Inputs({"x": scene[None]}), Similarity(proxy, measure="dot"))
    inside = torch.zeros(8, 8, dtype=torch.bool)
    i, j = {0: (0, 1), 1: (5, 4)}[colour]
    inside[i : i + 3, j : j + 3] = True
    marked = found > found.max() / 2
    assert float((marked & inside).sum() / (marked | inside).sum()) == 1
