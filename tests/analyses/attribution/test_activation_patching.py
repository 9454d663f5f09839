from typing import Any

import pytest
import torch

from analyses.attributing import attribute
from analyses.attribution.activation_patching import ActivationPatching
from analyses.attribution.occlusion import Occlusion
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from interp.capturing import edited
from interp.models.torch_module import TorchModel
from interp.types import Geometry, Inputs, Site

OTHER = torch.randn(4, 2, 6, 7, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("baseline", ["zeros", "vector", "inputs"])
def test_equals_a_loop_of_edits_over_examples_and_positions(pictures: Any, window: int, baseline: str) -> None:
    runner = pictures(site="second")
    model, x = runner.scorer.model, runner.inputs.tensors["x"]
    net, site, half = model.module, Site("second"), window // 2
    with torch.no_grad():
        made = net.second(net.first(OTHER).tanh())
        vector = torch.linspace(-1, 1, 5, dtype=torch.float64)
        given, base = {
            "zeros": (None, torch.zeros_like(made)),
            "vector": (vector, vector[:, None, None].expand_as(made)),
            "inputs": (Inputs({"x": OTHER}), made),
        }[baseline]
        expected = torch.zeros(4, 3, 4, dtype=torch.float64)
        for b in range(4):
            clean = net(x[b : b + 1])[0, 1]
            for i in range(3):
                for j in range(4):

                    def put(value: torch.Tensor, b: int = b, i: int = i, j: int = j) -> torch.Tensor:
                        patched = value.clone()
                        for k in range(max(i - half, 0), min(i + half, 2) + 1):
                            for m in range(max(j - half, 0), min(j + half, 3) + 1):
                                patched[0, :, k, m] = base[b, :, k, m]
                        return patched

                    with edited(model, {site: put}):
                        expected[b, i, j] = clean - net(x[b : b + 1])[0, 1]
        with edited(model, {site: lambda value: base.clone()}):
            everything = net(x)[:, 1]
        maps, details = ActivationPatching(given, window=window).measured(runner)
        torch.testing.assert_close(maps, expected)
        torch.testing.assert_close(details["whole"], net(x)[:, 1] - everything)
    assert maps.abs().mean() > 1e-4


def test_to_zero_it_is_occlusion_of_one_position(pictures: Any) -> None:
    torch.testing.assert_close(
        ActivationPatching().measured(pictures())[0], Occlusion(1, 1).measured(pictures())[0], rtol=1e-12, atol=1e-12
    )


def test_of_a_linear_score_positions_add_up_to_the_whole(pictures: Any) -> None:
    weights = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    runner = pictures(score=lambda output: output[:, 0])
    runner.scorer.model.module.forward = lambda x: (x * weights).sum((1, 2, 3))[:, None]
    maps, details = ActivationPatching(Inputs({"x": OTHER})).measured(runner)
    torch.testing.assert_close(maps, ((runner.inputs.tensors["x"] - OTHER) * weights).sum(1))
    torch.testing.assert_close(maps.sum((1, 2)), details["whole"])


def test_inputs_follow_their_examples_into_chunks(pictures: Any) -> None:
    runner, method = pictures(site="second"), ActivationPatching(Inputs({"x": OTHER}))
    maps, _ = method.measured(runner)
    for size in (1, 3):
        torch.testing.assert_close(
            method.measured(pictures(batch_size=size, site="second"))[0], maps, rtol=1e-12, atol=1e-12
        )
        found = attribute(
            runner.scorer.model, runner.inputs, "second", score=runner.scorer.score, methods=[method], batch_size=size
        )
        torch.testing.assert_close(next(iter(found.values.values())), maps, rtol=1e-12, atol=1e-12)
    some = torch.tensor([2, 0, 2])
    torch.testing.assert_close(method.measured(runner.some(some))[0], maps[some], rtol=1e-12, atol=1e-12)


def test_texts_of_several_lengths_are_compared_with_texts_of_the_same(texts: Any) -> None:
    runner = texts()
    model, inputs, mask = runner.scorer.model, runner.inputs, runner.inputs.mask
    ids = torch.randint(0, 20, (4, 5), generator=torch.Generator().manual_seed(5))
    other = Inputs({"input_ids": ids, "attention_mask": mask}, mask)
    with torch.no_grad():
        clean = model.forward(inputs)[:, 1]
        for size in (1, 3, 32):
            found = attribute(
                model, inputs, "embed", score=runner.scorer.score, methods=[ActivationPatching(other)], batch_size=size
            )
            (maps,) = found.values.values()
            for p in range(5):
                swapped = inputs.tensors["input_ids"].clone()
                swapped[:, p] = ids[:, p]  # embeddings are a table: another token is another embedding
                expected = clean - model.forward(Inputs(inputs.tensors | {"input_ids": swapped}, mask))[:, 1]
                torch.testing.assert_close(maps[:, p], expected * mask[:, p], rtol=1e-12, atol=1e-12)


def test_prefix_tokens_are_left_as_they_are() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Flatten(), torch.nn.Linear(15, 1)).double()
    model = TorchModel(net, geometry={"0": Geometry("grid", grid=(2, 2), prefix=1)})
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    runner = Runner(Scorer(model, lambda output: output[:, 0]), Examples.all(Inputs({"x": x})), Site("0"))
    maps, details = ActivationPatching().measured(runner)
    products = (net[0](x).detach() * net[2].weight.detach().view(5, 3)).sum(2)
    torch.testing.assert_close(maps.flatten(1), products[:, 1:])
    torch.testing.assert_close(details["whole"], products[:, 1:].sum(1))


def test_what_does_not_fit_is_refused(pictures: Any, texts: Any) -> None:
    for window in (0, 2):
        with pytest.raises(ValueError, match=f"window is {window}, but it is centred on a position: give an odd"):
            ActivationPatching(window=window)
    with pytest.raises(ValueError, match=r"baseline has shape \[3\], but activations at input are vectors of width 2"):
        ActivationPatching(torch.zeros(3)).measured(pictures())
    two = ActivationPatching(Inputs({"x": OTHER[:2]}))
    for runner in (pictures(), pictures().some(torch.tensor([0, 1]))):  # also where as many happen to run together
        with pytest.raises(
            ValueError, match=r"baseline gives activations of shape \[2, 2, 6, 7\] at input, but inputs \[4, 2, 6, 7\]"
        ):
            two.measured(runner)
    mask = torch.arange(5) < torch.tensor([5, 3, 4, 1])[:, None]
    longer = Inputs({"input_ids": torch.zeros(4, 5, dtype=torch.long), "attention_mask": mask}, mask)
    with pytest.raises(ValueError, match="baseline holds data at other positions than inputs"):
        ActivationPatching(longer).measured(texts())


def test_what_a_module_makes_in_later_runs_stays() -> None:
    """Of a module that runs twice the first run counts: with the examples as their own baseline, nothing falls."""
    relu = torch.nn.ReLU()
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), relu, torch.nn.Linear(6, 6), relu, torch.nn.Linear(6, 3)).double()
    x = Inputs({"x": torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)})
    scorer = Scorer(TorchModel(net), lambda output: output[:, :, 1].sum(1))
    runner = Runner(scorer, Examples.all(x), Site("1"))
    maps, details = ActivationPatching(x).measured(runner)
    assert not maps.any() and not details["whole"].any()
    assert ActivationPatching().measured(runner)[0].any()
