"""Two small models in float64 and a runner of each: pictures at the input, tokens at their embeddings."""

from typing import Any

import pytest
import torch
from torch import nn


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(2, 4, 3, 1, 1), nn.Conv2d(4, 5, 3, 2, 1), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x).tanh()).relu().mean((2, 3)))


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.mix(self.embed(input_ids)).tanh()
        weights = attention_mask[..., None].to(x)
        return self.head((x * weights).sum(1) / weights.sum(1))


@pytest.fixture
def pictures() -> Any:
    """From a number of examples and a batch size to a runner at the input."""
    from analyses.passes import Examples, Scorer
    from analyses.running import Runner
    from analyses.scores.class_logit import ClassLogit
    from interp.models.torch_module import TorchModel
    from interp.types import Geometry, Inputs, Site

    torch.manual_seed(0)
    grids = {
        "first": Geometry("grid", grid=(6, 7), stride=(1, 1), input_size=(6, 7)),
        "second": Geometry("grid", grid=(3, 4), stride=(2, 2), input_size=(6, 7)),
    }
    model = TorchModel(Convolutions().double(), geometry=grids)
    x = torch.randn(4, 2, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def runner(chosen: slice = slice(None), batch_size: int = 32, score: Any = None, site: str = "input") -> Runner:
        scorer = Scorer(model, ClassLogit(1) if score is None else score)
        return Runner(scorer, Examples.all(Inputs({"x": x[chosen]})), Site(site), batch_size=batch_size)

    return runner


@pytest.fixture
def texts() -> Any:
    """Likewise at the embeddings of tokens of several lengths."""
    from analyses.passes import Examples, Scorer
    from analyses.running import Runner
    from analyses.scores.class_logit import ClassLogit
    from interp.models.torch_module import TorchModel
    from interp.types import Inputs, Site

    torch.manual_seed(0)
    model = TorchModel(Sequences().double())
    mask = torch.arange(5) < torch.tensor([5, 2, 4, 1])[:, None]
    ids = torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(1))
    inputs = Inputs({"input_ids": ids, "attention_mask": mask}, mask)

    def runner(chosen: slice = slice(None), batch_size: int = 32) -> Runner:
        examples = Examples.all(inputs).some(torch.arange(4)[chosen])
        return Runner(Scorer(model, ClassLogit(1)), examples, Site("embed"), batch_size=batch_size)

    return runner
