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

def attempt(folder, seconds):
    # The exit status, or None where it was killed before.
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
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

root, seeds, kills = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
begin = time.monotonic()
child = os.fork()
if child == 0:
    run(root / "whole")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
duration = time.monotonic() - begin
for seed in seeds:
    draw, folder, statuses = random.Random(seed), root / str(seed), []
    while statuses.count(None) < kills and 0 not in statuses and 1 not in statuses:
        # Mostly early, so that a run survives many; a good part of its time is start and checkpoints.
        statuses.append(attempt(folder, duration * draw.random() ** 2))
    while 1 not in statuses and 0 not in statuses:
        statuses.append(attempt(folder, 20 * duration + 20) if False else finish(folder))
    print(json.dumps(statuses), flush=True)
"""
