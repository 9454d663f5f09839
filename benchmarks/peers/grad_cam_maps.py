"""pytorch-grad-cam's Eigen-CAM projection, or its maps of every layer, told by `turns`; `make parity` installs it.

The first run is written to `--values`, raw, before its ReLU, scaling and resizing.
"""

import argparse
import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from resnet import LAYERS, activations, classes, images, resnet
from turns import repeated

_library = torch.library.Library("torchvision", "DEF")
_library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import pytorch_grad_cam as cams  # noqa: E402  # After the operators that torchvision asks for.
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection  # noqa: E402

METHODS = ("GradCAM", "HiResCAM", "LayerCAM", "GradCAMElementWise", "XGradCAM", "GradCAMPlusPlus")

parser = argparse.ArgumentParser()
parser.add_argument("--channels", type=int, help="of maps for Eigen-CAM; without, a network is run")
parser.add_argument("--side", type=int, default=64)
parser.add_argument("--n", type=int, default=64)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--values", type=Path, required=True)
asked = parser.parse_args()
torch.set_num_threads(asked.threads)

if asked.channels:
    acts = activations(asked.n, asked.channels, asked.side).numpy()
    np.save(asked.values, get_2d_projection(acts))

    def work() -> None:
        get_2d_projection(acts)

else:
    network, x = resnet(), images(asked.n, asked.side)
    targets = [ClassifierOutputTarget(target) for target in classes(asked.n)]
    raw = {}
    for layer in LAYERS:
        for method in METHODS:
            cam = getattr(cams, method)(network, [network.get_submodule(layer)])
            seen = cam.activations_and_grads
            sum(target(out) for target, out in zip(targets, seen(x), strict=True)).backward()
            inside = (part[0].cpu().numpy() for part in (seen.activations, seen.gradients))
            raw[f"{layer} {method}"] = cam.get_cam_image(x, cam.target_layers[0], targets, *inside, False)
            seen.release()
    np.savez(asked.values, **raw)

    def work() -> None:
        for layer in LAYERS:
            for method in METHODS:
                with getattr(cams, method)(network, [network.get_submodule(layer)]) as cam:
                    cam(input_tensor=x, targets=targets)


repeated(work, library="grad-cam", version=importlib.metadata.version("grad-cam"))
