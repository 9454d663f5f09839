import pytest
import torch

from interp.data.glyphs import glyphs
from interp.models.glyph_encoders import Encoded, random_encoder
from interp.pretrain.judging import Judge, raw_pixels


@pytest.fixture(scope="module")
def judge():
    return Judge(glyphs("train")[:600], glyphs("held_out")[:250])


def test_an_oracle_finds_everything_and_a_constant_nothing(judge):
    """Embeddings that are the code point and the category retrieve and probe without an error."""
    held_out = judge._points
    answers = {}
    for images, labels, points in (
        (judge._images[0], judge._categories[0], torch.zeros(600, dtype=torch.long)),
        (judge._images[1], judge._categories[1], held_out),
        (judge._queries, judge._categories[1], held_out),
    ):
        for image, label, point in zip(images, labels, points, strict=True):
            answers[image.numpy().tobytes()] = (label, point)

    def oracle(images):
        found = [answers[image.numpy().tobytes()] for image in images]
        labels, points = (torch.stack(column) for column in zip(*found, strict=True))
        one_hot = torch.nn.functional.one_hot
        pooled = torch.cat([one_hot(labels, 30), one_hot(points, 100)], dim=1).float()
        return Encoded(pooled, pooled[:, :, None, None].repeat(1, 1, 4, 4))

    known = judge.judge(oracle)
    assert known.share("retrieval").value == 1
    blind = judge.judge(lambda images: Encoded(torch.ones(len(images), 3), torch.ones(len(images), 3, 4, 4)))
    assert blind.share("retrieval").value < 0.15
    seen = set(judge._categories[0].tolist())
    could = sum(int(label) in seen for label in judge._categories[1]) / len(held_out)
    assert known.share("probe").value > could - 0.05
    assert known.share("patch").value > could - 0.05
    assert blind.ranks == pytest.approx((1, 1), abs=1e-3)
    assert known.above(blind, "retrieval").low > 0.8


def test_images_that_the_training_glyphs_hold_are_left_out(judge):
    train, held_out = glyphs("train")[:600].images, glyphs("held_out")[:250].images
    twins = sum(any(torch.equal(image, other) for other in train) for image in held_out)
    assert len(judge._images[1]) == len(judge._points) == len(judge._queries) == 250 - twins
    assert len(Judge(glyphs("held_out")[:250], glyphs("held_out")[100:300])._images[1]) <= 50


def test_retrieval_equals_a_slow_loop(judge):
    found = judge.judge(raw_pixels)
    images, fonts, points = judge._images[1].flatten(1), judge._fonts, judge._points
    queries, hits, total = judge._queries.flatten(1), 0, 0
    for font in fonts.unique():
        gallery = images[fonts == font]
        mean = gallery.mean(dim=0)
        for i in range(len(images)):
            same = (points == points[i]) & (fonts == font)
            if fonts[i] != font and same.any():
                cosines = torch.cosine_similarity(queries[i] - mean, gallery - mean)
                hits += bool((gallery[cosines.argmax()] == images[same][0]).all())
                total += 1
    assert len(found.hits["retrieval"][0]) == total
    assert found.share("retrieval").value == pytest.approx(hits / total)


def test_patches_stand_where_there_is_ink(judge):
    def places(images):
        inked = torch.nn.functional.max_pool2d(images, 4)
        return Encoded(images.flatten(1), inked)

    _, ink = judge._embedded(places, judge._images[1])
    assert (ink > 0.2).all()


def test_random_weights_get_the_statistics_of_the_glyphs(judge):
    encoder = judge.settled(random_encoder("resnet", seed=0))
    assert not encoder.training
    seen = []
    encoder.model.embedder.embedder.normalization.register_forward_hook(lambda _m, _i, out: seen.append(out))
    encoder(judge._images[0][:512])
    assert seen[0].mean().item() == pytest.approx(0, abs=0.02)
    assert seen[0].std().item() == pytest.approx(1, abs=0.05)
