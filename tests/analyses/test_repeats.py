"""Nothing is left behind: tensors, hooks and memory over many maps."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In a process of its own: what other tests hold would be counted.
PROGRAM = """
import gc, resource, sys, torch
from torch import nn
from analyses.attributing import attribute
from analyses.judging import judge
from analyses.methods import methods
from analyses.scores.class_logit import ClassLogit
from analyses.segmenting import segment
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(2, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                    nn.Flatten(), nn.Linear(8, 3))
grids = {"0": (8, 8), "2": (4, 4)}
model = TorchModel(net, geometry={site: Geometry("grid", grid=grid, stride=(16 // grid[0],) * 2, input_size=(16, 16))
                                  for site, grid in grids.items()})
inputs = Inputs({"x": torch.randn(8, 2, 16, 16)})
known = [name for name, kind in methods().items() if not getattr(kind, "attends", False)]
at_pixels = ["FullGrad", "Gradient", "InputXGradient", "LRP", "AttnLRP"]
costly = ["DeepLIFT", "KernelSHAP", "RISE", "SmoothGrad", "Occlusion", "IntegratedGradients", "ActivationPatching"]
names = [name for name in known if name not in ("CAM", *at_pixels, *costly)]

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

def live():
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

def handles():
    return sum(len(hooks) for part in net.modules()
               for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks))

found = []
for i in range(100):
    attribute(model, inputs, ["2"], score=ClassLogit(1), methods=names, batch_size=4)
    attribute(model, inputs, ["input"], score=ClassLogit(1), methods=at_pixels, batch_size=4)
    if i % 10 == 0:
        judge("GradCAM", model, inputs, "2", batch_size=4)
        segment(model, inputs, "2")
    gc.collect()
    found.append((live(), handles(), resident()))
print(*[",".join(map(str, row)) for row in found])
"""


@pytest.mark.slow
def test_a_hundred_repeats_leave_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [[float(part) for part in row.split(",")] for row in done.stdout.split()]
    assert len(rows) == 100
    assert len({row[0] for row in rows[2:]}) == 1 and all(row[1] == 0 for row in rows)
    assert rows[-1][2] - rows[20][2] < 5, [row[2] for row in rows]
