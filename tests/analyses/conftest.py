"""Small models in float64 and a runner of each: pictures at the input, tokens at their embeddings; patches and words of
transformers that show their attention."""

import importlib.util
import sys
from pathlib import Path
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


def _tokens(model: Any) -> Any:
    """From some of four texts of several lengths and a batch size to a runner at their embeddings."""
    from analyses.passes import Examples, Scorer
    from analyses.running import Runner
    from analyses.scores.class_logit import ClassLogit
    from interp.types import Inputs, Site

    mask = torch.arange(5) < torch.tensor([5, 2, 4, 1])[:, None]
    ids = torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(1))
    inputs = Inputs({"input_ids": ids, "attention_mask": mask}, mask)

    def runner(chosen: slice = slice(None), batch_size: int = 32) -> Runner:
        examples = Examples.all(inputs).some(torch.arange(4)[chosen])
        return Runner(Scorer(model, ClassLogit(1)), examples, Site("embed"), batch_size=batch_size)

    return runner


@pytest.fixture
def texts() -> Any:
    """Likewise at the embeddings of tokens of several lengths."""
    from interp.models.torch_module import TorchModel

    torch.manual_seed(0)
    return _tokens(TorchModel(Sequences().double()))


class Attention(nn.Module):
    """Two heads; the pattern beside what it gives, as models of Hugging Face hand it out."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (part(x).unflatten(-1, (2, 3)).transpose(1, 2) for part in (self.q, self.k, self.v))
        looks = q @ k.mT
        if mask is not None:
            looks = looks.masked_fill(~mask[:, None, None], -torch.inf)
        pattern = looks.softmax(-1)
        return self.o((pattern @ v).transpose(1, 2).flatten(2)), pattern


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2, self.attn = nn.LayerNorm(6), nn.LayerNorm(6), Attention()
        self.mlp = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attn(self.ln1(x), mask)[0]
        return x + self.mlp(self.ln2(x))


class Patches(nn.Module):
    """Patches behind a class token, which the head reads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Conv2d(2, 6, 2, 2), nn.Parameter(torch.randn(1, 1, 6))
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(2)), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


class Words(nn.Module):
    """Tokens that attend to no padding; the head reads their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Embedding(20, 6), nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, attention_mask)
        weights = attention_mask[..., None].to(x)
        return self.head((x * weights).sum(1) / weights.sum(1))


def _itself(pattern: torch.Tensor) -> torch.Tensor:
    return pattern


def _showing(net: nn.Module, **options: Any) -> Any:
    """The model with its patterns named."""
    from interp.models.torch_module import TorchModel
    from interp.types import Place

    parts = {f"blocks.{i}.attn.hook_pattern": Place(net.blocks[i].attn, index=1, read=_itself) for i in range(2)}
    return TorchModel(net, parts=parts, **options)


@pytest.fixture
def patches() -> Any:
    """From a number of examples and a batch size to a runner at a block of a transformer of 3 x 4 patches."""
    from analyses.passes import Examples, Scorer
    from analyses.running import Runner
    from analyses.scores.class_logit import ClassLogit
    from interp.types import Geometry, Inputs, Site

    torch.manual_seed(0)
    net = Patches().double()
    grid = {"grid": (3, 4), "stride": (2, 2), "input_size": (6, 8)}
    blocks = {f"blocks.{i}": Geometry("grid", prefix=1, **grid) for i in range(2)}
    model = _showing(net, geometry={"embed": Geometry("grid", **grid), **blocks})
    x = torch.randn(4, 2, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def runner(chosen: slice = slice(None), batch_size: int = 32, score: Any = None, site: str = "blocks.0") -> Runner:
        scorer = Scorer(model, ClassLogit(1) if score is None else score)
        return Runner(scorer, Examples.all(Inputs({"x": x[chosen]})), Site(site), batch_size=batch_size)

    return runner


@pytest.fixture
def words() -> Any:
    """Likewise at the embeddings of tokens of several lengths, of a transformer without a class token."""
    torch.manual_seed(0)
    return _tokens(_showing(Words().double()))


@pytest.fixture(scope="session")
def mapped_bundles():
    """The module of tiny bundles beside the tests, which are no package."""
    if "mapped_bundles" not in sys.modules:
        spec = importlib.util.spec_from_file_location("mapped_bundles", Path(__file__).parents[1] / "mapped_bundles.py")
        sys.modules["mapped_bundles"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["mapped_bundles"])
    return sys.modules["mapped_bundles"]
