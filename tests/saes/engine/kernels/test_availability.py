"""What must work where Triton, or anything but torch and a few small packages, is missing."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from saes.engine.kernels import availability
from saes.engine.kernels.availability import available, switched, wanted
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

ROOT = Path(__file__).resolve().parents[4]
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def _run(code: str, *missing: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(missing=set(missing)) + code
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_memory_of_the_host_is_not_for_the_kernels() -> None:
    assert not available(torch.zeros(3))


def test_kernels_are_wanted_while_switched_on_and_in_every_thread(monkeypatch) -> None:
    assert not wanted(torch.zeros(3))
    monkeypatch.setattr(availability, "available", lambda tensor: tensor.dtype == torch.float32)
    seen = [wanted(torch.zeros(3))]
    with pytest.raises(InterruptedError), switched(True):
        # Autograd's backward pass runs in another thread on a GPU.
        thread = threading.Thread(target=lambda: seen.append(wanted(torch.zeros(3))))
        thread.start()
        thread.join()
        seen.append(wanted(torch.zeros(3).double()))
        with switched(False):
            seen.append(wanted(torch.zeros(3)))
        seen.append(wanted(torch.zeros(3)))
        raise InterruptedError
    assert [*seen, wanted(torch.zeros(3))] == [False, True, False, False, True, False]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_kernels_where_they_cannot_run_are_refused(device: str, store) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("they can")
    with pytest.raises(ValueError, match=f"kernels is True, but they need .* device is '{device}': leave kernels out"):
        Trainer([Job(TopK(d_in=6, d_sae=64))], TrainConfig(kernels=True, device=device), store)


def test_the_package_is_imported_without_triton() -> None:
    made = _run(
        """
import torch, saes, saes.topk, saes.engine.sparse, saes.engine.kernels
from saes.engine.kernels.availability import available
from saes.engine.kernels import twins
assert not available(torch.zeros(3))
saes.topk.TopK(d_in=4, d_sae=8, k=2)(torch.randn(3, 4)).sum().backward()
try:
    from saes.engine.kernels import sums
except ModuleNotFoundError as error:
    print(error.name)
""",
        "triton",
    )
    assert (made.returncode, made.stdout) == (0, "triton\n"), made.stderr


def test_the_gpu_benchmark_needs_nothing_but_torch_and_small_packages() -> None:
    """On the machines that have a GPU there is little else; without one it says so."""
    made = _run(
        "import runpy; sys.argv = ['gpu.py']; runpy.run_path('benchmarks/gpu.py', run_name='__main__')",
        *("transformer_lens", "transformers", "datasets", "pyarrow", "PIL", "matplotlib", "seaborn", "tyro", "triton"),
        *("yaml", "pandas", "scipy", "sklearn"),
    )
    if not torch.cuda.is_available():
        assert made.returncode == 2, made.stderr
        assert made.stdout.splitlines() == ["No CUDA device: nothing is measured."]


@pytest.mark.filterwarnings("ignore::saes.forecasts.ForecastWarning")
def test_the_gpu_benchmark_has_a_row_for_every_way(monkeypatch, capsys) -> None:
    from benchmarks import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py", "nonsense"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "parts are kernels, steps, stacks, graphs, widths" in capsys.readouterr().err
    sides = [about["side"] for about, _ in gpu.steps(gpu.SHAPES[:1])]
    ways = ["float32", "float32 kernels", "bfloat16", "bfloat16 kernels"]
    assert [side for side in sides if "Trainer" in side] == [f"Trainer.step {way}" for way in ways]
    # The rows themselves on a CPU, small, each step once.
    here = {"device": "cpu", "kernels": False, "graphs": False}
    monkeypatch.setattr(gpu, "TrainConfig", lambda **given: TrainConfig(**given | here))
    monkeypatch.setattr(gpu, "tiny", lambda: TopK(d_in=6, d_sae=64, k=2))
    monkeypatch.setattr(gpu, "small", lambda: [TopK(d_in=6, d_sae=64, k=2, seed=seed) for seed in range(2)])
    monkeypatch.setattr(gpu, "REVIEW", {"cuda": 1})
    monkeypatch.setattr(gpu, "timed", lambda work, **_: len(work()) + 2.0)
    found = list(gpu.stacks(gpu.SHAPES))
    assert [about["way"] for about, _ in found] == ways
    row = gpu.measured(*found[-1])
    assert row["one by one"] == row["stacked"] == row["unasked"] == 2.0 and row["ratio"] == 1.0
    found = list(gpu.graphs(gpu.SHAPES))
    assert [about["way"] for about, _ in found] == ways
    row = gpu.measured(*found[0])
    assert row["eager"] == row["graph"] == 2.0 and row["same bits"] and row["error"] == 0.0
    assert gpu.trainer_ms(gpu.Shape(d=6, m=64, k=2, n=32, ideal=1.0, chunk=32), precision="bfloat16") == 2.0
