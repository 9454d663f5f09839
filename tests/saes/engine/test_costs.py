"""What a training step costs, counted: products in units of one encoder product, and the largest tensor it makes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from interp.stores.memory import MemoryStore
from interp.types import Activations
from saes.base import SAE
from saes.batch_topk import BatchTopK
from saes.engine import selection
from saes.jumprelu import JumpReLU
from saes.penalties.aux_k import AuxK
from saes.penalties.l0 import L0
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

N, D_IN, D_SAE, CHUNK = 512, 32, 1024, 64
aten = torch.ops.aten


class Counted(TorchDispatchMode):
    """Multiply-adds of matrix products, and the largest tensor that any operation gave back."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (aten.mm, aten.addmm, aten.mv, aten.addmv, aten.bmm, aten.baddbmm):
            left = args[1] if func.overloadpacket in (aten.addmm, aten.addmv, aten.baddbmm) else args[0]
            self.products += out.numel() * left.shape[-1]
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out

    @property
    def units(self) -> float:
        return self.products / (N * D_IN * D_SAE)


def _step(sae: SAE, penalties: tuple = (), *, dead: float = 0.0, path: str = "auto") -> Counted:
    """The third step: by then thresholds are known."""
    values = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(tokens=10**6, batch_size=N, dead_tokens=10**5, normalise="none", path=path)
    store = MemoryStore(Activations(values, torch.arange(N), torch.zeros(N, dtype=torch.long)))
    trainer = Trainer([Job(sae, lr=1e-4, penalties=penalties)], config, store, progress=False)
    for _ in range(2):
        trainer.step(next(store.batches(N, seed=0)), log=False)
    trainer.states[0].silent[: int(dead * D_SAE)] = 10**6
    with Counted() as counted:
        trainer.step(next(store.batches(N, seed=0)), log=False)
    return counted


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(selection, "CHUNK_ROWS", CHUNK)
    monkeypatch.setattr(selection, "CHUNK_ENTRIES", CHUNK * D_SAE)


SPARSE = [
    pytest.param(lambda: TopK(d_in=D_IN, d_sae=D_SAE, k=8), (AuxK(),), id="TopK"),
    pytest.param(lambda: BatchTopK(d_in=D_IN, d_sae=D_SAE, k=8), (AuxK(),), id="BatchTopK"),
    pytest.param(lambda: BatchTopK(d_in=D_IN, d_sae=D_SAE, k=8, prefixes=[256, 512, 1024]), (), id="Matryoshka"),
    pytest.param(lambda: JumpReLU(d_in=D_IN, d_sae=D_SAE, threshold=2.5), (L0(),), id="JumpReLU"),
]


@pytest.mark.parametrize(("make", "penalties"), SPARSE)
def test_a_sparse_step_makes_one_product_and_nothing_larger_than_a_chunk(make, penalties) -> None:
    counted = _step(make(), penalties)
    assert 1.0 <= counted.units <= 1.1
    assert counted.largest == CHUNK * D_SAE


def test_dead_features_cost_four_products_of_their_share() -> None:
    """Their pre-activations are columns of the encoder's product."""
    counted = _step(TopK(d_in=D_IN, d_sae=D_SAE, k=8), (AuxK(),), dead=0.1)
    assert counted.units == pytest.approx(1.4, abs=0.02)
    assert counted.largest <= CHUNK * D_SAE


def test_a_dense_step_makes_five_products() -> None:
    sae = ReLU(d_in=D_IN, d_sae=D_SAE)  # Half of its latents fire: the dense engine takes over by itself.
    counted = _step(sae, (L1(),))
    assert 5.0 <= counted.units <= 5.1
    assert _step(ReLU(d_in=D_IN, d_sae=D_SAE), (L1(),), path="sparse").units <= 1.1
