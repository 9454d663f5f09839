import json

import pytest
import torch
import yaml

from saes.loading import load

SHORT = ("--tokens", "2000", "--batch-size", "100", "--site", "blocks.1", "--quiet")


def printed(unweave, *words):
    code, said, complaint = unweave("train", *words, "--print-config")
    assert code == 0, complaint
    return yaml.safe_load(said)


def test_a_methods_keywords_are_flags(unweave):
    found = printed(unweave, "--store", "s", "--run", "r", "--method=topk", "--d-sae", "16", "--k", "2", "--name", "x")
    arguments = {"d_sae": 16, "k": 2, "seed": 0}
    unset = {"lr": None, "penalties": None, "target_l0": None, "resampling": None}
    assert found["jobs"] == [{"method": "TopK", "name": "x", "arguments": arguments, **unset}]
    assert found["config"]["checkpoint_every"] == 200


def test_flags_change_the_only_job_of_a_file_and_method_replaces_all(unweave, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "store: s\nrun: r\nconfig: {tokens: 500}\n"
        "jobs: [{method: topk, lr: 1e-3, arguments: {d_sae: 16, k: 2, seed: 7}, penalties: [{class: AuxK}]}]\n"
    )
    one = printed(unweave, "--config", file, "--k", "3", "--batch-size", "50")
    assert one["jobs"][0]["arguments"] == {"d_sae": 16, "k": 3, "seed": 7}
    assert (one["jobs"][0]["lr"], one["jobs"][0]["penalties"]) == (1e-3, [{"class": "AuxK"}])
    assert (one["config"]["tokens"], one["config"]["batch_size"], one["config"]["checkpoint_every"]) == (500, 50, 200)
    other = printed(unweave, "--config", file, "--method", "relu", "--d-sae", "8")
    assert [job["method"] for job in other["jobs"]] == ["ReLU"]
    assert other["jobs"][0]["arguments"]["d_sae"] == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--store", "s", "--run", "r"], "--method must be given (one of AbsTopK, BatchTopK,"),
        (["--d-sae", "3"], "--d-sae belongs to a job, and it is not known which: give --method too."),
        (["--method", "tpok"], "method is 'tpok': did you mean topk"),
        (["--method", "topk", "--d-sea", "3"], "--d-sea is no option: did you mean --d-sae?"),
        (["--method", "topk"], "--store and --run and --d-sae must be given"),
        (["--method", "topk", "--store", "s", "--run", "r", "--d-sae", "x"], "Error parsing --d-sae: invalid literal"),
        (["--config", "two.yaml", "--k", "3"], "--k belongs to a job, and it is not known which: the file has 2 jobs"),
        (["--config", "bad.yaml"], "bad.yaml: jobs[0].arguments.d_sea is no argument of TopK: did you mean d_sae?"),
        (["--config", "worse.yaml"], "worse.yaml: jobs[0].mehtod is no key it takes: did you mean method?"),
        (["--config", "part.yaml", "--run", "r"], "--store must be given"),
    ],
)
def test_mistakes_are_one_line(unweave, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    job = "{method: topk, arguments: {d_sae: 16, k: 2}}"
    (tmp_path / "two.yaml").write_text(f"store: s\nrun: r\njobs: [{job}, {job}]\n")
    (tmp_path / "bad.yaml").write_text("jobs: [{method: topk, arguments: {d_sea: 16}}]\n")
    (tmp_path / "worse.yaml").write_text("jobs: [{mehtod: topk}]\n")
    (tmp_path / "part.yaml").write_text(f"jobs: [{job}]\n")
    code, out, complaint = unweave("train", *words)
    assert (code, out) == (2, "")
    assert complaint.startswith(f"unweave train: {said}")
    assert complaint.count("\n") == 1


def test_help_shows_the_methods_own_options(unweave):
    assert "Latents kept per input" in unweave("train", "--method", "topk", "--help")[1]
    code, said, _ = unweave("train", "--help")
    assert code == 0
    assert "--method" in said


def test_two_jobs_of_a_file_and_the_record_of_their_run_train_the_same(unweave, store, tmp_path):
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "jobs:\n- {method: topk, name: a, lr: 1e-2, arguments: {d_sae: 16, k: 2}}\n"
        "- {method: batch_topk, name: b, arguments: {d_sae: 24, k: 2}, penalties: []}\n"
    )
    words = ("--store", store, *SHORT)
    code, said, complaint = unweave("train", "--config", file, "--run", tmp_path / "one", *words)
    assert code == 0, complaint
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        str(tmp_path / "one" / "saes" / f"{name}.safetensors") for name in "ab"
    ]
    assert "last batch FVU 0." in said
    record = tmp_path / "one" / "run.yaml"
    assert unweave("train", "--config", record, "--run", tmp_path / "two", "--store", store, *SHORT[4:])[0] == 0
    for name in ("a", "b"):
        one, two = (load(tmp_path / run / "saes" / f"{name}.safetensors") for run in ("one", "two"))
        assert torch.equal(one.W_enc, two.W_enc)
        assert (one.d_in, str(one.site)) == (8, "blocks.1")
    assert json.loads(record.read_text()) == json.loads((tmp_path / "two" / "run.yaml").read_text())


def test_resume_overwrite_and_epochs(unweave, store, tmp_path):
    words = (
        "train",
        "--store",
        store,
        "--run",
        tmp_path / "r",
        "--method",
        "topk",
        "--d-sae",
        "16",
        "--k",
        "2",
        *SHORT,
    )
    assert unweave(*words, "--resume")[0] == 0  # Nothing there yet: a script may always say so.
    code, _, complaint = unweave(*words)
    assert (code, complaint.count("\n")) == (2, 1)
    assert "a run is there already" in complaint
    code, said, _ = unweave(*words, "--resume")
    assert code == 0
    assert "was finished already" in said
    code, _, complaint = unweave(*words, "--resume", "--seed", "1")
    assert code == 2
    assert "cannot be resumed" in complaint
    assert unweave(*words, "--overwrite", "--epochs", "1.5")[0] == 0
    from interp.stores.disk import DiskStore

    record = json.loads((tmp_path / "r" / "run.yaml").read_text())
    assert record["config"]["tokens"] == int(1.5 * len(DiskStore(store, "blocks.1")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "cdua"], "device is 'cdua', but torch cannot use it here"),
        (["--site", "blocks.7"], "site is 'blocks.7', but"),
        (["--log", "tensorbord"], "--log is 'tensorbord': did you mean tensorboard?"),
        (["--k", "99"], "k is 99, but"),
    ],
)
def test_what_only_the_run_finds_is_one_line_too(unweave, store, tmp_path, words, said):
    given = ["--store", store, "--run", tmp_path / "r", "--method", "topk", "--d-sae", "16", "--k", "2", *SHORT]
    code, _, complaint = unweave("train", *given, *words)
    assert code == 2
    assert complaint.startswith(f"unweave train: {said}")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "r").exists()
