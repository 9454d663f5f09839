"""What must work where Triton, or anything but torch and a few small packages, is missing."""

import subprocess
import sys
from pathlib import Path

import torch

from saes.engine.kernels.availability import available

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
