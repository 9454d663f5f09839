import pytest
import torch
from torch import nn

from interp.models.text_output import TextOutput, mean_hidden, next_token_losses
from interp.stores.memory import MemoryStore
from interp.types import Activations, Geometry, Inputs, Item, Latents, Place, Site
from saes.metrics.base import Rows


@pytest.fixture
def rows() -> Rows:
    """30 rows of width 6 with 9 features of random codes, and some reconstruction of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, generator=generator) + 3
    codes = torch.rand(30, 9, generator=generator) * (torch.rand(30, 9, generator=generator) < 0.3)
    codes[:, 4] = 0
    recon = x + 0.5 * torch.randn(30, 6, generator=generator)
    return Rows(x, recon, Latents.from_dense(codes), x.double().mean(dim=0), torch.full((6,), 3.0))


class TinyText(nn.Module):
    """Embedding, one causal or full mixing step, head: enough of a text model to be spliced."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.causal = causal
        self.embed = nn.Embedding(13, 8)
        self.block = nn.Linear(8, 8)
        self.head = nn.Linear(8, 13)

    def forward(self, ids, mask):
        weights = mask[:, None, :].float().expand(-1, ids.shape[1], -1)
        weights = weights.tril() if self.causal else weights
        hidden = self.block((weights / weights.sum(-1, keepdim=True)) @ self.embed(ids)).tanh() + self.embed(ids)
        return TextOutput(hidden, self.head(hidden) * 3 if self.causal else None)


class FakeModel:
    name, fingerprint = "tiny", "0"

    def __init__(self, *, causal: bool) -> None:
        self.is_causal, self.module = causal, TinyText(causal=causal)

    def site(self, name):
        return Site.parse(name)

    def place(self, site):
        return Place(self.module.get_submodule(site.module), site.io, site.index)

    def geometry(self, site, inputs=None):
        return Geometry()

    def collate(self, token_ids):
        ids = nn.utils.rnn.pad_sequence(token_ids, batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(t) for t in token_ids])[:, None]
        return Inputs({"input_ids": ids}, mask)

    def forward(self, inputs):
        return self.module(inputs.tensors["input_ids"], inputs.mask)

    def embedding(self, output, inputs):
        return mean_hidden(output, inputs)

    def token_losses(self, output, inputs):
        return next_token_losses(output, inputs)


class Orthogonal:
    """An orthogonal basis in which the `k` largest coordinates are kept; all of them: the identity."""

    signed, trainable, site, labels, provenance = True, False, None, {}, {}

    def __init__(self, d_in: int, k: int) -> None:
        self.d_in = self.d_sae = d_in
        self.k = k
        self.W_dec = torch.linalg.qr(torch.randn(d_in, d_in, generator=torch.Generator().manual_seed(0)))[0]
        self.W_enc = self.W_dec.T

    def encode(self, x):
        codes = x @ self.W_enc
        kept = torch.zeros_like(codes).scatter(1, codes.abs().topk(self.k, dim=1).indices, 1.0)
        return Latents.from_dense(codes * kept)

    def decode(self, latents):
        return latents.dense() @ self.W_dec


@pytest.fixture
def orthogonal() -> type[Orthogonal]:
    return Orthogonal


@pytest.fixture
def causal() -> FakeModel:
    return FakeModel(causal=True)


@pytest.fixture
def encoder() -> FakeModel:
    return FakeModel(causal=False)


@pytest.fixture
def text_store():
    """Rows of the embeddings of 40 short texts; the first position of each is not kept."""

    def store(model: FakeModel) -> MemoryStore:
        generator = torch.Generator().manual_seed(1)
        tokens = [torch.randint(13, (4 + i % 6,), generator=generator) for i in range(40)]
        rows = Activations(
            model.module.embed(torch.cat([t[1:] for t in tokens])).detach(),
            torch.cat([torch.full((len(t) - 1,), i) for i, t in enumerate(tokens)]),
            torch.cat([torch.arange(1, len(t)) for t in tokens]),
        )
        return MemoryStore(rows, site="embed", items=[Item(tokens=t) for t in tokens])

    return store
