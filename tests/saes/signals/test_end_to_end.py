from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from interp.harvesting import harvest
from interp.stores.base import RowStore
from interp.stores.memory import MemoryStore
from interp.stores.whole_examples import whole_examples
from interp.types import Activations, Latents
from saes.penalties.base import Step, reconstruction
from saes.signals.end_to_end import EndToEnd
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

SITE, LATER = "blocks.0", "blocks.1"


@pytest.fixture
def store(tiny_text: Any, sentences: Any) -> RowStore:
    (found,) = harvest(tiny_text, sentences(60), SITE, dtype="float32").values()
    return found


def _step(batch: Activations, recon: torch.Tensor, *, scale: float = 1.0, **more: Any) -> Step:
    """A step whose reconstruction is given."""
    none = Latents.from_dense(torch.zeros(len(batch), 4))
    zeros = torch.zeros(4)
    return Step(
        sae=TopK(d_in=8, d_sae=4, k=1),
        activations=replace(batch, values=batch.values * scale),
        latents=none,
        recon=recon,
        dead=zeros > 0,
        density=zeros,
        progress=0.0,
        scale=scale,
        **more,
    )


def _by_hand(model: Any, store: RowStore, batch: Activations, recon: torch.Tensor, measure: str) -> torch.Tensor:
    """One example after the other, through a hook of torch's own."""
    values = []
    for example in batch.example.unique().tolist():
        own = batch.example == example
        inputs = model.collate([store.items[example].tokens])

        def put(_module: Any, _args: Any, out: torch.Tensor, own: torch.Tensor = own) -> torch.Tensor:
            new = out.clone()
            new[0, batch.position[own]] = recon[own]
            return new

        clean = model.forward(inputs).detach()
        handle = model.module.blocks[0].register_forward_hook(put)
        moved = model.forward(inputs)
        handle.remove()
        if measure == "kl":
            values += list(F.kl_div(moved.log_softmax(-1), clean.softmax(-1), reduction="none").sum(-1)[0])
        else:
            one, two = (model.embedding(output, inputs) for output in (clean, moved))
            values.append(1 - F.cosine_similarity(one, two)[0])
    return torch.stack(values).mean()


