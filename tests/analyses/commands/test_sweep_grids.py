import pytest

from analyses.commands.plain import MisfitError, from_plain
from analyses.commands.sweep_grids import Grid, choices, settings
from saes.penalties.l1 import L1
from saes.topk import TopK


def _grid(**keys) -> Grid:
    return from_plain(Grid, {"method": "topk", "arguments": {"d_sae": 16, "k": 2}} | keys, "grids[0]")


def test_a_list_is_a_choice_where_one_value_belongs() -> None:
    assert choices(int, 3, "k") == [3]
    assert choices(int, [3, 4], "k") == [3, 4]
    assert choices(float | None, [None, 1], "lr") == [None, 1.0]
    assert choices(list[int] | None, [8, 16], "prefixes") == [[8, 16]]
    assert choices(list[int] | None, [None, [8, 16]], "prefixes") == [None, [8, 16]]


def test_a_grid_is_every_combination_with_the_methods_defaults() -> None:
    found = settings(_grid(arguments={"d_sae": 16, "k": [2, 4], "prefixes": [8, 16]}, lr=[None, 1e-3]), "grids[0]")
    assert {(s.method, s.arguments["k"], s.lr) for s in found} == {(TopK, k, lr) for k in (2, 4) for lr in (None, 1e-3)}
    assert all(list(s.arguments["prefixes"]) == [8, 16] and "seed" not in s.arguments for s in found)
    assert found[0].penalties is None
    both = [{"class": "L1", "coefficient": [0.1, 0.2]}, {"class": "AuxK"}]
    found = settings(_grid(method="ReLU", arguments={"d_sae": 16}, penalties=both), "grids[0]")
    assert [s.penalties[0] for s in found] == [L1(coefficient=0.1), L1(coefficient=0.2)]
    assert all(len(s.penalties) == 2 for s in found)
    assert settings(_grid(penalties=[]), "grids[0]")[0].penalties == ()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"method": "tpok"}, r"^grids\[0\]\.method is 'tpok': did you mean topk"),
        ({"arguments": {"d_sea": 16}}, r"^grids\[0\]\.arguments\.d_sea is no argument of TopK: did you mean d_sae\?"),
        ({"arguments": {"d_sae": 16, "k": [2, "x"]}}, r"^grids\[0\]\.arguments\.k\[1\] is 'x' \(str\), but it takes a"),
        ({"arguments": {"d_sae": 16, "k": []}}, r"^grids\[0\]\.arguments\.k is \[\] \(list\), but it takes a whole"),
        ({"arguments": {"d_sae": 16, "seed": 1}}, r"^grids\[0\]\.arguments\.seed is given, .* list it in seeds"),
        ({"arguments": {"k": 2}}, r"^grids\[0\]\.arguments\.d_sae is missing"),
        ({"lr": [1e-3, "fast"]}, r"^grids\[0\]\.lr\[1\] is 'fast'"),
        ({"penalties": [{"class": "AuxQ"}]}, r"^grids\[0\]\.penalties\[0\]\.class is 'AuxQ': did you mean AuxK"),
        (
            {"penalties": [{"class": "L1", "coefficent": [0.1]}]},
            r"^grids\[0\]\.penalties\[0\]\.coefficent is no key it takes: did you mean coefficient\?",
        ),
        ({"mehtod": "topk"}, r"^grids\[0\]\.mehtod is no key it takes: did you mean method\?"),
    ],
)
def test_what_a_grid_gets_wrong_is_named(keys, said) -> None:
    with pytest.raises(MisfitError, match=said):
        settings(_grid(**keys), "grids[0]")
