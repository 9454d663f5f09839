import pytest
import torch

from saes import footprints
from saes.batch_topk import BatchTopK
from saes.engine import optimizing
from saes.footprints import Footprint, footprint, peak
from saes.relu import ReLU
from saes.topk import TopK
from saes.training import TrainConfig

CONFIG = TrainConfig(batch_size=256)


def test_what_is_held_is_weights_and_averages() -> None:
    sae = TopK(d_in=6, d_sae=40, k=3)
    adam = optimizing.Adam(sae, (0.9, 0.99))
    averages = sum(v.nbytes for state in adam.state.values() for name, v in state.items() if name != "step")
    assert footprint(sae, CONFIG).held == sum(p.nbytes for p in sae.parameters()) + averages


def test_a_step_takes_more_where_all_latents_are_made() -> None:
    sparse, other = (footprint(m(d_in=64, d_sae=8192, k=32), CONFIG).step for m in (TopK, BatchTopK))
    assert sparse == other
    many = footprint(TopK(d_in=64, d_sae=8192, k=4096), CONFIG).step
    assert many == footprint(ReLU(d_in=64, d_sae=8192), CONFIG).step > sparse
    assert many - footprint(ReLU(d_in=64, d_sae=4096), CONFIG).step > 256 * 4096 * 4 * 4


def test_jobs_step_one_by_one_on_a_cpu_and_together_on_a_gpu() -> None:
    jobs = [Footprint(10, 100, 1), Footprint(20, 50, 2)]
    assert peak(jobs, "cpu") == 30 + 100
    assert peak([*jobs, Footprint(5, 5, 500)], "cpu") == 35 + 503
    assert peak(jobs, "cuda") == 30 + 150


def test_memory_that_is_free_heeds_the_limits_of_a_container(monkeypatch, tmp_path) -> None:
    free = footprints.available("cpu")
    assert 0 < free < 2**50
    files = {
        "memory.max": "3000\n",
        "memory.current": "2500\n",
        "memory.stat": "anon 7\ninactive_file 400\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(footprints, "_GROUPS", tmp_path)
    assert footprints.available("cpu") == 3000 - 2500 + 400
    (tmp_path / "memory.max").write_text("max\n")
    assert footprints.available("cpu") > 3000
    monkeypatch.setattr(footprints, "_MEMORY", tmp_path / "none")
    with pytest.raises(ValueError, match="memory is not given, and this system does not say what is free"):
        footprints.available("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_says_what_is_free() -> None:
    assert footprints.available("cuda") == torch.cuda.mem_get_info()[0]
