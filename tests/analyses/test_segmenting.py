from typing import Any

import pytest
import torch
from torch import nn

import analyses
from analyses.segmentation.attention_maps import AttentionMaps
from analyses.segmentation.lost import LOST
from analyses.segmentation.token_clusters import TokenClusters
from analyses.segmentation.token_cut import TokenCut
from analyses.segmenting import Segments, segment
from interp.capturing import capture
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
TINY = SIZES | {"image_size": 16, "patch_size": 4}


def _vit(name: str = "ViT", **changes: Any) -> Any:
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**TINY | changes)
        return getattr(transformers, {"SiglipVision": "SiglipVisionModel"}.get(name, f"{name}Model"))(config).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(_vit().double(), attention="eager")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs({"pixel_values": torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()})


@pytest.fixture
def pictures() -> tuple[TorchModel, Inputs, torch.Tensor]:
    """A convolution that sees patches of 4 x 4 pixels, red ones among green; and where they are."""
    patches = nn.Conv2d(3, 3, 4, 4, bias=False)
    with torch.no_grad():
        patches.weight.copy_(torch.eye(3)[:, :, None, None].expand(-1, -1, 4, 4) / 16)
    grid = Geometry("grid", grid=(5, 6), stride=(4, 4), input_size=(20, 24))
    x = torch.zeros(2, 3, 20, 24)
    x[:, 1], masks = 1, torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    masks[0, 0, 1:3, 2:5], masks[1, 0, 3:, :2] = True, True
    red = masks.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, 0]
    x[:, 0][red], x[:, 1][red] = 1, 0
    return TorchModel(nn.Sequential(patches), geometry={"0": grid}), Inputs({"x": x}), masks


