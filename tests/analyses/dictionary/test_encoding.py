import numpy as np
import pytest
import torch

from analyses.dictionary.encoding import encode, encoded_batches, evaluating, whole_batches
from interp.types import Activations, Latents
from saes.topk import TopK


def test_codes_do_not_depend_on_the_batches(make_store, planted):
    store, directions = make_store(), planted(seed=2)
    directions.weights = torch.randn(70, 6, generator=torch.Generator().manual_seed(0))  # Not exact in float32.
    directions.threshold = 2.0
    codes = [list(encoded_batches(directions, store, rows)) for rows in (1024, 2048, 4096)]
    assert len(codes[0]) > 2
    for name in ("values", "features", "example", "position"):
        first, *others = [np.concatenate([getattr(batch, name) for batch in batches]) for batches in codes]
        assert all(np.array_equal(first, other) for other in others)


def test_zeros_of_rows_of_fixed_length_are_no_firing(planted):
    directions = planted()
    directions.encode = lambda x: Latents(
        torch.tensor([1.0, 0.0, 0.0, 0.0, 2.0, 3.0]), torch.tensor([4, 0, 0, 1, 6, 2]), None, 70, k=2
    )
    codes = encode(directions, Activations(torch.ones(3, 6), torch.arange(3), torch.zeros(3, dtype=torch.long)))
    assert codes.values.tolist() == [1, 2, 3] and codes.features.tolist() == [4, 6, 2]
    assert codes.offsets.tolist() == [0, 1, 1, 3] and codes.rows.tolist() == [0, 2, 2]


def test_codes_must_be_finite(planted):
    directions = planted()
    directions.weights = directions.weights * torch.inf
    with pytest.raises(ValueError, match="a code that is NaN or infinite: check its weights"):
        encode(directions, Activations(torch.ones(1, 6), torch.zeros(1).long(), torch.zeros(1).long()))


def test_gradients_reach_an_encoder_that_asks_for_them(planted):
    directions, seen = planted(), []

    def encode_with(x, grads=None):
        seen.append(grads)
        return planted().encode(x)

    directions.encode = encode_with
    address = torch.arange(2)
    encode(directions, Activations(torch.ones(2, 6), address, address, grads=torch.full((2, 6), 2.0)))
    encode(directions, Activations(torch.ones(2, 6), address, address))
    assert torch.equal(seen[0], torch.full((2, 6), 2.0)) and seen[1] is None


def test_mode_is_evaluation_and_put_back():
    sae = TopK(d_in=6, d_sae=64, k=4)
    with pytest.raises(RuntimeError), evaluating(sae):
        assert not sae.training
        raise RuntimeError
    assert sae.training
    with evaluating(sae.eval()):
        pass
    assert not sae.training


def test_batches_are_whole_chunks():
    assert [whole_batches(n) for n in (1, 1024, 1025)] == [1024, 1024, 2048]
    with pytest.raises(ValueError, match="batch_rows is 0, but a batch needs at least one row"):
        whole_batches(0)
