"""Both weight gradients from the encode's node, against a node for each; the kernel's torch twin in float64."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.types import Latents
from saes.engine.handover import Handover, handover
from saes.engine.kernels import availability
from saes.engine.sparse import decode, decode_watched, kept_pre_acts
from saes.engine.stacking import Stack
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
N, D, M = 9, 4, 12
NAMES = ("x", "b_dec", "W_enc", "b_enc", "W_dec")


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _bags(table: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(indices, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


@pytest.fixture
def made(needs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Twins in the kernels' place, wanted for all tensors; how often both gradients were made at once."""
    needs("triton")
    from saes.engine.kernels import adam, gradients, products, selection, sums, twins

    calls: list[int] = []

    def counted(grad: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        calls.append(len(grad))
        return twins.weight_gradients(grad, *rest)

    monkeypatch.setattr(gradients, "weight_gradients", counted)
    monkeypatch.setattr(sums, "weighted_sums", _bags)
    monkeypatch.setattr(products, "inner_products", lambda a, b, rows, places: (a[rows] * b[places]).sum(1))
    monkeypatch.setattr(adam, "adam_step", twins.adam_step)
    monkeypatch.setattr(selection, "top_rows", lambda scores, k: _ascending(*scores.topk(k, dim=1)))
    monkeypatch.setattr(availability, "available", lambda tensor: True)
    with availability.switched(True):
        yield calls


def _ascending(values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    places, order = places.sort(dim=1)
    return values.gather(1, order), places


def _support(kind: str) -> Latents:
    if kind == "fixed k":
        indices = _random(N, M, seed=5).topk(3, dim=1).indices.sort(dim=1).values.flatten()
        return Latents(torch.ones(3 * N, dtype=torch.float64), indices, None, M, k=3)
    return Latents.from_dense((_random(N, M, seed=6) > (9 if kind == "none" else 0.8)).double())


class Case:
    """One encode, and decodes of its codes with what it hands over, if it may."""

    def __init__(self, kind: str, watch: Tensor | None, *, jointly: bool) -> None:
        shapes = ((N, D), (D,), (M, D), (M,), (M, D))
        leaves = [_random(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
        self.leaves = dict(zip(NAMES, leaves, strict=True))
        x, b_dec, W, b_enc, self.W_dec = leaves
        W_enc = W.T  # Of the orientation of SAE.W_enc.
        self.watch, support = watch, _support(kind)
        dense = ((x - b_dec) @ W_enc + b_enc).detach()
        self.given = handover(W_enc, self.W_dec) if jointly else None
        assert (self.given is not None) == jointly
        support = support.with_values(dense[support.rows, support.indices])
        watched = None if watch is None else dense[:, watch]
        codes, self.watched = kept_pre_acts(
            x, b_dec, W_enc, b_enc, support, watch=watch, watched=watched, to=self.given
        )
        self.latents = support.with_values(codes)

    def recon(self, latents: Latents | None = None) -> Tensor:
        latents = self.latents if latents is None else latents
        found, rows = decode_watched(latents, self.W_dec, self.watch, self.given)
        return found.sin().sum() + (0 if rows is None else (self.watched @ rows).tanh().sum())


def _twice(case: Case) -> Tensor:
    """A penalty decodes too, the same codes and some of its own making."""
    other = case.latents.with_values(case.latents.values.square())
    return case.recon() + decode(case.latents, case.W_dec).cos().sum() + case.recon(other) + case.W_dec.square().sum()


def _foreign(case: Case) -> Tensor:
    codes = Latents.from_dense(_random(N, M, seed=11).relu())
    return case.recon(codes) + case.latents.values.sum() + case.recon()


def _other_decoder(case: Case) -> Tensor:
    return decode_watched(case.latents, case.W_dec * 2, None, case.given)[0].sum() + case.latents.values.sin().sum()


LOSSES: dict[str, tuple[Callable[[Case], Tensor], int]] = {
    "both": (lambda case: case.recon() + case.latents.values.cos().sum(), 1),
    "reconstruction": (Case.recon, 1),
    "codes alone": (lambda case: case.latents.values.sin().sum(), 0),
    "codes that were cut off": (lambda case: case.recon(case.latents.detach()), 0),
    "several decodes": (_twice, 1),
    "codes from elsewhere": (_foreign, 1),
    "squared codes": (lambda case: case.recon(case.latents.with_values(case.latents.values.square())), 1),
    "another decoder": (_other_decoder, 0),
}


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("kind", ["any length", "fixed k", "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_two_nodes(loss: str, kind: str, watched: bool, made: list[int]) -> None:
    watch, (of, times) = torch.tensor([1, 5, 11]) if watched else None, LOSSES[loss]
    if watched and loss in ("codes from elsewhere", "several decodes", "another decoder"):
        watch = None  # Rows of watched features go along with one decode.
    expected, found = [], []
    for jointly, gradients in ((False, expected), (True, found)):
        case = Case(kind, watch, jointly=jointly)
        gradients += torch.autograd.grad(of(case), list(case.leaves.values()), allow_unused=True)
    # Where codes were cut off, watched features alone reach the encode.
    assert len(made) == (1 if loss == "codes that were cut off" and watch is not None else times)
    for name, ours, theirs in zip(NAMES, found, expected, strict=True):
        assert (ours is None) == (theirs is None), name  # Adam leaves alone what has no gradient.
        if ours is not None:
            torch.testing.assert_close(ours, theirs, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


def test_backward_passes_are_kept_apart(made: list[int]) -> None:
    """Some reach one node alone, and leave nothing behind for the next."""
    found = []
    for jointly in (False, True):
        case = Case("any length", None, jointly=jointly)
        loss, (W_enc, W_dec) = case.recon(), (case.leaves["W_enc"], case.W_dec)
        (alone,) = torch.autograd.grad(loss, case.latents.values, retain_graph=True)
        (decoder,) = torch.autograd.grad(loss, W_dec, retain_graph=True)
        (encoder,) = torch.autograd.grad(loss, W_enc, retain_graph=True)
        loss.backward(retain_graph=True)
        loss.backward()
        found.append([alone, decoder, encoder, W_enc.grad / 2, W_dec.grad / 2])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(found[1][1], found[1][4], **CLOSE)


def test_what_was_never_taken_is_not_kept(made: list[int]) -> None:
    """No circle of references holds a step's tensors until they are collected."""
    import gc
    import weakref

    gc.disable()
    try:
        case = Case("any length", None, jointly=True)
        alive = weakref.ref(case.given)
        del case
        assert alive() is None
    finally:
        gc.enable()


def test_only_parameters_of_one_width_are_handed_over(made: list[int]) -> None:
    W_enc, W_dec = torch.zeros(4, 12, requires_grad=True), torch.zeros(12, 4, requires_grad=True)
    assert isinstance(handover(W_enc, W_dec), Handover)
    for enc, dec in ((W_enc, None), (W_enc, W_dec.detach()), (W_enc.detach(), W_dec), (W_enc, torch.zeros(12, 5))):
        assert handover(enc, dec) is None
    with torch.no_grad():
        assert handover(W_enc, W_dec) is None
    with availability.switched(False):
        assert handover(W_enc, W_dec) is None


@pytest.mark.parametrize("own", [True, False])
def test_a_stack_makes_all_gradients_at_once(own: bool, made: list[int]) -> None:
    """Codes of another batch are sorted anew, and make W_dec's gradient where they are decoded."""
    found = []
    for jointly in (False, True):
        stack = Stack([TopK(d_in=D, d_sae=M, k=k, seed=k).double() for k in (2, 3)])
        watch = [None, torch.tensor([0, 7])]
        encoded = stack.encode(_random(N, D, seed=0), None, watch)
        decoded = encoded if own else stack.encode(_random(N, D, seed=1), None, watch)
        given = encoded[0].handover if jointly else None
        pairs = stack.decode([one.latents for one in decoded], watch, given)
        loss = sum(recon.sin().sum() + one.latents.values.sum() for (recon, _), one in zip(pairs, encoded, strict=True))
        (loss + (encoded[1].watched @ pairs[1][1]).tanh().sum()).backward()
        found.append([stack.W_enc.grad, stack.W_dec.grad, stack.b_enc.grad, stack.b_dec.grad])
    assert made == ([2 * N] if own else [])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")
@pytest.mark.parametrize("prefixes", [None, [4, 12]])
def test_training_makes_both_at_once_where_one_decode_serves(prefixes: list[int] | None, made, store) -> None:
    sae = TopK(d_in=6, d_sae=12, k=3, prefixes=prefixes)
    config = TrainConfig(tokens=3 * 8, batch_size=8, path="sparse", kernels=True)
    Trainer([Job(sae, lr=1e-3)], config, store, progress=False).run()
    assert made == ([8] * 3 if prefixes is None else [])
