import pytest
import torch

import saes
from saes.base import SAE
from saes.records import default_lr
from saes.topk import TopK


class Shifted(TopK):
    """A method of a user's own."""


def test_a_method_of_ones_own_is_loaded_when_it_is_passed_in(tmp_path) -> None:
    sae = Shifted(d_in=6, d_sae=64, k=3)
    sae.save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"loaded by classes=\[YourClass\]"):
        saes.load(tmp_path / "own.safetensors")
    assert type(saes.load(tmp_path / "own.safetensors", classes=[Shifted])) is Shifted


def test_without_candidates_there_is_no_method() -> None:
    with pytest.raises(NotImplementedError, match="SAE defines neither bound nor candidates"):
        SAE(d_in=6, d_sae=64).encode(torch.zeros(2, 6))


def test_dense_pre_acts_of_some_features(randomised) -> None:
    sae = randomised(TopK(d_in=6, d_sae=64, k=3).double())
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = torch.tensor([7, 3, 60])
    expected = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc)[:, features]
    torch.testing.assert_close(sae.pre_acts(x, features), expected, rtol=1e-12, atol=1e-12)


def test_arguments_are_shown() -> None:
    assert repr(TopK(d_in=6, d_sae=64, k=3)) == "TopK(d_in=6, d_sae=64, seed=0, k=3)"
    assert repr(TopK(d_in=6, d_sae=64, k=3, d_out=5)) == "TopK(d_in=6, d_sae=64, seed=0, k=3, d_out=5)"


def test_the_learning_rate_falls_with_width_and_with_the_length_of_the_run() -> None:
    assert default_lr(256, 1000) == pytest.approx(1e-2)
    for rates in ([default_lr(2**i, 1000) for i in range(8, 16)], [default_lr(256, 2**i) for i in range(8, 20)]):
        assert rates == sorted(rates, reverse=True)


def test_labels_that_do_not_fit_are_refused(tmp_path) -> None:
    sae = TopK(d_in=6, d_sae=64)
    sae.save(tmp_path / "sae.safetensors")
    content = (tmp_path / "sae.safetensors").read_bytes()
    broken = content.replace(b'\\"labels\\": {}', b'\\"labels\\": 12')
    assert broken != content
    (tmp_path / "sae.safetensors").write_bytes(broken)
    with pytest.raises(ValueError, match="does not fit saes.topk.TopK"):
        saes.load(tmp_path / "sae.safetensors")
