"""The interpreter takes more than the compiler does: compile for an H200, without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("shapes", ["one", pytest.param("all", marks=pytest.mark.slow)])
def test_every_launch_compiles_for_an_h200(shapes, needs, tmp_path) -> None:
    needs("triton")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(HERE.parents[3])}
    made = subprocess.run([sys.executable, HERE / "compiling.py", shapes], env=env, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    found = {line.split()[0] for line in made.stdout.splitlines()}
    parts = "adam bag_sums best_groups best_members chunk_gradients chunk_sums gradients products"
    assert found == {f"_{name}" for name in parts.split()}
