"""What the runners that train a peer's SAE share: one pass over rows in a file, and the weights handed back.

    python RUNNER.py METHOD --rows FILE --d-in 64 --d-sae 256 --batch 1024 --k 5 --seed 0 --settings JSON --out FILE

Rows are raw float32, in the order in which they are trained on. What comes back is an npz of `quality_worlds.Linear`'s
arguments, in the units of the rows.
"""

import argparse
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class OnePass:
    """What is asked of a runner.

    Args:
        library: The library's distribution.
        methods: What the runner can train.
    """

    def __init__(self, library: str, *methods: str) -> None:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("method", choices=methods)
        for name in ("d_in", "d_sae", "batch", "k", "seed", "threads"):
            parser.add_argument("--" + name.replace("_", "-"), type=int, required=True)
        parser.add_argument("--rows", type=Path, required=True)
        parser.add_argument("--settings", type=json.loads, required=True)
        parser.add_argument("--out", type=Path, required=True)
        asked = parser.parse_args()
        self.library, self.method, self.settings, self._out = library, asked.method, asked.settings, asked.out
        self.d_in, self.d_sae, self.batch, self.k, self.seed = asked.d_in, asked.d_sae, asked.batch, asked.k, asked.seed
        self._rows = np.memmap(asked.rows, dtype=np.float32, mode="r").reshape(-1, asked.batch, asked.d_in)
        self.steps = len(self._rows)
        torch.set_num_threads(asked.threads)
        torch.manual_seed(asked.seed)

    def steps_of(self, part: float) -> int:
        """Steps of a part of the run."""
        return int(part * self.steps)

    def batches(self) -> Iterator[Tensor]:
        """The rows, a batch after another."""
        for rows in self._rows:
            yield torch.from_numpy(rows.copy())

    def hand_back(self, **parts: Tensor | int) -> None:
        """Write the trained weights, and print what made them."""
        np.savez(self._out, **{name: np.asarray(torch.as_tensor(part).detach()) for name, part in parts.items()})
        print(json.dumps({"version": importlib.metadata.version(self.library)}))
