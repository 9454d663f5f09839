"""Folders and loaded models of images: the class, the weights, the preprocessing, what is refused."""

import json
import shutil
import socket

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    SegformerConfig,
    SegformerModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

from interp.capturing import capture
from interp.loading import load_model
from interp.models.vision import VisionModel
from interp.preprocessing import Preprocessing
from interp.types import Inputs, Site

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
TINY = SIZES | {"image_size": 16, "patch_size": 4}
TEXT = SIZES | {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 16, "width": 24}, "resample": 3,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip


def tiny(kind, config, **arguments):
    torch.manual_seed(0)
    return kind(config(**arguments or TINY)).eval()


def images(n=2, *size):
    return Inputs({"pixel_values": torch.randn(n, 3, *(size or (16, 16)), generator=torch.Generator().manual_seed(1))})


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def vit(tmp_path):
    """A folder with a classifier and a preprocessor."""
    folder = tmp_path / "tiny-vit"
    tiny(ViTForImageClassification, ViTConfig).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.mark.parametrize(
    ("kind", "config", "arguments"),
    [
        (ViTForImageClassification, ViTConfig, TINY),
        (Dinov2Model, Dinov2Config, TINY),
        (ViTMAEForPreTraining, ViTMAEConfig, TINY | {"decoder_num_hidden_layers": 1, "decoder_hidden_size": 16}),
        (CLIPModel, CLIPConfig, {"text_config": TEXT, "vision_config": TINY}),
        (SiglipModel, SiglipConfig, {"text_config": TEXT, "vision_config": TINY}),
    ],
)
def test_a_folder_equals_the_model_that_wrote_it(kind, config, arguments, tmp_path, no_network):
    plain = tiny(kind, config, **arguments)
    plain.save_pretrained(tmp_path / "saved")
    state = torch.get_rng_state()
    model = load_model(tmp_path / "saved")
    assert torch.equal(torch.get_rng_state(), state)
    beside = load_model(plain)
    assert isinstance(model, VisionModel)
    assert type(model.module) is type(beside.module)
    assert (model.name, model.fingerprint) == ("saved", beside.fingerprint)
    assert model.preprocessing == beside.preprocessing
    found, wanted = model.forward(images()), beside.forward(images())
    assert torch.equal(found.hidden, wanted.hidden)
    assert torch.equal(found.pooled, wanted.pooled)
    assert (found.logits is None) == (wanted.logits is None)


def test_the_preprocessing_is_the_files(vit, no_network):
    model = load_model(vit)
    assert model.preprocessing == Preprocessing.from_config(PROCESSOR)
    assert model.geometry(Site("blocks.0")).grid == (4, 6)
    picture = torch.full((16, 24, 3), 51, dtype=torch.uint8)
    inputs = model.collate([picture])
    wanted = (0.2 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.4, 0.5, 0.6])
    assert torch.allclose(inputs.tensors["pixel_values"], wanted[None, :, None, None].expand(1, 3, 16, 24), atol=1e-6)
    assert capture(model, inputs, ["blocks.1"]).rows("blocks.1").values.shape == (25, 16)
    own = Preprocessing(size=(8, 8))
    assert load_model(vit, preprocessing=own).preprocessing == own
    (vit / "preprocessor_config.json").rename(vit / "aside")
    (vit / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR, "processor_class": "X"}))
    assert load_model(vit).preprocessing == model.preprocessing
    (vit / "processor_config.json").unlink()
    (vit / "preprocessor_config.json").write_text(json.dumps({"size": 16, "do_resize": True, "do_pad": True}))
    with pytest.raises(ValueError, match="do_pad"):
        load_model(vit)


