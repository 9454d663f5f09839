import json

import pytest

from analyses.commands import jobs
from analyses.commands.jobs import JobSpec, completed, from_record, job
from analyses.commands.plain import MisfitError
from saes.loading import methods
from saes.penalties.aux_k import AuxK
from saes.topk import TopK


def test_every_method_goes_by_its_class_and_its_file_in_any_case():
    for name, found in methods().items():
        assert jobs.method(name) is jobs.method(name.upper()) is found
    assert jobs.method("batch_topk") is jobs.method("BatchTopK")
    with pytest.raises(ValueError, match=r"method is 'tpok': did you mean .*topk"):
        jobs.method("tpok")


def test_defaults_are_written_out_and_completing_twice_changes_nothing():
    spec = completed(JobSpec("topk", arguments={"d_sae": 8}), "jobs[0]")
    assert spec == JobSpec("TopK", arguments={"d_sae": 8, "k": 32, "seed": 0})
    assert completed(spec, "jobs[0]") == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (JobSpec("tpok"), r"^jobs\[0\]\.method is 'tpok': did you mean"),
        (
            JobSpec("topk", arguments={"d_sea": 8}),
            r"^jobs\[0\]\.arguments\.d_sea is no argument of TopK: did you mean d_sae",
        ),
        (
            JobSpec("topk", arguments={"d_sae": 8, "k": "x"}),
            r"^jobs\[0\]\.arguments\.k is 'x' \(str\), but it takes a whole",
        ),
        (JobSpec("topk", arguments={"d_sae": 8, "d_in": 3}), r"d_in is given, but the store knows its width"),
        (JobSpec("topk"), r"^jobs\[0\]\.arguments\.d_sae is missing"),
        (
            JobSpec("topk", arguments={"d_sae": 8}, penalties=({"class": "AuxQ"},)),
            r"^jobs\[0\]\.penalties\[0\]\.class is 'AuxQ': did you mean AuxK\?$",
        ),
        (
            JobSpec("topk", arguments={"d_sae": 8}, penalties=({"coefficient": 1.0},)),
            r"penalties\[0\]\.class is missing: known are",
        ),
        (
            JobSpec("topk", arguments={"d_sae": 8}, penalties=({"class": "AuxK", "coefficent": 1.0},)),
            r"penalties\[0\]\.coefficent is no key it takes: did you mean coefficient\?",
        ),
        (
            JobSpec("topk", arguments={"d_sae": 8}, penalties=({"class": "AuxK", "coefficient": -1},)),
            r"penalties\[0\]: AuxK has coefficient -1",
        ),
    ],
)
def test_what_a_job_gets_wrong_is_named(spec, message):
    with pytest.raises(MisfitError, match=message):
        completed(spec, "jobs[0]")


def test_a_job_is_built_for_the_width_of_the_store():
    spec = JobSpec("topk", "small", 0.5, {"d_sae": 8, "k": 2}, ({"class": "AuxK", "coefficient": 0.5, "k_aux": 3},))
    built = job(completed(spec, ""), d_in=5)
    assert isinstance(built.sae, TopK)
    assert built.sae.arguments == {"d_in": 5, "d_sae": 8, "k": 2, "seed": 0}
    assert (built.name, built.lr, built.penalties) == ("small", 0.5, (AuxK(0.5, 3),))
    assert job(completed(JobSpec("topk", arguments={"d_sae": 8, "k": 2}, penalties=()), ""), 5).penalties == ()
    assert job(completed(JobSpec("topk", arguments={"d_sae": 8, "k": 2}), ""), 5).penalties == (AuxK(),)


def test_what_a_run_records_of_a_job_asks_for_the_same_job():
    for name in methods():
        first = job(completed(JobSpec(name, lr=0.1, arguments={"d_sae": 64}), ""), 6).to_json()
        plain = from_record(json.loads(json.dumps(first)))
        spec = JobSpec(**plain | {"penalties": tuple(plain["penalties"])})
        assert job(completed(spec, ""), 6).to_json() == first
    with pytest.raises(ValueError, match=r"was trained on 'kl', but the command knows reconstruction only"):
        from_record(first | {"signal": "kl"})
