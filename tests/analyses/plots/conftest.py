import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from analyses.dictionary.bundle import FeatureDictionary
from interp.stores.memory import MemoryStore
from interp.types import Activations, Latents


class Channels:
    """The raw channels as features: what fires is known beforehand."""

    trainable, site, labels, provenance, arguments = False, None, {0: "costs $5_"}, {}, {}

    def __init__(self, signed):
        self.d_in = self.d_sae = 4
        self.signed = signed

    @property
    def W_dec(self):
        return torch.eye(4)

    @property
    def W_enc(self):
        return torch.eye(4)

    def encode(self, x):
        return Latents.from_dense(x if self.signed else x.clamp_min(0))

    def decode(self, latents):
        return latents.dense()


@pytest.fixture(scope="session")
def values():
    """Channel 0 fires on all of 200 rows, channel 1 on every 10th, channel 2 has both signs, channel 3 never fires."""
    x = np.random.default_rng(0).lognormal(0, 1, (200, 4)).astype(np.float32)
    x[np.arange(200) % 10 > 0, 1] = 0
    x[::2, 2] *= -1
    x[:, 3] = 0
    return torch.from_numpy(x)


@pytest.fixture(scope="session")
def make_bundle(values, tmp_path_factory):
    def make(signed=False):
        rows = Activations(values, torch.arange(200) // 20, torch.arange(200) % 20)
        path = tmp_path_factory.mktemp("bundle") / "channels"
        return FeatureDictionary.build(Channels(signed), MemoryStore(rows), path, progress=False)

    return make


@pytest.fixture(scope="session")
def make_directions():
    return lambda: Channels(signed=False)


@pytest.fixture(scope="session")
def bundle(make_bundle):
    return make_bundle()


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")
