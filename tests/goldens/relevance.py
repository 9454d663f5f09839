"""Write `relevance.safetensors`: what zennit's composites say of a network of plain layers; `make parity` runs it."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

# zennit imports torchvision, whose Python parts ask for two operators of its binary part.
_library = torch.library.Library("torchvision", "DEF")
_library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from networks import CLASSES, pixels, plain  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.composites import EpsilonAlpha2Beta1, EpsilonPlus, LayerMapComposite, layer_map_base  # noqa: E402
from zennit.rules import Epsilon, Gamma, Norm  # noqa: E402
from zennit.types import AvgPool, Convolution  # noqa: E402

HERE = Path(__file__).parent


def main() -> None:
    merged = [SequentialMergeBatchNorm()]
    pooled = [(AvgPool, Norm(1e-12))]  # ours has nothing that keeps its denominator from 0
    epsilon = [*pooled, *layer_map_base(), (nn.Linear, Epsilon()), (Convolution, Epsilon())]
    gamma = [*pooled, *layer_map_base(), (nn.Linear, Epsilon(0.01)), (Convolution, Gamma(0.25))]
    composites = {
        "epsilon": LayerMapComposite(epsilon, merged),
        "plus": EpsilonPlus(layer_map=pooled, canonizers=merged),
        "gamma": LayerMapComposite(gamma, merged),
        "alpha_beta": EpsilonAlpha2Beta1(layer_map=pooled, canonizers=merged),
    }
    values = {}
    for name, composite in composites.items():
        x = pixels().requires_grad_()
        with composite.context(plain()) as network:
            output = network(x)
            # Relevance begins as the logit of the class.
            begun = torch.where(torch.arange(5) == torch.tensor(CLASSES)[:, None], output, 0).detach()
            values[name] = torch.autograd.grad(output, x, begun)[0].float().contiguous()
    save_file(values, HERE / "relevance.safetensors")
    versions = {package: version(package) for package in ("zennit", "torch")}
    (HERE / "relevance.json").write_text(json.dumps(versions, indent=2) + "\n")
    sys.stdout.write(f"{len(values)} tensors, {versions}\n")


if __name__ == "__main__":
    main()
