"""Batches on their way to the device: to a GPU the next one travels while the present step runs."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch

from interp.types import Activations


def prefetched(stream: Iterator[Activations], steps: int, device: torch.device) -> Generator[Activations, None, None]:
    """Give the first batches of a stream, in float32 on a device; for a GPU one batch is taken ahead.

    Whatever ends this generator, closing included, closes the stream.

    Args:
        stream: A store's batches.
        steps: How many to give.
        device: Where to.

    Raises:
        RuntimeError: If the stream ends before.
    """
    try:
        batches = (next(stream) for _ in range(steps))
        if device.type == "cuda":
            side = torch.cuda.Stream(device)
            yield from one_ahead(batches, lambda batch: _sent(batch, device, side))
        else:
            for batch in batches:
                yield batch.to(device, torch.float32)
    finally:
        if isinstance(stream, Generator):
            stream.close()


def one_ahead(
    batches: Iterator[Activations], send: Callable[[Activations], Callable[[], Activations]]
) -> Generator[Activations, None, None]:
    """Give batches in order; each is taken and sent before the one ahead of it is given.

    Args:
        batches: What to give.
        send: Begins to move a batch, and returns what waits for it.
    """

    def sent() -> Callable[[], Activations] | None:
        batch = next(batches, None)
        return None if batch is None else send(batch)

    coming = sent()
    while coming is not None:
        present, coming, failure = coming, None, None
        try:
            coming = sent()
        except Exception as error:  # The next batch's: this one is here.
            failure = error
        yield present()
        if failure is not None:
            raise failure


def _sent(batch: Activations, device: torch.device, side: torch.cuda.Stream) -> Callable[[], Activations]:
    """Begin to copy a batch on a stream of its own."""
    if batch.values.is_cuda:
        return lambda: batch.to(device, torch.float32)
    # Pinned first, or the copy would keep the host; converted there, so that few bytes travel.
    pinned = {name: None if part is None else part.pin_memory() for name, part in vars(batch).items()}
    with torch.cuda.stream(side):
        parts: dict[str, Any] = {n: None if p is None else p.to(device, non_blocking=True) for n, p in pinned.items()}
        moved = Activations(**parts).to(dtype=torch.float32)
    done = side.record_event()

    def arrived() -> Activations:
        # This batch's copy alone: that of the next one may be under way on the same stream.
        present = torch.cuda.current_stream(device)
        present.wait_event(done)
        for part in vars(moved).values():
            if part is not None:
                part.record_stream(present)  # Its memory is the side stream's, which must not have it back too early.
        return moved

    return arrived
