import torch

from interp.stores.memory import MemoryStore
from interp.types import Latents
from saes.metrics.splitting import splitting
from saes.probes.samples import gather


class Positive:
    signed, trainable, site, labels, provenance, W_enc = False, False, None, {}, {}, None

    def __init__(self, d: int) -> None:
        self.d_in = self.d_sae = d
        self.W_dec = torch.eye(d)

    def encode(self, x):
        return Latents.from_dense(x.relu())

    def decode(self, latents):
        return latents.dense()


def found_in(parts: list[int]):
    """A class that holds where any of some latents fires, beside latents that have nothing to do with it."""
    generator = torch.Generator().manual_seed(0)
    codes = (torch.rand(3000, 8, generator=generator) + 0.5) * (torch.rand(3000, 8, generator=generator) < 0.15)
    labels = (codes[:, parts] > 0).any(dim=1).long()
    sample = gather(MemoryStore.from_values(codes), labels, directions=Positive(8))
    return splitting(sample, "1")


def test_a_class_of_one_latent_is_not_split():
    found = found_in([3])
    assert found.latents == (3,)
    assert found.f1[1].value == 1
    assert list(found.f1) == [1, 2]


def test_a_class_of_three_latents_is_split_into_these():
    found = found_in([1, 4, 6])
    assert sorted(found.latents) == [1, 4, 6]
    assert found.f1[1].high < found.f1[2].low < found.f1[3].value == 1
    assert set(found.to_json()) == {"latents", "f1"}
