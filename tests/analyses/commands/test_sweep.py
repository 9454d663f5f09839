import json
import sys
from pathlib import Path

import pytest
import yaml

from saes import sweep_plan
from saes.footprints import peak
from saes.records import TrainConfig
from saes.settings import grid
from saes.topk import TopK

CONFIG = {"tokens": 400, "batch_size": 50, "max_skipped": 2, "log_every": 1}


@pytest.fixture(scope="session")
def held_out(tmp_path_factory, store) -> Path:
    """Other sentences of the model that the store was read from."""
    from interp.harvesting import harvest

    tiny = sys.modules["tiny_text"]
    path = tmp_path_factory.mktemp("stores") / "held-out"
    harvest(tiny.TinyText(), tiny.sentences(160)[120:], ["blocks.0", "blocks.1"], path, labels=["kind"])
    return path


@pytest.fixture
def file(tmp_path, store, held_out) -> Path:
    path = tmp_path / "grid.yaml"
    lists = {
        "seeds": [0, 1],
        "grids": [
            {"method": "topk", "arguments": {"d_sae": 16, "k": [2, 4]}},
            {"method": "BatchTopK", "arguments": {"d_sae": 16, "k": [2, 4]}},
        ],
    }
    stores = {"store": str(store), "held_out": str(held_out), "site": "blocks.1"}
    path.write_text(yaml.safe_dump(stores | {"config": CONFIG, "resamples": 20, "quiet": True} | lists))
    return path


def _two_groups() -> float:
    """GB that four of the SAEs take."""
    jobs = sweep_plan.planned(grid(TopK, d_sae=16, k=[2, 4]), 8, TrainConfig(**CONFIG), (0, 1))
    return 1.01 * peak([job.footprint for job in jobs], "cpu") / 1e9


def test_a_dry_run_prints_groups_memory_and_passes_and_writes_nothing(unweave, file, tmp_path) -> None:
    code, said, complaint = unweave("sweep", file, "--run", tmp_path / "r", "--dry-run", "--memory", str(_two_groups()))
    assert code == 0, complaint
    head, *lines, foot = said.splitlines()
    assert head.split() == ["group", "SAE", "method", "arguments", "seed", "alone"]
    assert [line.split()[:2] for line in lines] == [
        [group, f"{method}-k{k}-seed{seed}"]
        for group, method in (("000", "topk"), ("001", "batchtopk"))
        for k in (2, 4)
        for seed in (0, 1)
    ]
    assert foot.startswith("8 SAEs in 2 groups, at most about ")
    assert "2 times 8 steps of 50 rows" in foot
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_a_sweep_trains_judges_draws_and_says_so(unweave, file, tmp_path, monkeypatch) -> None:
    words = ("sweep", file, "--run", tmp_path / "r", "--memory", str(_two_groups()))
    code, said, complaint = unweave(*words)
    assert code == 0, complaint
    found = json.loads((tmp_path / "r/sweep.json").read_text())
    assert len(found["saes"]) == 8
    head, *lines, foot, where = said.splitlines()
    assert head.split() == ["method", "arguments", "L0", "FVU", "dead", "seeds"]
    assert [line.startswith("*") for line in lines] == [setting["frontier"] for setting in found["settings"]]
    assert [line.lstrip("* ").split()[0] for line in lines] == [setting["method"] for setting in found["settings"]]
    assert foot.startswith("[least and greatest of the seeds]")
    assert where == f"{tmp_path / 'r'}/sweep.json, sweep.csv, frontier.png, frontier.svg"
    for name in ("sweep.csv", "frontier.png", "frontier.svg"):
        assert (tmp_path / "r" / name).stat().st_size > 0
    picture = (tmp_path / "r/frontier.svg").read_bytes()
    assert unweave(*words)[2].startswith(f"unweave sweep: run is {tmp_path / 'r'}, but a sweep is there already")
    assert unweave(*words, "--resume") == (0, said, "")
    assert (tmp_path / "r/frontier.svg").read_bytes() == picture


def test_an_sae_that_fails_is_told_and_the_others_are_kept(unweave, file, tmp_path) -> None:
    plain = yaml.safe_load(file.read_text())
    plain["grids"] = [{"method": "topk", "lr": [None, 1e30], "arguments": {"d_sae": 16, "k": 2}}]
    file.write_text(yaml.safe_dump(plain | {"seeds": [3]}))
    code, said, complaint = unweave("sweep", "--config", file, "--run", tmp_path / "r")
    assert code == 2
    assert complaint.startswith("unweave sweep: 1 of 2 SAEs failed: job 'topk-lr1e_30-seed3' had no finite loss in 2")
    assert complaint.count("\n") == 1
    assert [line.split()[-2:] for line in said.splitlines()[2:3]] == [["1", "failed"]]
    failures = [sae["failure"] for sae in json.loads((tmp_path / "r/sweep.json").read_text())["saes"]]
    assert failures[0] is None
    assert "lr 1e+30" in failures[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grids": []}, "grids must be given, in a file"),
        ({"gird": []}, "grid.yaml: gird is no key it takes: did you mean grids?"),
        ({"seeds": [0.5]}, "grid.yaml: seeds[0] is 0.5 (float), but it takes a whole number"),
        ({"config": {"toknes": 3}}, "grid.yaml: config.toknes is no key it takes: did you mean tokens?"),
        ({"grids": [{"method": "tpok"}]}, "grid.yaml: grids[0].method is 'tpok': did you mean topk"),
        (
            {"grids": [{"method": "topk", "arguments": {"d_sae": 16, "kk": 2}}]},
            "grid.yaml: grids[0].arguments.kk is no argument of TopK: did you mean k?",
        ),
        ({"grids": [{"method": "topk", "arguments": {"d_sae": 16, "k": [2, 99]}}]}, "topk-k99: k is 99, but"),
        ({"held_out": "STORE"}, "held_out holds the rows of store, but SAEs are judged on others"),
        ({"memory": 1e-9}, "topk-k2-seed0 takes about 0.00 GB to train, but memory is"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(unweave, file, store, tmp_path, monkeypatch, change, said) -> None:
    monkeypatch.chdir(tmp_path)
    plain = yaml.safe_load(file.read_text()) | change
    plain["held_out"] = str(store) if plain["held_out"] == "STORE" else plain["held_out"]
    file.write_text(yaml.safe_dump(plain))
    code, out, complaint = unweave("sweep", "grid.yaml", "--run", tmp_path / "r")
    assert (code, out) == (2, "")
    assert complaint.startswith(f"unweave sweep: {said}")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_flags_win_over_the_file_which_is_printed_as_one(unweave, file) -> None:
    code, said, complaint = unweave(
        "sweep", file, "--run", "r", "--seeds", "5", "6", "--tokens", "99", "--print-config"
    )
    assert code == 0, complaint
    found = yaml.safe_load(said)
    assert (found["seeds"], found["config"]["tokens"], found["config"]["checkpoint_every"]) == ([5, 6], 99, 200)
    assert found["grids"][0]["arguments"] == {"d_sae": 16, "k": [2, 4]}
    assert unweave("sweep", file, "--config", file)[2].endswith("is given besides --config: give one file.\n")
    assert unweave("sweep", file, "--seed")[0] == 2
    assert "--dry-run" in unweave("sweep", "--help")[1]
