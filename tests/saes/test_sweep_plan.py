import itertools
import json

import pytest

from saes import sweep_plan
from saes.batch_topk import BatchTopK
from saes.footprints import Footprint, peak
from saes.settings import grid
from saes.sweep_plan import grouped, opened, planned
from saes.topk import TopK
from saes.training import TrainConfig

CONFIG = TrainConfig(tokens=640, batch_size=64)
DATA = {"store": "a", "held_out": "b"}
OPEN = {"memory": 1e9, "resume": False, "overwrite": False}


def test_every_setting_has_every_seed() -> None:
    jobs = planned([*grid(TopK, d_sae=8, k=[2, 4]), *grid(BatchTopK, d_sae=16, k=2)], 6, CONFIG, (0, 5))
    assert [(job.place, job.seed) for job in jobs] == [
        (place, seed) for place in ("topk-d_sae8-k2", "topk-d_sae8-k4", "batchtopk-d_sae16-k2") for seed in (0, 5)
    ]
    made = jobs[1].job(6)
    assert (made.name, made.sae.arguments["seed"], made.sae.k) == ("topk-d_sae8-k2-seed5", 5, 2)


@pytest.mark.parametrize(
    ("settings", "seeds", "message"),
    [
        ([], (0,), r"settings is \[\], but a sweep needs one or more"),
        (grid(TopK, d_sae=8, k=2), (), r"seeds is \[\], but"),
        (grid(TopK, d_sae=8, k=2), (1, 1), r"seeds is \[1, 1\], but a sweep needs one or more, each once"),
        (grid(TopK, d_sae=8, k=[2, 99]), (0,), r"^topk-k99: k is 99, but it is a whole number in 1\.\.d_sae = 8"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(settings, seeds, message) -> None:
    with pytest.raises(ValueError, match=message):
        planned(settings, 6, CONFIG, seeds)


def test_groups_fit_and_no_two_of_them_fit_together() -> None:
    jobs = planned(grid(TopK, d_sae=[256, 512, 1024, 2048], k=[2, 4]), 6, CONFIG, (0, 1))
    largest = max(peak([job.footprint], "cpu") for job in jobs)
    memory = 1.5 * largest
    groups = grouped(jobs, CONFIG, memory)

    def taken(group) -> int:
        return peak([job.footprint for job in group], "cpu")

    assert len(groups) > 1
    assert sorted(job.name for group in groups for job in group) == sorted(job.name for job in jobs)
    assert all(taken(group) <= memory for group in groups)
    assert all(taken([*a, *b]) > memory for a, b in itertools.combinations(groups, 2))
    assert grouped(jobs, CONFIG, 1e12) == [jobs]
    with pytest.raises(ValueError, match=r"seed0 takes about .* GB to train, but memory is .* GB: give more memory"):
        grouped(jobs, CONFIG, largest - 1.0)


def test_by_default_a_share_of_what_is_free_is_taken(monkeypatch) -> None:
    jobs = planned(grid(TopK, d_sae=[8, 16], k=2), 6, CONFIG, (0,))
    both = peak([job.footprint for job in jobs], "cpu")
    for free, groups in ((both / 0.69, 1), (both / 0.71, 2)):
        monkeypatch.setattr(sweep_plan.footprints, "available", lambda _device, free=free: free)
        assert len(grouped(jobs, CONFIG)) == groups


def test_a_folder_is_opened_once_and_resumed_with_the_groups_it_was_planned_with(tmp_path) -> None:
    jobs = planned(grid(TopK, d_sae=8, k=[2, 4]), 6, CONFIG, (0,))
    run = tmp_path / "sweep"
    assert opened(run, jobs, CONFIG, DATA, **OPEN) == [jobs]
    with pytest.raises(ValueError, match="a sweep is there already: use resume, overwrite or another folder"):
        opened(run, jobs, CONFIG, DATA, **OPEN)
    less = OPEN | {"memory": peak([jobs[0].footprint], "cpu") * 1.01}
    assert opened(run, jobs, CONFIG, DATA, **less | {"resume": True}) == [jobs]
    other = planned(grid(TopK, d_sae=8, k=[2, 3]), 6, CONFIG, (0,))
    for asked, data, said in (
        (other, DATA, r"resume needs the same sweep, but jobs\.topk-k3-seed0 was None and is"),
        (jobs, DATA | {"store": "c"}, r"data\.store was 'a' and is 'c'. Set it back, or start anew with overwrite"),
    ):
        with pytest.raises(ValueError, match=said):
            opened(run, asked, CONFIG, data, **OPEN | {"resume": True})
    (run / "groups" / "000").mkdir(parents=True)
    (run / "sweep.json").write_text("{}")
    assert opened(run, jobs, CONFIG, DATA, **less | {"overwrite": True}) == [jobs[:1], jobs[1:]]
    assert [path.name for path in run.iterdir()] == ["plan.json"]
    assert json.loads((run / "plan.json").read_text())["groups"] == [["topk-k2-seed0"], ["topk-k4-seed0"]]


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    jobs = planned(grid(TopK, d_sae=8, k=2), 6, CONFIG, (0,))
    with pytest.raises(ValueError, match=r"mine\.txt there is not a sweep's: choose another folder"):
        opened(tmp_path, jobs, CONFIG, DATA, **OPEN | {"overwrite": True})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_footprints_are_of_the_shape_not_of_rate_or_seed() -> None:
    jobs = planned(grid(TopK, d_sae=8, k=2, lr=[None, 0.1]), 6, CONFIG, (0, 1))
    assert len({job.footprint for job in jobs}) == 1
    assert isinstance(jobs[0].footprint, Footprint)
