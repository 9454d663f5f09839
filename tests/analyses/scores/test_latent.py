from typing import Any

import pytest
import torch

from analyses.scores.base import Pass
from analyses.scores.latent import Latent
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site
from saes.baselines.pca import PCA
from saes.probes.linear import fit_linear
from saes.probes.samples import Sample
from saes.topk import TopK

SITE = Site("layer")
MASK = torch.tensor([[True, True, True, False], [True, True, True, True]])


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def sae() -> TopK:
    torch.manual_seed(0)
    sae = TopK(d_in=6, d_sae=12, k=4).eval()
    sae.site = SITE
    return sae


def _run(rows: torch.Tensor, mask: torch.Tensor | None = MASK) -> Pass:
    model = TorchModel(torch.nn.Identity())
    return Pass(model, Inputs({"x": rows}, mask), None, {SITE: rows}, {SITE: Geometry()})


def test_codes_are_gathered_over_positions_that_hold_data(rows: torch.Tensor, sae: TopK) -> None:
    codes = sae.encode(rows.flatten(0, 1)).dense().view(2, 4, 12)
    feature = int((codes[MASK] > 0).sum(0).argmax())
    own = codes[:, :, feature]
    score = {over: Latent(sae, feature, over=over)(_run(rows)) for over in ("sum", "mean", "max", 1)}
    torch.testing.assert_close(score["sum"], torch.stack([own[0, :3].sum(), own[1].sum()]))
    torch.testing.assert_close(score["mean"], torch.stack([own[0, :3].mean(), own[1].mean()]))
    torch.testing.assert_close(score["max"], torch.stack([own[0, :3].max(), own[1].max()]))
    torch.testing.assert_close(score[1], own[:, 1])
    torch.testing.assert_close(Latent(sae, feature, over="sum")(_run(rows, None)), own.sum(1))


@pytest.mark.parametrize("linear", [False, True])
def test_each_example_may_have_a_feature_and_a_position_of_its_own(rows: torch.Tensor, sae: TopK, linear: bool) -> None:
    rows = rows.detach()
    features, at = torch.tensor([7, 3]), torch.tensor([2, 0])
    numbers = torch.tensor([1, 0, 1])
    inputs = Inputs({"x": rows[numbers]}, MASK[numbers])
    model = TorchModel(torch.nn.Identity())
    run = Pass(model, inputs, None, {SITE: rows[numbers]}, {SITE: Geometry()}, numbers, 2)
    for over in ("sum", "max", at, 1):
        found = Latent(sae, features, over=over, linear=linear)(run)
        for place, number in enumerate(numbers.tolist()):
            where = int(over[number]) if isinstance(over, torch.Tensor) else over
            mask = MASK[number : number + 1]
            one = Pass(model, Inputs({"x": rows}, mask), None, {SITE: rows[number : number + 1]}, {SITE: Geometry()})
            alone = Latent(sae, int(features[number]), over=where, linear=linear)(one)
            torch.testing.assert_close(found[place], alone[0], msg=str(over))


def test_linear_reads_what_selection_would_hide(rows: torch.Tensor, sae: TopK) -> None:
    expected = ((rows - sae.b_dec) @ sae.W_enc + sae.b_enc)[:, :, 5]
    torch.testing.assert_close(Latent(sae, 5, over="sum", linear=True)(_run(rows, None)), expected.sum(1))
    (grads,) = torch.autograd.grad(Latent(sae, 5, over="sum", linear=True)(_run(rows, None)).sum(), rows)
    torch.testing.assert_close(grads, sae.W_enc[:, 5].detach().expand(2, 4, 6))


@pytest.mark.parametrize("through", [False, True])
def test_a_probe_is_a_score_with_a_gradient(rows: torch.Tensor, sae: TopK, through: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    x, labels = torch.randn(200, 6, generator=draw), torch.arange(200) % 2
    x[labels == 1, 2] += 2
    parts = torch.arange(200) % 3
    sample = Sample(x, labels, ("no", "yes"), torch.arange(200), parts, None, SITE, {})
    probe = fit_linear(sample.through(sae) if through else sample)
    scores = Latent(probe, 1, over="sum")(_run(rows, None))
    flat = rows.flatten(0, 1)
    codes = sae.encode(flat).dense() if through else flat
    expected = (codes @ probe.weight + probe.bias)[:, 1].view(2, 4).sum(1)
    torch.testing.assert_close(scores, expected)
    ours, theirs = (torch.autograd.grad(part.sum(), rows, retain_graph=True)[0] for part in (scores, expected))
    torch.testing.assert_close(ours, theirs)
    assert ours.any()


def test_what_cannot_be_read_is_refused(rows: torch.Tensor, sae: TopK) -> None:
    with pytest.raises(ValueError, match="feature is 12, but the dictionary has 12: choose from 0..11"):
        Latent(sae, 12)
    with pytest.raises(ValueError, match=r"feature is tensor\(\[ 3, 12\]\), but the dictionary has 12"):
        Latent(sae, torch.tensor([3, 12]))
    with pytest.raises(
        ValueError, match="feature has 3 entries, but there are 2 examples: give one feature an example"
    ):
        Latent(sae, torch.tensor([1, 2, 3]))(_run(rows))
    with pytest.raises(
        ValueError, match=r"over is \[0, 4\], but layer has 4 positions, and some of these examples hold no data"
    ):
        Latent(sae, 0, over=torch.tensor([0, 4]))(_run(rows))
    for padded in (3, torch.tensor([3, 3])):
        with pytest.raises(ValueError, match=r"over is \[3, 3\], but layer has 4 positions, and some of these"):
            Latent(sae, 0, over=padded)(_run(rows))
    with pytest.raises(ValueError, match="holds vectors of width 5, but the directions read 6"):
        Latent(sae, 0)(_run(rows[..., :5]))
    sae.site = None
    with pytest.raises(ValueError, match="site is None, and the directions do not know theirs: give site="):
        Latent(sae, 0)
    assert Latent(sae, 0, site="layer").sites == ("layer",)
    bare: Any = PCA(d_in=6, d_sae=6)
    bare.site, bare.W_enc = SITE, None
    with pytest.raises(ValueError, match="linear is True, but these directions have no W_enc"):
        Latent(bare, 0, linear=True)