def test_the_usual_preprocessing_where_no_file_says():
    vit, dino = (load_model(tiny(*kind)) for kind in ((ViTModel, ViTConfig), (Dinov2Model, Dinov2Config)))
    assert vit.preprocessing == Preprocessing(
        size=(16, 16), resize=(16, 16), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    assert dino.preprocessing.mean == (0.485, 0.456, 0.406)
    clip = load_model(tiny(CLIPModel, CLIPConfig, text_config=TEXT, vision_config=TINY))
    assert clip.preprocessing.std == (0.26862954, 0.26130258, 0.27577711)
    grey = load_model(tiny(ViTModel, ViTConfig, **TINY, num_channels=1))
    assert grey.preprocessing.channels == 1
    assert grey.forward(grey.collate([torch.zeros(9, 9, dtype=torch.uint8)])).hidden.shape == (1, 17, 16)


def test_only_safetensors_are_read(vit):
    torch.save(ViTForImageClassification.from_pretrained(vit).state_dict(), vit / "pytorch_model.bin")
    (vit / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot be read.*only weights in safetensors are loaded"):
        load_model(vit)


def test_an_architecture_that_is_not_known_is_refused(tmp_path):
    one = {"depths": [1], "sr_ratios": [1], "hidden_sizes": [8], "num_attention_heads": [1], "mlp_ratios": [1]}
    config = SegformerConfig(num_encoder_blocks=1, patch_sizes=[4], strides=[4], **one)
    SegformerModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a SegformerModel, whose layout is not known"):
        load_model(tmp_path)


def test_a_pooler_that_no_checkpoint_gave_is_neither_used_nor_hashed(tmp_path):
    torch.manual_seed(0)
    ViTModel(ViTConfig(**TINY), add_pooling_layer=False).save_pretrained(tmp_path)
    first = load_model(tmp_path)
    torch.manual_seed(7)
    second = load_model(tmp_path)
    output = first.forward(images())
    assert torch.equal(output.pooled, output.hidden[:, 0])
    with torch.no_grad():
        second.module.pooler.dense.weight.add_(1)
    assert first.fingerprint == second.fingerprint
    trained = load_model(tiny(ViTModel, ViTConfig))
    output = trained.forward(images())
    assert not torch.allclose(output.pooled, output.hidden[:, 0], atol=1e-3)


def test_a_head_that_no_checkpoint_gave_is_not_run(vit):
    config = json.loads((vit / "config.json").read_text())
    tiny(ViTModel, ViTConfig).save_pretrained(vit)
    (vit / "config.json").write_text(json.dumps(config))
    model = load_model(vit)
    assert isinstance(model.module, ViTForImageClassification)
    assert model.forward(images()).logits is None


def test_a_head_is_run_though_the_token_of_masked_patches_is_missing(tmp_path):
    model = tiny(Dinov2ForImageClassification, Dinov2Config)
    state = {name: value for name, value in model.state_dict().items() if "mask_token" not in name}
    assert len(state) < len(model.state_dict())
    model.save_pretrained(tmp_path, state_dict=state)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path).forward(images()).logits, model(**images().tensors).logits)


def test_weights_of_other_shapes_and_broken_ones_are_refused(vit):
    config = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ValueError, match=r"layers\.0\.mlp.* has shape \[32.*\], but its config.json says \[48"):
        load_model(vit)
    (vit / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="which cannot be read"):
        load_model(vit)


def test_weights_that_do_not_fit_the_config_are_refused(vit):
    model = ViTForImageClassification.from_pretrained(vit)
    state = {name: value for name, value in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(vit, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks 4 weights, layers\.1\.mlp"):
        load_model(vit)


def test_attention_patterns_where_they_are_asked_for(vit, no_network):
    site = "blocks.1.attn.hook_pattern"
    eager, loaded = load_model(vit, attention="eager"), ViTForImageClassification.from_pretrained(vit)
    pattern = capture(eager, images(), [site]).values[Site(site)]
    assert pattern.shape == (2, 4, 17, 17)
    with pytest.raises(ValueError, match="runs sdpa attention"):
        capture(load_model(vit), images(), [site])
    assert torch.equal(capture(load_model(loaded, attention="eager"), images(), [site]).values[Site(site)], pattern)
    assert load_model(loaded).place(Site(site)).index == 1  # it keeps what it was asked to run


def test_towers_share_the_models_weights():
    plain = tiny(CLIPModel, CLIPConfig, text_config=TEXT, vision_config=TINY)
    model = load_model(plain)
    assert model.module is plain.vision_model
    assert model.name == "CLIPModel"
    found = capture(model, images(), ["ln_final"]).values[Site("ln_final")]
    projected = plain.visual_projection(found)
    with torch.no_grad():
        assert torch.allclose(plain.get_image_features(**images().tensors).pooler_output, projected, atol=1e-6)


def test_code_beside_a_checkpoint_is_not_run(vit, tmp_path):
    folder = tmp_path / "with-code"
    shutil.copytree(vit, folder)
    (folder / "evil.py").write_text("raise SystemExit('run')")
    processor = PROCESSOR | {"auto_map": {"AutoImageProcessor": "evil.Processor"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert load_model(folder).fingerprint == load_model(vit).fingerprint
