"""Raw maps equal those of captum and pytorch-grad-cam, whose values `make parity` wrote into `tests/goldens`."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from analyses.attributing import attribute
from analyses.attribution.gradient import Gradient
from analyses.attribution.input_x_gradient import InputXGradient
from analyses.attribution.integrated_gradients import IntegratedGradients
from analyses.attribution.occlusion import Occlusion
from analyses.cam.ablation_cam import AblationCAM
from analyses.cam.eigen_cam import EigenCAM
from analyses.cam.eigen_grad_cam import EigenGradCAM
from analyses.faithfulness.hiding import covered
from analyses.faithfulness.infidelity import infidelity
from analyses.faithfulness.sensitivity import largest_change
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from analyses.scores.class_logit import ClassLogit
from interp.capturing import capture
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs

FOLDER = Path(__file__).parents[1] / "goldens"
GOLDEN = load_file(FOLDER / "maps.safetensors")
OURS: dict[str, Any] = {
    "GradCAM": "GradCAM",
    "HiResCAM": "HiResCAM",
    "GradCAMElementWise": "ElementwiseCAM",
    "LayerCAM": "LayerCAM",
    "XGradCAM": "XGradCAM",
    "GradCAMPlusPlus": "GradCAMPlusPlus",
    "EigenCAM": EigenCAM(center=True),
    "EigenGradCAM": EigenGradCAM(center=True),
    "AblationCAM": AblationCAM(relative=True),
}
GEOMETRY = {
    "resnet": {"layer1": Geometry("grid", grid=(16, 16)), "layer2": Geometry("grid", grid=(8, 8))},
    "vit": {"blocks.0": Geometry("grid", grid=(4, 4), prefix=1)},
}


def _networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("networks", FOLDER / "networks.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["networks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NETWORKS = _networks()
INPUTS = Inputs({"x": NETWORKS.pixels()})
SCORE = ClassLogit(NETWORKS.CLASSES)


def _model(name: str) -> TorchModel:
    return TorchModel(NETWORKS.NETWORKS[name](), geometry=GEOMETRY[name])


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    theirs = theirs.to(ours)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))


CAMS = [key.split(".", 2)[1:] for key in GOLDEN if key.startswith("grad_cam")]


@pytest.mark.parametrize(("name", "place"), CAMS)
def test_class_activation_maps_equal_grad_cams(name: str, place: str) -> None:
    site, _, method = place.rpartition(".")
    theirs = GOLDEN[f"grad_cam.{name}.{place}"].double()
    ours = next(iter(attribute(_model(name), INPUTS, site, score=SCORE, methods=[OURS[method]]).values.values()))
    if method.startswith("Eigen"):  # theirs has whatever sign the decomposition gave
        theirs = theirs * (theirs * ours).sum((1, 2), keepdim=True).sign()
    _close(ours, theirs)


def test_all_methods_were_compared() -> None:
    assert {place.rpartition(".")[2] for _, place in CAMS} == OURS.keys()
    assert set(json.loads((FOLDER / "maps.json").read_text())) == {"captum", "grad-cam", "torch", "numpy"}


@pytest.fixture(params=["resnet", "vit"])
def at_pixels(request: Any) -> tuple[str, Runner]:
    model = _model(request.param)
    return request.param, Runner(Scorer(model, SCORE), Examples.all(INPUTS), model.site("input"))


def test_attributions_of_pixels_equal_captums(at_pixels: tuple[str, Runner]) -> None:
    name, runner = at_pixels
    _close(Gradient().attributions(runner), GOLDEN[f"captum.{name}.gradient"])
    _close(InputXGradient().attributions(runner), GOLDEN[f"captum.{name}.input_x_gradient"])
    _close(IntegratedGradients(steps=20).attributions(runner), GOLDEN[f"captum.{name}.integrated_gradients"])
    occlusion = GOLDEN[f"captum.{name}.occlusion"]
    assert torch.equal(occlusion[:, 0], occlusion[:, 1])  # a window covers all channels
    _close(Occlusion(window=4, stride=3).measured(runner)[0], occlusion[:, 0])


def test_smooth_grad_equals_captums_at_its_own_noise(at_pixels: tuple[str, Runner]) -> None:
    name, runner = at_pixels
    noisy = GOLDEN[f"captum.{name}.smooth_grad_inputs"].double()
    _close(torch.stack(list(runner.gradients_of(noisy))).mean(0), GOLDEN[f"captum.{name}.smooth_grad"])


def test_sensitivity_equals_captums_at_its_own_moves(at_pixels: tuple[str, Runner]) -> None:
    name, runner = at_pixels
    moves = GOLDEN[f"captum.{name}.sensitivity_moves"]
    maps, *others = (
        Gradient("sum").measured(Runner(runner.scorer, Examples.all(Inputs({"x": x})), runner.site))[0]
        for x in [runner.values, *(runner.values + moves.to(runner.values)[:, None])]
    )
    _close(largest_change(maps, others), GOLDEN[f"captum.{name}.sensitivity_max"])


def test_infidelity_equals_captums_at_its_own_sets(at_pixels: tuple[str, Runner]) -> None:
    name, runner = at_pixels
    sets = GOLDEN[f"captum.{name}.infidelity_sets"].flatten(1) > 0
    hidden = (chosen.expand(len(runner.values), -1) for chosen in sets)
    falls = runner.scores()[:, None] - torch.stack(list(runner.scores_of(covered(runner, hidden, "zero"))), dim=1)
    told = InputXGradient().measured(runner)[0].flatten(1) @ sets.to(falls).T
    _close(infidelity(told, falls, scaled=False), GOLDEN[f"captum.{name}.infidelity"])
    # Ours is a share of what there is to tell.
    found = infidelity(told, falls, scaled=True) * falls.square().mean(dim=1)
    _close(found, GOLDEN[f"captum.{name}.infidelity_normalized"])


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_layers_equal_captums(name: str) -> None:
    for site in NETWORKS.LAYERS[name]:
        found = capture(_model(name), INPUTS, site, score=lambda output: output.gather(1, CLASSES))
        (values,), (grads,) = found.values.values(), found.grads.values()
        _close(values * grads, GOLDEN[f"captum.{name}.{site}.layer_gradient_x_activation"])
    if name == "resnet":
        maps = attribute(_model(name), INPUTS, NETWORKS.LAYERS[name], score=SCORE, methods=["GradCAM"])
        for (site, _), ours in maps.values.items():
            _close(ours[:, None], GOLDEN[f"captum.{name}.{site}.layer_grad_cam"])


CLASSES = torch.tensor(NETWORKS.CLASSES)[:, None]
