import pytest
import torch

from saes.baselines.identity import Identity


def test_identity_is_exact(store, rows) -> None:
    x = rows(100, seed=2)
    x[:, 3] = 0
    identity = Identity.fit(store)
    latents = identity.encode(x)
    assert torch.equal(identity.decode(latents), x)
    assert torch.equal(latents.dense(), x)
    assert latents.values.numel() == 500


def test_other_numbers_of_channels_are_refused() -> None:
    assert Identity(d_in=6, d_sae=6).d_sae == 6
    with pytest.raises(ValueError, match="d_sae is 5, but there are d_in = 6 channels: leave d_sae out"):
        Identity(d_in=6, d_sae=5)
