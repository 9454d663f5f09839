"""A run killed at random moments and resumed until it is done holds the bytes of a run never killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# One process imports torch; each attempt at the run is a fork of it, which has computed nothing yet.
PROGRAM = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from interp.stores.memory import MemoryStore
from saes.batch_topk import BatchTopK
from saes.topk import TopK
from saes.training import Job, TrainConfig, Trainer

def run(folder):
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    store = MemoryStore.from_values(torch.randn(500, 8, generator=draw), site="blocks.1")
    jobs = [Job(TopK(d_in=8, d_sae=64, k=3)), Job(BatchTopK(d_in=8, d_sae=64, k=3))]
    config = TrainConfig(tokens=80 * 64, batch_size=64, checkpoint_every=4, log_every=1, dead_tokens=256)
    Trainer(jobs, config, store, run=folder, resume=True, progress=False).run()

def attempt(folder, seconds=None):
    # The exit status, or None where the run was killed.
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(folder)
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

# What an optimizer imports when it first steps is imported here, not in each attempt.
weight = torch.nn.Parameter(torch.ones(2))
weight.grad = torch.ones(2)
torch.optim.Adam([weight], fused=True).step()

root, seeds, kills = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
begin = time.monotonic()
assert attempt(root / "whole") == 0
duration = time.monotonic() - begin
for seed in seeds:
    draw, statuses = random.Random(seed), []
    while len(statuses) < kills and (not statuses or statuses[-1] is None):
        # A run survives `kills` of these: each gets it less than that part of its way.
        statuses.append(attempt(root / str(seed), duration * 1.5 * draw.random() / kills + 0.02))
    if statuses[-1] is None:
        statuses.append(attempt(root / str(seed)))
    print(json.dumps(statuses), flush=True)
"""


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _killed(root: Path, seeds: list[int], kills: int) -> list[list[int | None]]:
    """Statuses of the attempts at each run; None is a kill."""
    command = [sys.executable, "-c", PROGRAM, str(root), json.dumps(seeds), str(kills)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    statuses = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(found[-1] == 0 and set(found[:-1]) <= {None} for found in statuses), (statuses, done.stderr)
    return statuses


def _compare(root: Path, seeds: list[int]) -> None:
    whole = _contents(root / "whole")
    assert "DONE" in whole
    for seed in seeds:
        found = _contents(root / str(seed))
        assert found.keys() == whole.keys(), seed
        assert [name for name in whole if whole[name] != found[name]] == [], seed


def test_runs_killed_at_random_moments_end_in_equal_bytes(tmp_path) -> None:
    seeds = [0, 1, 2]
    statuses = _killed(tmp_path, seeds, kills=4)
    assert sum(found.count(None) for found in statuses) >= 6
    _compare(tmp_path, seeds)


@pytest.mark.soak
def test_runs_killed_twenty_times_end_in_equal_bytes(tmp_path) -> None:
    seeds = [10, 11, 12]
    statuses = _killed(tmp_path, seeds, kills=20)
    assert sum(found.count(None) for found in statuses) >= 40
    _compare(tmp_path, seeds)
