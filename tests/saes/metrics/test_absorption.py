import json

import pytest
import torch

from interp.models.synthetic import SyntheticWorld
from interp.types import Latents
from saes.batch_topk import BatchTopK
from saes.metrics.absorption import absorption
from saes.probes.linear import fit_linear
from saes.probes.samples import gather
from saes.training import TrainConfig, train

PARENT, CHILD, N = 0, 4, 4000


class Codes:
    """The features of a world, read by their inverse; on demand with the parent absorbed by its child.

    Where the child fires the parent's latent is silent, and a share of it is written by the child's latent.
    """

    signed, trainable, site, labels, provenance, W_enc = False, False, None, {}, {}, None

    def __init__(self, world: SyntheticWorld, absorbed: float, length: float = 1.0) -> None:
        self.d_sae, self.d_in = world.features.shape
        self.inverse, self.absorbed, self.length = torch.linalg.pinv(world.features), absorbed, length
        self.origin = world.origin
        self.W_dec = world.features.clone()
        self.W_dec[CHILD] += absorbed * world.features[PARENT]
        self.W_dec *= length

    def encode(self, x):
        codes = (x - self.origin) @ self.inverse
        codes = codes * (codes > 0.3)
        codes[:, PARENT] -= self.absorbed * codes[:, PARENT] * (codes[:, CHILD] > 0)
        return Latents.from_dense(codes / self.length)

    def decode(self, latents):
        return latents.dense() @ self.W_dec + self.origin


@pytest.fixture(scope="module")
def case():
    """A world in which one feature is the child of another; rows labelled by the parent."""
    world = SyntheticWorld(
        n_features=12, d_in=48, mean_l0=3.0, zipf=0.3, noise=0.01, children_of={PARENT: [CHILD]}, offset=4.0
    )
    _, codes = world.sample(N)
    fires = codes.dense() != 0
    sample = gather(world.store(N), fires[:, PARENT].long()).versus_rest("1")
    return world, sample, fit_linear(sample, penalties=[1e-3]), fires


def test_the_true_dictionary_absorbs_nothing(case):
    world, sample, probe, _ = case
    found = absorption(Codes(world, 0.0), sample, probe)
    assert found.main == (PARENT,)
    assert found.rate.value == 0
    assert found.fraction.value < 0.01
    assert found.absorbers == {}


def test_a_parent_absorbed_by_hand_is_found_in_each_row_of_the_child_and_in_no_other(case):
    world, sample, probe, fires = case
    found = absorption(Codes(world, 1.0), sample, probe, main=[PARENT])
    test = sample.only("test")
    told = (test.labels == 1) & (probe.scores(test).argmax(1) == 1)
    rows = test.example[told]
    share = float(fires[rows, CHILD].float().mean())
    assert 0.2 < share < 0.95
    assert found.rows == len(rows)
    assert found.rate.value == pytest.approx(share, abs=0.01)
    assert found.fraction.value == pytest.approx(share, abs=0.02)
    assert list(found.absorbers) == [CHILD]
    assert found.rate.low < share < found.rate.high
    assert json.loads(json.dumps(found.to_json()))["main"] == [PARENT]


def test_a_part_absorbed_is_a_fraction_and_no_rate(case):
    """The main latent keeps 0.4 of the parent in rows of the child, whose latent writes the rest."""
    world, sample, probe, _ = case
    part, whole = (absorption(Codes(world, absorbed), sample, probe, main=[PARENT]) for absorbed in (0.6, 1.0))
    assert part.rate.value == 0
    assert part.fraction.value / whole.rate.value == pytest.approx(0.6, abs=0.05)


def test_the_length_of_decoder_rows_does_not_matter(case):
    world, sample, probe, _ = case
    one, other = (absorption(Codes(world, 1.0, length), sample, probe, main=[PARENT]) for length in (1.0, 5.0))
    assert (one.rate, one.absorbers) == (other.rate, other.absorbers)


def test_latents_of_a_split_class_are_no_absorbers(case):
    world, sample, probe, _ = case
    assert absorption(Codes(world, 1.0), sample, probe, main=[PARENT, CHILD]).rate.value == 0


def test_errors(case):
    world, sample, probe, _ = case
    coded = sample.through(Codes(world, 0.0))
    with pytest.raises(ValueError, match=r"absorption is of one, told by a probe of raw rows"):
        absorption(Codes(world, 0.0), coded, probe)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matryoshka_absorbs_less(seed: int) -> None:
    """16 parents of four children each: rate .24 (BatchTopK) against .07, fraction .40 against .12 (seed 0)."""
    children = {parent: [parent + 16 * nth for nth in range(1, 5)] for parent in range(16)}
    world, samples = SyntheticWorld(children_of=children, seed=seed), 1_000_000
    held, fires = world.store(16_384, offset=samples), world.sample(16_384, offset=samples)[1].dense() != 0
    told = [gather(held, fires[:, parent].long()).versus_rest("1") for parent in children]
    told = [(sample, fit_linear(sample, penalties=[1e-3])) for sample in told]
    store, rates, fractions = world.store(samples), [], []
    for prefixes in (None, [32, 64, 128, 256]):
        sae = BatchTopK(d_in=64, d_sae=256, k=5, seed=seed, prefixes=prefixes)
        (trained,) = train(sae, store, TrainConfig(tokens=samples, batch_size=1024, seed=seed), progress=False)
        found = [absorption(trained, sample, probe, resamples=0) for sample, probe in told]
        rates.append(sum(one.rate.value for one in found) / 16)
        fractions.append(sum(one.fraction.value for one in found) / 16)
    print(f"\nseed {seed}: rates {rates}, fractions {fractions}; without and with prefixes")
    assert rates[1] < 0.7 * rates[0]
    assert fractions[1] < 0.7 * fractions[0]
