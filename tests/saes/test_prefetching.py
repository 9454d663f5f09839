import contextlib
from collections.abc import Iterator

import pytest
import torch

from interp.types import Activations
from saes.prefetching import one_ahead, prefetched

CPU = torch.device("cpu")


class Source:
    """Batches of bfloat16 rows, all in one buffer; notes how many were taken, and whether it was closed."""

    def __init__(self, n: int = 6, fails: int | None = None, rows: int = 3) -> None:
        self.n, self.fails, self.taken, self.closed = n, fails, 0, False
        self.buffer = torch.zeros(rows, 4, dtype=torch.bfloat16)

    def __iter__(self) -> Iterator[Activations]:
        places = torch.arange(len(self.buffer))
        try:
            for i in range(self.n):
                if i == self.fails:
                    raise OSError(f"batch {i} cannot be read")
                self.taken += 1
                yield Activations(self.buffer.fill_(i), places + i, places, target=self.buffer[:, :2])
        finally:
            self.closed = True


def test_a_cpu_takes_each_batch_when_it_is_asked_for() -> None:
    source = Source()
    for i, batch in enumerate(prefetched(iter(source), 4, CPU)):
        assert (source.taken, source.closed) == (i + 1, False)
        assert batch.values.dtype == batch.target.dtype == torch.float32
        assert batch.values.unique().tolist() == [i]
        assert batch.example.tolist() == [i, i + 1, i + 2]
    assert (source.taken, source.closed) == (4, True)


def test_one_batch_is_sent_while_another_is_in_use_and_none_more() -> None:
    source, sent, arrived = Source(), [], []

    def send(batch: Activations):
        number = int(batch.example[0])
        sent.append(number)
        return lambda: (arrived.append(number), batch)[1]

    stream = iter(source)
    for i, batch in enumerate(one_ahead(stream, send)):
        assert sent == list(range(min(i + 2, 6)))
        assert arrived == list(range(i + 1))
        assert int(batch.example[0]) == i
    assert i == 5
    assert list(one_ahead(iter(Source(n=0)), send)) == []


def test_an_error_comes_where_its_batch_would_have_come() -> None:
    for ahead in (False, True):
        source = Source(fails=3)
        stream = iter(source)
        batches = one_ahead(stream, lambda batch: lambda: batch) if ahead else prefetched(stream, 6, CPU)
        seen = []
        with pytest.raises(OSError, match="batch 3 cannot be read"):
            seen += (int(batch.example[0]) for batch in batches)
        assert source.closed
        with pytest.raises(StopIteration):
            next(batches)
        assert source.taken == 3
    with pytest.raises(OSError, match="batch 0"):
        next(one_ahead(iter(Source(fails=0)), lambda batch: lambda: batch))


def test_an_error_does_not_cost_the_batches_before_it() -> None:
    seen = []
    with contextlib.suppress(OSError):
        for batch in one_ahead(iter(Source(fails=3)), lambda batch: lambda: batch):
            seen.append(int(batch.example[0]))
    assert seen == [0, 1, 2]


def test_closing_closes_the_stream() -> None:
    source = Source()
    stream = iter(source)  # Held on to, as a traceback would.
    with contextlib.closing(prefetched(stream, 6, CPU)) as batches:
        next(batches)
        assert not source.closed
    assert (source.taken, source.closed) == (1, True)
    batch = next(iter(Source()))
    assert len(list(prefetched(iter([batch, batch]), 2, CPU))) == 2  # An iterator that cannot be closed.


def test_a_stream_that_ends_early_is_an_error() -> None:
    batches = prefetched(iter(Source(n=2)), 3, CPU)
    next(batches)
    next(batches)
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(batches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_given_every_batch_whole() -> None:
    """The store writes into the same memory while copies are under way, and steps take longer than they."""
    source, work = Source(n=20, rows=1 << 20), torch.randn(4096, 4096, device="cuda")
    found = []
    for i, batch in enumerate(prefetched(iter(source), 20, torch.device("cuda"))):
        assert source.taken == min(i + 2, 20)
        for _ in range(10):
            work = work @ work / 4096
        found.append(torch.stack([batch.values.amin(), batch.values.amax(), batch.example[0], batch.target.amax()]))
        assert batch.values.is_cuda and batch.values.dtype == torch.float32
    assert torch.stack(found).tolist() == [[i] * 4 for i in range(20)]
    given = Activations(*(part.cuda() for part in (torch.ones(3, 4), torch.arange(3), torch.arange(3))))
    assert next(prefetched(iter([given]), 1, torch.device("cuda"))).values is given.values
