import pytest
import torch
from torch import nn

from analyses.embeddings import embedding_of
from interp.models.torch_module import TorchModel
from interp.types import Inputs

INPUTS = Inputs({"x": torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)})


def test_is_what_the_model_gives_whatever_runs_together_and_leaves_it_as_found() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout()).double()
    model = TorchModel(net)
    before = model.fingerprint
    expected = embedding_of(model, INPUTS)
    for size in (1, 2, 5):
        torch.testing.assert_close(embedding_of(model, INPUTS, batch_size=size), expected, rtol=1e-12, atol=1e-12)
    assert net.training and all(part.training for part in net) and model.fingerprint == before
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    torch.testing.assert_close(net.eval()(INPUTS.tensors["x"]), expected)
    assert not expected.requires_grad
    with torch.inference_mode():
        assert not embedding_of(model, INPUTS).is_inference()


def test_a_model_without_an_embedding_is_refused_and_left_as_found() -> None:
    net = nn.Unflatten(1, (2, 2))
    with pytest.raises(ValueError, match="Unflatten has no embedding"):
        embedding_of(TorchModel(net), INPUTS)
    assert net.training