@pytest.mark.parametrize("measure", ["kl", "cosine"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_equals_the_slow_way_with_its_gradient(tiny_text: Any, store: RowStore, measure: Any, scale: float) -> None:
    batch = next(whole_examples(store).batches(64, seed=0))
    moved = batch.values + 0.5 * torch.randn(batch.values.shape, generator=torch.Generator().manual_seed(0))
    ours = (moved * scale).requires_grad_()
    found = EndToEnd(tiny_text, store, measure=measure)(_step(batch, ours, scale=scale))
    (grad,) = torch.autograd.grad(2 * found, ours)
    slow = (moved * scale).requires_grad_()
    expected = _by_hand(tiny_text, store, batch, slow / scale, measure)
    (known,) = torch.autograd.grad(2 * expected, slow)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.item() > 1e-3
    torch.testing.assert_close(grad, known, rtol=1e-4, atol=1e-7)


def test_rows_in_any_order(tiny_text: Any, store: RowStore) -> None:
    batch = next(whole_examples(store).batches(64, seed=0))
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
    signal = EndToEnd(tiny_text, store, measure="kl")
    one, two = signal(_step(batch, batch.values + 1)), signal(_step(batch[order], batch.values[order] + 1))
    assert float(one) == pytest.approx(float(two), rel=1e-5)


@pytest.mark.parametrize("measure", ["kl", "cosine"])
def test_the_identity_gives_0(tiny_text: Any, store: RowStore, measure: Any) -> None:
    batch = next(whole_examples(store).batches(64, seed=0))
    signal = EndToEnd(tiny_text, store, measure=measure, downstream=[LATER])
    assert abs(float(signal(_step(batch, batch.values.clone())))) < 1e-6


def test_downstream_and_reconstruction_are_added(tiny_text: Any, store: RowStore) -> None:
    batch = next(whole_examples(store).batches(64, seed=0))
    step = _step(batch, torch.zeros_like(batch.values), scale=2.0)
    alone = float(EndToEnd(tiny_text, store, measure="kl")(step))
    both = float(EndToEnd(tiny_text, store, downstream=[LATER], downstream_coefficient=3.0, measure="kl")(step))
    with torch.no_grad():
        inputs = tiny_text.collate([store.items[i].tokens for i in batch.example.unique().tolist()])
        kept: list[torch.Tensor] = []
        handles = [tiny_text.module.blocks[1].register_forward_hook(lambda _m, _a, out: kept.append(out))]
        tiny_text.forward(inputs)
        clean_mask = torch.zeros(kept[0].shape[:2], dtype=torch.bool)
        clean_mask[batch.example.unique(return_inverse=True)[1], batch.position] = True
        put = lambda _m, _a, out: torch.where(clean_mask[:, :, None], 0.0, out)  # noqa: E731
        handles.append(tiny_text.module.blocks[0].register_forward_hook(put))
        tiny_text.forward(inputs)
        for handle in handles:
            handle.remove()
    clean, moved = (part.flatten(0, 1) for part in kept)
    fvu = (moved - clean).square().sum() / (clean - clean.mean(0)).square().sum()
    assert both - alone == pytest.approx(3 * float(fvu), rel=1e-4)
    added = float(EndToEnd(tiny_text, store, reconstruction_coefficient=0.5, measure="kl")(step))
    assert added - alone == pytest.approx(0.5 * float(reconstruction(step)), rel=1e-5)


def test_prefixes_are_averaged(tiny_text: Any, store: RowStore) -> None:
    batch = next(whole_examples(store).batches(64, seed=0))
    signal = EndToEnd(tiny_text, store)
    recons = torch.stack([torch.zeros_like(batch.values), batch.values + 1]).requires_grad_()
    alone = [float(signal(_step(batch, recon.detach()))) for recon in recons]
    found = signal(_step(batch, recons[-1], prefix_recons=recons))
    assert float(found) == pytest.approx(sum(alone) / 2, rel=1e-5)
    (grad,) = torch.autograd.grad(found, recons)
    assert (grad.abs().amax(dim=(1, 2)) > 0).all()


def test_training_finds_what_the_model_reads_and_leaves_the_model(tiny_text: Any, sentences: Any) -> None:
    network = tiny_text.module.train()
    with torch.no_grad():  # Half of the site's dimensions are loud, and nothing reads them.
        network.blocks[0].weight[:4] *= 5
        network.blocks[1].weight[:, :4] = 0
        network.head.weight[:, :4] = 0
    (store,) = harvest(tiny_text, sentences(60), SITE, dtype="float32").values()
    before = [parameter.clone() for parameter in tiny_text.module.parameters()]
    whole = whole_examples(store)
    signal = EndToEnd(tiny_text, whole, measure="kl")
    config = TrainConfig(tokens=40 * 128, batch_size=128, log_every=40)
    found = {}
    for name, one in (("end to end", signal), ("local", reconstruction)):
        job = Job(TopK(d_in=8, d_sae=16, k=1), name="a", lr=1e-2, penalties=(), signal=one)
        (sae,) = Trainer([job], config, whole, progress=False).run()
        rows = store.span(0, len(store))
        with torch.no_grad():
            found[name] = float(signal(_step(rows, sae(rows.values))))
    assert found["end to end"] < 0.5 * found["local"], found
    assert tiny_text.module.training and all(p.requires_grad and p.grad is None for p in tiny_text.module.parameters())
    assert all(map(torch.equal, before, tiny_text.module.parameters()))


def test_a_run_says_what_it_was_trained_on_and_goes_on_after_a_kill(
    tiny_text: Any, store: RowStore, tmp_path: Path
) -> None:
    whole = whole_examples(store)

    def trainer(run: Path | None, **more: Any) -> Trainer:
        job = Job(TopK(d_in=8, d_sae=16, k=2), name="a", signal=EndToEnd(tiny_text, whole, measure="kl"))
        config = TrainConfig(tokens=20 * 64, batch_size=64, checkpoint_every=8)
        return Trainer([job], config, whole, run=run, progress=False, **more)

    (straight,) = trainer(None).run()
    assert straight.provenance["training"]["signal"]["measure"] == "kl"
    first = trainer(tmp_path / "run")
    first.observers = [_stop_at(10)]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    (resumed,) = trainer(tmp_path / "run", resume=True).run()
    assert all(torch.equal(one, resumed.state_dict()[name]) for name, one in straight.state_dict().items())


def _stop_at(step: int) -> Any:
    def observe(metrics: Any) -> None:
        if metrics[0].step >= step:
            raise KeyboardInterrupt

    return observe


def test_what_is_refused(tiny_text: Any, store: RowStore) -> None:
    bare = MemoryStore.from_values(torch.randn(5, 8), site=SITE)
    with pytest.raises(ValueError, match="downstream_coefficient is -1.0, but it is at least 0"):
        EndToEnd(tiny_text, store, downstream_coefficient=-1.0)
    with pytest.raises(ValueError, match="downstream names blocks.0, where the SAE itself is"):
        EndToEnd(tiny_text, store, downstream=[SITE])
    with pytest.raises(ValueError, match=r"inputs is None, but items of the store \(blocks.0\) hold no tokens"):
        EndToEnd(tiny_text, bare)
    batch = store.span(0, 8)
    transcoding = _step(replace(batch, target=batch.values), batch.values)
    with pytest.raises(ValueError, match="predicts another site than blocks.0"):
        EndToEnd(tiny_text, store, measure="kl")(transcoding)
    tiny_text.forward = lambda inputs: object()
    with pytest.raises(ValueError, match="tiny-text gives no logits: compare embeddings"):
        EndToEnd(tiny_text, store, measure="kl")(_step(batch, batch.values))
