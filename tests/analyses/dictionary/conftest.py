import numpy as np
import pytest
import torch

from interp.stores.memory import MemoryStore
from interp.types import Activations, Item, Latents


class Planted:
    """Directions with whole-number weights: sums are exact, so a loop in Python gives the very same numbers."""

    trainable = False
    site = None

    def __init__(self, d_in=6, d_sae=70, *, threshold=9.0, signed=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.d_in, self.d_sae, self.threshold, self.signed = d_in, d_sae, threshold, signed
        self.labels, self.provenance, self.arguments = {3: "three"}, {"made": "here"}, {"threshold": threshold}
        self.weights = torch.randint(-2, 3, (d_sae, d_in), generator=generator).float()
        self.weights[5] = 0  # Never fires.

    @property
    def W_dec(self):
        return self.weights

    @property
    def W_enc(self):
        return None if self.signed else self.weights.T

    def encode(self, x):
        pre_acts = x @ self.weights.T
        strength = pre_acts.abs() if self.signed else pre_acts
        return Latents.from_dense(torch.where(strength > self.threshold, pre_acts, 0.0))

    def decode(self, latents):
        return latents.dense() @ self.weights


PIECES = (" the", " <b>", "&amp;", "ing", " self", "(", "_", " 42", "\n", "é", '"')


def planted_store(examples=60, longest=80, d_in=6, seed=1, **about):
    """Examples of many lengths; their first position is left out, as a special token would be."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, longest, examples)
    lengths[7] = 1  # An example without rows.
    example = np.repeat(np.arange(examples), lengths - 1)
    position = np.concatenate([np.arange(1, n) for n in lengths])
    values = rng.integers(-3, 4, (len(example), d_in)).astype(np.float32)
    items = [
        Item(pieces=tuple(rng.choice(PIECES, n)), labels={"package": f"p{i % 3}", "<k>": "a & b"})
        for i, n in enumerate(lengths)
    ]
    rows = Activations(torch.from_numpy(values), torch.from_numpy(example), torch.from_numpy(position))
    return MemoryStore(rows, items=items, provenance={"dataset": "planted"}, **about)


@pytest.fixture
def planted():
    return Planted


@pytest.fixture
def make_store():
    return planted_store


@pytest.fixture(scope="session")
def store():
    return planted_store()


@pytest.fixture
def contents():
    """Every file of a bundle, by name."""
    return lambda path: {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
