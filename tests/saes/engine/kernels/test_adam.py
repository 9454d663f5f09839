import pytest
import torch
from torch import nn


@pytest.mark.parametrize("unit_rows", [True, False])
@pytest.mark.parametrize(("m", "d"), [(1, 1), (7, 5), (3, 700), (300, 6)])
def test_steps_are_the_twins_and_those_of_torch(m, d, unit_rows, kernels, random) -> None:
    start = nn.functional.normalize(random(m, d))
    ours, twin, torchs = start.clone(), start.clone(), nn.Parameter(start.double())
    states = [[torch.zeros(m, d), torch.zeros(m, d)] for _ in range(2)]
    optimizer = torch.optim.Adam([torchs], lr=0.05, betas=(0.9, 0.99))
    factor = torch.tensor(0.3)
    for step in range(1, 4):
        grad = random(m, d, seed=step)
        about = {"lr": 0.05, "betas": (0.9, 0.99), "factor": factor, "unit_rows": unit_rows}
        # The number of the step and the rate may be the host's or the device's.
        on_device = {} if step == 2 else {"step": torch.tensor(float(step)), "lr": torch.tensor(0.05)}
        kernels.adam.adam_step(ours, grad, *states[0], **{"step": step} | about | on_device)
        kernels.twins.adam_step(twin, grad, *states[1], step=step, **about)
        torchs.grad = grad.double() * factor.double()
        optimizer.step()
        if unit_rows:
            torchs.data /= torchs.norm(dim=1, keepdim=True)
    for found, other in zip([ours, *states[0]], [twin, *states[1]], strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.double(), torchs.detach(), rtol=1e-5, atol=2e-6)
    assert (ours - start).abs().max() > 0.01 or d == 1


def test_the_first_of_many_steps_is_corrected_to_float32(kernels, random) -> None:
    """1 - 0.9999 keeps four digits in float32 arithmetic; all of the step's length hangs on it."""
    weights, grad = torch.zeros(2, 3), random(2, 3)
    kernels.adam.adam_step(
        weights, grad, torch.zeros(2, 3), torch.zeros(2, 3), step=1, lr=1.0, betas=(0.9, 0.9999), eps=1e-20
    )
    torch.testing.assert_close(weights, -grad.sign(), rtol=2e-6, atol=0)


def test_the_gradient_stays(kernels, random) -> None:
    grad = random(4, 3)
    kept = grad.clone()
    state = [random(4, 3, seed=1), torch.zeros(4, 3), torch.ones(4, 3)]
    kernels.adam.adam_step(state[0], grad, *state[1:], step=5, lr=0.1, betas=(0.9, 0.99), factor=torch.tensor(0.5))
    assert torch.equal(grad, kept)


@pytest.mark.parametrize("which", ["adam", "twins"])
def test_a_skipped_step_changes_no_bit(which, kernels, random) -> None:
    state = [random(4, 3, seed=1), random(4, 3, seed=2), torch.ones(4, 3)]
    kept, grad = [part.clone() for part in state], random(4, 3)
    grad[2, 1] = torch.nan
    about = {"step": torch.tensor(0.0), "lr": 0.1, "betas": (0.9, 0.99), "unit_rows": True}
    getattr(kernels, which).adam_step(state[0], grad, *state[1:], **about, skip=torch.tensor(1.0))
    assert all(torch.equal(now, then) for now, then in zip(state, kept, strict=True))
    grad[2, 1], about["step"] = 0, torch.tensor(1.0)
    getattr(kernels, which).adam_step(state[0], grad, *state[1:], **about, skip=torch.tensor(0.0))
    assert all(not torch.equal(now, then) for now, then in zip(state, kept, strict=True))


def test_memory_that_would_be_copied_is_refused(kernels) -> None:
    weights = torch.zeros(3, 4).T
    with pytest.raises(AssertionError, match="weights must be row-major"):
        kernels.adam.adam_step(weights, weights, weights, weights, step=1, lr=0.1, betas=(0.9, 0.99))
