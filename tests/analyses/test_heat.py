"""Heat: the codes themselves, on the grid of their site, without padding."""

from typing import Any

import pytest
import torch

from analyses.heat import heat
from interp.capturing import capture
from interp.types import Site
from saes.topk import TopK


def _sae(d_in: int, site: str) -> TopK:
    torch.manual_seed(0)
    sae = TopK(d_in=d_in, d_sae=12, k=3).double().eval()
    sae.site = Site(site)
    return sae


def test_equals_encoding_each_position(pictures: Any) -> None:
    runner, sae = pictures(), _sae(5, "second")
    model, inputs = runner.scorer.model, runner.inputs
    found = heat(model, inputs, sae, [7, 2], batch_size=3)
    rows = capture(model, inputs, "second").rows("second").values
    expected = sae.encode(rows).dense()[:, [7, 2]].view(4, 3, 4, 2).movedim(-1, 1)
    assert found.features == (7, 2) and found.scores is None
    torch.testing.assert_close(found["heat"], expected.detach())


def test_padding_has_none(texts: Any) -> None:
    runner, sae = texts(), _sae(6, "embed")
    found = heat(runner.scorer.model, runner.inputs, sae, [0, 1, 2, 3, 4, 5])["heat"]
    assert found.shape == (4, 6, 5)
    assert not found[1, :, 2:].any() and found[0].any()


def test_what_is_no_feature_is_refused(pictures: Any) -> None:
    runner, sae = pictures(), _sae(5, "second")
    with pytest.raises(ValueError, match=r"features are \[12\], but the dictionary has 12: choose from 0..11"):
        heat(runner.scorer.model, runner.inputs, sae, [12])
    with pytest.raises(ValueError, match=r"features are \[\]"):
        heat(runner.scorer.model, runner.inputs, sae, [])
    with pytest.raises(ValueError, match="first holds vectors of width 4, but the directions have 5"):
        heat(runner.scorer.model, runner.inputs, sae, [1], site="first")
