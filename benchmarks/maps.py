"""Maps beside pytorch-grad-cam's, each beside a check that both sides gave the same.

    make parity  # installs grad-cam in an environment of its own
    python benchmarks/maps.py --grad-cam .parity/bin/python

Eigen-CAM of 64 maps on one thread, in time on the processor; and six methods at four layers of a ResNet-18 on 64
images, on the wall, where each of grad-cam's 24 calls runs the network forward and back. Both sides take turns. Then
all 8192 latents of a dictionary on `glyph-vit`, beside a loop that ablates one after the other (64 of them, times 128),
for a score that is linear in the activations, where both give the same.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from client import Peer
from resnet import LAYERS, activations, classes, images, resnet

from analyses import attribute, attribute_latents
from analyses.cam.eigen_cam import EigenCAM
from analyses.passes import Examples, Scorer
from analyses.scores.base import Pass, Score
from analyses.scores.class_logit import ClassLogit
from interp.capturing import edited
from interp.data.glyphs import glyphs
from interp.editing import scale_latent
from interp.loading import load_model
from interp.measuring import measure
from interp.models.torch_module import TorchModel
from interp.types import Inputs
from saes.topk import TopK

SHAPES = ((512, 14), (2048, 7), (256, 28))
METHODS = {
    "GradCAM": "GradCAM",
    "HiResCAM": "HiResCAM",
    "LayerCAM": "LayerCAM",
    "GradCAMElementWise": "ElementwiseCAM",
    "XGradCAM": "XGradCAM",
    "GradCAMPlusPlus": "GradCAMPlusPlus",
}
ROUNDS = 3


def turns(ours: Callable[[], object], peer: Peer, clock: Callable[[], float], which: int) -> tuple[float, float]:
    """Median seconds of both sides, taking turns."""
    ours()
    mine, theirs = [], []
    for _ in range(ROUNDS):
        start = clock()
        ours()
        mine.append(clock() - start)
        theirs.append(peer.step(1)[which])
    return statistics.median(mine), statistics.median(theirs)


def eigen(python: Path, folder: Path) -> None:
    print("| Eigen-CAM, 64 maps | centred | as they are | grad-cam | times faster | largest difference |")
    print("|---|---|---|---|---|---|")
    torch.set_num_threads(1)
    for d, side in SHAPES:
        values = folder / f"{d}.npy"
        acts = activations(64, d, side).movedim(1, -1)
        centred, plain = EigenCAM(center=True), EigenCAM()
        with Peer(python, "grad_cam_maps", values=values, channels=d, side=side) as peer:
            mine, theirs = turns(lambda acts=acts, m=centred: m(acts), peer, time.process_time, 1)
            as_are, again = turns(lambda acts=acts, m=plain: m(acts), peer, time.process_time, 1)
        reference = torch.from_numpy(np.load(values))
        maps = centred(acts)
        reference *= (reference * maps).sum((1, 2), keepdim=True).sign()
        off = float((maps - reference).abs().max() / reference.abs().max())
        ratios = f"{theirs / mine:.1f}, {again / as_are:.1f}"
        print(f"| {d} x {side} x {side} | {mine:.3f} s | {as_are:.3f} s | {theirs:.2f} s | {ratios} | {off:.1e} |")


def layers(python: Path, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    model = TorchModel(resnet())
    inputs, score = Inputs({"x": images(64, 64)}), ClassLogit(classes(64))
    model = TorchModel(model.module, geometry=measure(model, inputs, LAYERS))
    work = lambda: attribute(model, inputs, LAYERS, score=score, methods=list(METHODS.values()), batch_size=64)  # noqa: E731
    values = folder / "layers.npz"
    with Peer(python, "grad_cam_maps", values=values, threads=threads) as peer:
        mine, theirs = turns(work, peer, time.perf_counter, 0)
    maps, off = work(), 0.0
    for name, raw in np.load(values).items():
        layer, method = name.split()
        ours = maps[layer, METHODS[method]]
        off = max(off, float((ours - torch.from_numpy(raw)).abs().max() / np.abs(raw).max()))
    seconds = f"{mine:.2f} s, grad-cam's 24 calls {theirs:.2f} s, {theirs / mine:.1f} x"
    print(f"\n6 methods x 4 layers, 64 images: {seconds}, largest difference {off:.1e}")


def latents(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, sae = load_model("glyph-vit"), TopK(d_in=96, d_sae=8192, k=32).eval()
    inputs = model.collate([item["image"] for item in glyphs("held_out")[:16]])
    direction = torch.randn(96)
    site = model.site("blocks.2")

    class Linear(Score):
        sites = (site,)

        def __call__(self, run: Pass) -> torch.Tensor:
            return (run.rows(site)[0] @ direction).sum(dim=1)

    start = time.perf_counter()
    found = attribute_latents(model, inputs, sae, score=Linear(), site=site).by_feature()
    ours, some = time.perf_counter() - start, list(range(0, 8192, 128))
    scorer, every = Scorer(model, Linear()), Examples.all(inputs)
    start = time.perf_counter()
    base = scorer.run(every, grads=False).scores
    alone = []
    for feature in some:
        with edited(model, {site: scale_latent(sae, feature, 0.0)}, inputs=inputs):
            alone.append(scorer.run(every, grads=False).scores - base)
    loop = (time.perf_counter() - start) * 8192 / len(some)
    off = float((torch.stack(alone, dim=1) - found[:, some]).abs().max() / found.abs().max())
    print(f"\n8192 latents, 16 images: {ours:.3f} s, one by one {loop:.0f} s, {loop / ours:.0f} x, "
          f"largest difference {off:.1e}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--grad-cam", type=Path, required=True, metavar="PYTHON", help="of an environment with grad-cam"
    )
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        eigen(asked.grad_cam, Path(folder))
        layers(asked.grad_cam, Path(folder), asked.threads)
    latents(asked.threads)


if __name__ == "__main__":
    main()
