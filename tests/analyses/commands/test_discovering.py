import importlib

from analyses.commands.discovering import module_of, subcommands


def test_every_module_with_arguments_and_run_is_a_subcommand_and_no_other():
    found = subcommands()
    assert {"demo", "dictionary", "doctor", "evaluate", "harvest", "train"} <= found.keys()
    assert not {"main", "plain", "flags", "logs", "jobs"} & found.keys()
    for name, summary in found.items():
        module = importlib.import_module(module_of(name))
        assert summary == module.__doc__.partition("\n")[0]
        assert 20 < len(summary) < 110
        assert summary.endswith(".")
