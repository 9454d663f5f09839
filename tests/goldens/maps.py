"""Write `maps.safetensors`: what captum and pytorch-grad-cam say of `networks.py`; `make parity` runs it."""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

# torchvision's Python parts, which both import, ask for two operators of its binary part.
_library = torch.library.Library("torchvision", "DEF")
_library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import captum.attr as captum  # noqa: E402
import captum.metrics as captum_metrics  # noqa: E402
import pytorch_grad_cam as cams  # noqa: E402
from networks import CLASSES, LAYERS, NETWORKS, pixels  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

HERE = Path(__file__).parent
# Not Score-CAM, which grows its masks with corners aligned, so that they lie beside the patches they are of.
METHODS = [
    "GradCAM",
    "HiResCAM",
    "LayerCAM",
    "GradCAMElementWise",
    "XGradCAM",
    "GradCAMPlusPlus",
    "EigenCAM",
    "EigenGradCAM",
    "AblationCAM",
]


def of_captum(name: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    x, target = pixels(), torch.tensor(CLASSES)
    found = {
        "gradient": captum.Saliency(network).attribute(x.clone(), target=target, abs=False),
        "input_x_gradient": captum.InputXGradient(network).attribute(x.clone(), target=target),
        "integrated_gradients": captum.IntegratedGradients(network).attribute(x.clone(), target=target, n_steps=20),
        "occlusion": captum.Occlusion(network).attribute(
            x, sliding_window_shapes=(3, 4, 4), strides=(3, 3, 3), target=target
        ),
    }
    noisy: list[torch.Tensor] = []
    handle = network.register_forward_pre_hook(lambda _, args: noisy.append(args[0].detach().clone()))
    torch.manual_seed(0)
    tunnel = captum.NoiseTunnel(captum.Saliency(network))
    found["smooth_grad"] = tunnel.attribute(x, nt_type="smoothgrad", nt_samples=3, stdevs=0.3, target=target, abs=False)
    handle.remove()
    found["smooth_grad_inputs"] = torch.cat(noisy).view(len(x), 3, *x.shape[1:]).transpose(0, 1).contiguous()
    found |= judged(network, x, target)
    for layer in LAYERS[name]:
        module = network.get_submodule(layer)
        if name == "resnet":
            grad_cam = captum.LayerGradCam(network, module).attribute(x, target=target)
            found[f"{layer}.layer_grad_cam"] = grad_cam
        product = captum.LayerGradientXActivation(network, module).attribute(x, target=target)
        found[f"{layer}.layer_gradient_x_activation"] = product
    return {f"captum.{name}.{key}": value.detach().float().contiguous() for key, value in found.items()}


def judged(network: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Max-sensitivity of the gradient, summed over channels, to moves that are kept; infidelity of input times gradient
    to taking away sets of pixels that are kept."""
    draw = torch.Generator().manual_seed(0)
    moves = 0.04 * torch.rand(4, *x.shape[1:], generator=draw) - 0.02

    def gradient(inputs: torch.Tensor | tuple[torch.Tensor], **_: object) -> tuple[torch.Tensor, ...]:
        pixels = inputs[0] if isinstance(inputs, tuple) else inputs
        return (captum.Saliency(network).attribute(pixels.clone(), target=target, abs=False).sum(dim=1),)

    # One argument: a second would be given captum's radius.
    todo = iter(moves)
    sensitive = [
        captum_metrics.sensitivity_max(gradient, x, lambda inputs: inputs + next(todo), n_perturb_samples=1)
        for _ in moves
    ]
    sets = torch.rand(6, 1, *x.shape[2:], generator=draw) < 0.3

    def removed(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = sets.repeat(len(inputs) // len(sets), inputs.shape[1], 1, 1).float()  # of one example after the other
        return chosen, inputs * (1 - chosen)

    told = captum.InputXGradient(network).attribute(x.clone(), target=target)
    plain, scaled = (
        captum_metrics.infidelity(
            network, removed, x, told, target=target, n_perturb_samples=len(sets), normalize=normalize
        )
        for normalize in (False, True)
    )
    return {
        "sensitivity_moves": moves,
        "sensitivity_max": torch.stack(sensitive).amax(dim=0),
        "infidelity_sets": sets[:, 0].float(),
        "infidelity": plain,
        "infidelity_normalized": scaled,
    }


def of_grad_cam(name: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    x, found = pixels(), {}
    targets = [ClassifierOutputTarget(target) for target in CLASSES]
    reshape = (lambda out: out[:, 1:].mT.unflatten(2, (4, 4))) if name == "vit" else None
    for layer in LAYERS[name]:
        for method in METHODS[: -1 if name == "vit" else None]:  # Ablation-CAM takes maps alone
            cam = getattr(cams, method)(network, [network.get_submodule(layer)], reshape_transform=reshape)
            cam.batch_size = 64
            seen = cam.activations_and_grads
            sum(target(out) for target, out in zip(targets, seen(x), strict=True)).backward(retain_graph=True)
            acts, grads = (part[0].cpu().numpy() for part in (seen.activations, seen.gradients))
            # What it computes before its own ReLU, scaling and resizing.
            raw = cam.get_cam_image(x, cam.target_layers[0], targets, acts, grads, False)
            seen.release()
            found[f"grad_cam.{name}.{layer}.{method}"] = torch.from_numpy(raw).float().contiguous()
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    values: dict[str, torch.Tensor] = {}
    for name, make in NETWORKS.items():
        values |= of_captum(name, make()) | of_grad_cam(name, make())
    save_file(values, HERE / "maps.safetensors")
    versions = {package: version(package) for package in ("captum", "grad-cam", "torch", "numpy")}
    (HERE / "maps.json").write_text(json.dumps(versions, indent=2) + "\n")
    sys.stdout.write(f"{len(values)} tensors, {versions}\n")


if __name__ == "__main__":
    main()