def test_planted_patches_are_found_and_grown_to_pixels(pictures: Any) -> None:
    model, inputs, masks = pictures
    found = analyses.segment(model, inputs, "0")
    assert torch.equal(found.masks, masks)
    assert found.boxes[:, 0].tolist() == [[2, 1, 5, 3], [0, 3, 2, 5]]
    whole = found.upsampled()
    red = inputs.tensors["x"][:, :1] > 0
    assert torch.equal(whole.masks, red)
    assert whole.boxes[:, 0].tolist() == [[8, 4, 20, 12], [0, 12, 8, 20]]
    assert whole.saliency.shape == (2, 1, 20, 24)
    double = found.upsampled((40, 48))
    assert torch.equal(double.masks, red.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(double.boxes, 2 * whole.boxes)


@pytest.mark.parametrize("method", [TokenCut(objects=2), LOST(4), TokenClusters(3), AttentionMaps(), "token-cut"])
def test_chunks_change_nothing(model: Any, inputs: Inputs, method: Any) -> None:
    whole, parts = segment(model, inputs, method=method), segment(model, inputs, method=method, batch_size=2)
    assert torch.equal(whole.masks, parts.masks)
    torch.testing.assert_close(whole.saliency, parts.saliency, rtol=1e-9, atol=1e-9)
    for name, numbers in whole.details.items():
        torch.testing.assert_close(numbers, parts.details[name], rtol=1e-9, atol=1e-9, equal_nan=True)
    assert whole.masks.shape[0] == 7 and whole.masks.shape[2:] == (4, 4)


def test_keys_of_the_last_block_without_prefix_tokens_are_read_by_default(model: Any, inputs: Inputs) -> None:
    found = segment(model, inputs)
    site = Site.parse("blocks.1.attn.k#4")
    assert found.site == site and found.geometry.grid == (4, 4)
    keys = capture(model, inputs, site).values[site]
    own = TokenCut()(keys[:, 1:].unflatten(1, (4, 4)))
    assert torch.equal(found.masks, own.masks) and torch.equal(found.saliency, own.saliency)


@pytest.mark.parametrize("name", ["ViT", "Dinov2WithRegisters"])
def test_attention_of_the_class_token_is_that_to_the_patches(name: str, inputs: Inputs) -> None:
    changes = {} if name == "ViT" else {"num_register_tokens": 3, "mlp_ratio": 2}
    model = load_model(_vit(name, **changes).double(), attention="eager")
    found = segment(model, inputs, method=AttentionMaps(per_head=True))
    site = Site("blocks.1.attn.hook_pattern")
    pattern = capture(model, inputs, site).values[site]
    prefix = 1 + changes.get("num_register_tokens", 0)
    given = pattern[:, :, 0, prefix:]
    assert found.site == site and found.geometry.prefix == prefix and found.masks.shape == (7, 4, 4, 4)
    torch.testing.assert_close(found.saliency.flatten(2), given / given.sum(-1, keepdim=True))
    torch.testing.assert_close(found.details["attended"], 1 - pattern[:, :, 0, :prefix].sum(-1))
    assert found.upsampled().masks.shape == (7, 4, 16, 16)


def test_sequences_are_cut_without_their_padding() -> None:
    """Components are stretches of tokens; what stands in the padding moves nothing."""
    tokens = nn.Embedding(4, 3)
    with torch.no_grad():
        tokens.weight.copy_(torch.tensor([[9.0, 9, 9], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    ids = torch.tensor([[1, 1, 1, 2, 2, 1, 1], [1, 1, 1, 1, 2, 0, 0], [2, 2, 1, 1, 1, 0, 0]])
    mask = ids > 0
    found = segment(TorchModel(nn.Sequential(tokens)), Inputs({"input": ids}, mask), "0", batch_size=2)
    assert torch.equal(found.masks[:, 0], ids == 2)
    assert found.boxes[:, 0].tolist() == [[3, 5], [4, 5], [0, 2]]
    assert float(found.saliency[:, 0][~mask].abs().max()) == 0
    with pytest.raises(ValueError, match="does not say which input its positions cover"):
        found.upsampled()


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_found(inputs: Inputs, fails: bool) -> None:
    module = _vit().double().train()
    model = load_model(module, attention="eager")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    bad = Inputs({"pixel_values": torch.full_like(inputs.tensors["pixel_values"], torch.nan)})
    for method in (TokenCut(), AttentionMaps()):
        if fails:
            with pytest.raises(ValueError, match="acts are not finite"):
                segment(model, bad, method=method)
        else:
            segment(model, inputs, method=method)
    assert all(part.training for part in module.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_patches_that_overlap_leave_gaps_or_begin_late() -> None:
    masks = torch.tensor([True, False, True]).view(1, 1, 3)

    def grown(**layout: Any) -> list[int]:
        geometry = Geometry("sequence", stride=(4,), input_size=(14,), **layout)
        found = Segments(masks, masks.float(), {}, Site("a"), geometry).upsampled()
        held = found.masks[0, 0].nonzero()[:, 0].tolist()
        assert found.boxes.tolist() == [[[min(held), max(held) + 1]]]
        return held

    assert grown(patch=(4,)) == [0, 1, 2, 3, 8, 9, 10, 11]  # the last two are in no patch
    assert grown(patch=(2,)) == [0, 1, 8, 9]  # nor are those between
    assert grown(patch=(8,)) == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]  # centres at 4, 8 and 12
    assert grown(patch=(4,), start=(1,)) == [1, 2, 3, 4, 9, 10, 11, 12]
    assert grown(patch=(4,), start=(-2,)) == [0, 1, 6, 7, 8, 9]


def test_what_cannot_be_asked_is_refused(model: Any, inputs: Inputs, pictures: Any) -> None:
    plain, given, _ = pictures
    with pytest.raises(ValueError, match=r"method names 'Cut', but known are AttentionMaps, LOST, TokenClusters"):
        segment(model, inputs, method="Cut")
    with pytest.raises(ValueError, match="batch_size is 0 for 7 examples"):
        segment(model, inputs, batch_size=0)
    with pytest.raises(ValueError, match=r"site is None, but .* has no blocks with .attn.k or .attn.hook_k: name a"):
        segment(plain, given)
    with pytest.raises(ValueError, match="blocks.1.attn.k#4, but AttentionMaps reads patterns: name one that ends in"):
        segment(model, inputs, "blocks.1.attn.k", method="AttentionMaps")
    with pytest.raises(ValueError, match="hook_pattern, but LOST reads vectors: name one with a vector each"):
        segment(model, inputs, "blocks.1.attn.hook_pattern", method="LOST")
    with pytest.raises(ValueError, match="runs sdpa attention, which makes no pattern"):
        segment(load_model(_vit(), attention="sdpa"), inputs, method="AttentionMaps")
    without = load_model(_vit("SiglipVision"), attention="eager")
    with pytest.raises(ValueError, match="has no class token before a grid there"):
        segment(without, inputs, method="AttentionMaps")
