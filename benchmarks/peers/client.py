"""A peer's training step or mixing buffer, in a process of its own, taking turns with what runs here."""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self


class Peer(contextlib.AbstractContextManager["Peer"]):
    """A runner of this folder at work, ready for steps.

    Args:
        python: The python of the library's environment.
        runner: The runner's file without its ending: `saelens_step`, `dictionary_learning_mixing`, ...
        **arguments: As the runner takes them: d_in, d_sae, k, batch, threads, method, dead.

    Raises:
        RuntimeError: If the runner ends before it is told to, with the end of what it wrote to stderr.
    """

    def __init__(self, python: Path, runner: str, **arguments: Any) -> None:
        script = Path(__file__).parent / f"{runner}.py"
        options = [part for name, value in arguments.items() for part in ("--" + name.replace("_", "-"), str(value))]
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  # Closed with the process.
        self._process = subprocess.Popen(
            [str(python), str(script), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.about = self._answer()

    def step_seconds(self, n: int) -> float:
        """Seconds of one step, or of one batch; the mean of n."""
        return self.step(n)[0]

    def step(self, n: int) -> tuple[float, float]:
        """The same on the wall, and on the processor: that hardly moves on a busy machine."""
        found = self._ask(f"go {n}")
        return found["seconds"], found["processor"]

    def memory(self) -> float:
        """Megabytes at the peak of what it did, over what it held before the model was made."""
        return self._ask("memory")["megabytes"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            written = self._errors.read()[-3000:]
            self.close()
            raise RuntimeError(f"{self._process.args} ended: {written}")
        return json.loads(line)
