import pytest

from saes.batch_topk import BatchTopK
from saes.penalties.aux_k import AuxK
from saes.penalties.l1 import L1
from saes.relu import ReLU
from saes.settings import Setting, grid, named, varying
from saes.topk import TopK


def test_a_grid_is_every_combination_and_only_lists_are_choices() -> None:
    found = grid(TopK, d_sae=8, k=[2, 4], prefixes=(4, 8), lr=[None, 1e-3], penalties=[None, (), (AuxK(),)])
    assert len(found) == len({str(setting) for setting in found}) == 12
    assert found[0] == Setting(TopK, {"d_sae": 8, "k": 2, "prefixes": (4, 8)})
    assert {(s.arguments["k"], s.lr, s.penalties) for s in found} == {
        (k, lr, penalties) for k in (2, 4) for lr in (None, 1e-3) for penalties in (None, (), (AuxK(),))
    }
    with pytest.raises(ValueError, match="k is an empty list, but a grid needs a value"):
        grid(TopK, d_sae=8, k=[])


def test_names_tell_what_differs_and_nothing_else() -> None:
    l1 = [(L1(coefficient=c),) for c in (0.1, 1e-5)]
    asked = [
        *grid(TopK, d_sae=[8, 16], k=2),
        *grid(TopK, d_sae=16, k=[2, 4]),
        *grid(TopK, d_sae=8, k=2, lr=1e30),
        *grid(BatchTopK, d_sae=8, k=2),
        *grid(ReLU, d_sae=8, penalties=l1),
    ]
    assert varying(asked) == ["d_sae", "k", "L1.coefficient", "lr"]
    assert list(named(asked)) == [
        "topk-d_sae8-k2",
        "topk-d_sae16-k2",
        "topk-d_sae16-k4",
        "topk-d_sae8-k2-lr1e_30",
        "batchtopk-d_sae8-k2",
        "relu-d_sae8-L1.coefficient0.1",
        "relu-d_sae8-L1.coefficient1e-05",
    ]
    assert asked[-1].label(varying(asked)) == "d_sae=8, L1.coefficient=1e-05"


def test_what_one_setting_names_and_another_leaves_out_differs() -> None:
    assert list(named([Setting(TopK, {"d_sae": 8}), Setting(TopK, {"d_sae": 8, "k": 4})])) == ["topk", "topk-k4"]
    given = grid(TopK, d_sae=8, penalties=[None, (), (AuxK(0.5),)])
    assert list(named(given)) == [
        "topk",
        "topk-penaltiesnone",
        "topk-penaltiesAuxK-AuxK.coefficient0.5-AuxK.k_auxNone",
    ]
    assert list(named(grid(TopK, d_sae=8, prefixes=[None, (4, 8)]))) == ["topk-prefixesNone", "topk-prefixes4_8"]


def test_a_family_is_a_method_with_its_axes() -> None:
    families = [one.family for one in grid(TopK, d_sae=8, k=[2, 4], prefixes=[None, (4, 8)])]
    assert families == ["TopK", "TopK + prefixes"] * 2
