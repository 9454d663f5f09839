"""Names of methods: by class, with the arguments that are not the default."""

import pytest
import torch

from analyses.attribution.activation_patching import ActivationPatching
from analyses.attribution.meta_saliency import MetaSaliency
from analyses.attribution.occlusion import Occlusion
from analyses.cam.grad_cam import GradCAM
from analyses.discovering import described, made
from analyses.methods import methods
from interp.types import Inputs

KINDS = tuple({base for kind in methods().values() for base in kind.__mro__ if base.__name__.endswith("Method")})


def test_a_name_says_what_is_not_the_default() -> None:
    assert described(Occlusion(), KINDS) == "Occlusion"
    assert described(Occlusion(window=3), KINDS) == "Occlusion(window=3)"
    assert described(MetaSaliency(GradCAM()), KINDS) == "MetaSaliency(method=GradCAM)"
    assert described(ActivationPatching(torch.zeros(6)), KINDS) == "ActivationPatching(baseline=tensor[6])"
    assert described(ActivationPatching(Inputs({"x": torch.zeros(4, 2)})), KINDS) == (
        "ActivationPatching(baseline=Inputs[4])"
    )


def test_names_are_found_whatever_their_spelling() -> None:
    for name in ("GradCAMPlusPlus", "grad-cam++", "grad_cam_plus_plus"):
        assert type(made(name, methods(), "methods")).__name__ == "GradCAMPlusPlus"
    with pytest.raises(ValueError, match="methods names 'nothing', but known are AblationCAM, "):
        made("nothing", methods(), "methods")
