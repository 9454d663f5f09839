"""AttnLRP: relevance handed from value to value by loops, what is kept, and what it is without a curve."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from analyses.attribution.attn_lrp import AttnLRP
from analyses.attribution.input_x_gradient import InputXGradient
from analyses.passes import Examples, Scorer
from analyses.running import Runner
from analyses.scores.base import Pass, Score
from interp.loading import load_model
from interp.models.torch_module import TorchModel
from interp.types import Inputs, Site

P, D = 3, 2


class Block(nn.Module):
    """One head and an MLP, with skips and norms, without a bias: a sum of its output is the score."""

    def __init__(self, *, fused: bool = False, softmax: bool = True) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o, self.up, self.down = (nn.Linear(D, D, bias=False) for _ in range(6))
        self.norm = nn.LayerNorm(D, elementwise_affine=False, eps=0.1)
        self.weights = nn.Parameter(torch.randn(P, D))
        self.fused, self.softmax = fused, softmax

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = self.q(y), self.k(y), self.v(y)
        if self.fused:
            z = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        else:
            looks = q @ k.mT
            z = (looks.softmax(-1) if self.softmax else looks) @ v
        x = x + self.o(z)
        x = x + self.down(functional.gelu(self.up(self.norm(x))))
        return (x * self.weights).sum((1, 2))


def _runner(net: nn.Module, x: Tensor, batch_size: int = 32) -> Runner:
    return Runner(
        Scorer(TorchModel(net), lambda output: output),
        Examples.all(Inputs({"x": x})),
        Site("input"),
        batch_size=batch_size,
    )


def _block(**options: bool) -> tuple[Block, Tensor]:
    torch.manual_seed(0)
    return Block(**options).double(), torch.randn(4, P, D, dtype=torch.float64)


def _linear(x: np.ndarray, weight: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """LRP-0: each input gets the share that it added to the output."""
    given = np.zeros_like(x)
    for p in range(len(x)):
        for out in range(len(weight)):
            parts = weight[out] * x[p]
            given[p] += parts / parts.sum() * relevance[p, out]
    return given


def _norm(x: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """LRP-0 through the centring; the denominator is a constant."""
    return _linear(x, np.eye(D) - 1 / D, relevance)


def _product(a: np.ndarray, b: np.ndarray, relevance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The uniform rule of `a @ b`: each summand's share, and half of it for each of its factors."""
    to_a, to_b, out = np.zeros_like(a), np.zeros_like(b), a @ b
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                share = a[i, k] * b[k, j] / out[i, j] * relevance[i, j]
                to_a[i, k] += share / 2
                to_b[k, j] += share / 2
    return to_a, to_b


def _softmax(looks: np.ndarray, pattern: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """The paper's Taylor rule: x_i (R_i - s_i sum R)."""
    return looks * (relevance - pattern * relevance.sum(1, keepdims=True))


def _by_loops(net: Block, x: np.ndarray) -> np.ndarray:
    """One example, forward and back."""
    weights = {name: getattr(net, name).weight.detach().numpy() for name in ("q", "k", "v", "o", "up", "down")}
    normed = lambda y: (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 0.1)  # noqa: E731
    y = normed(x)
    q, k, v = (y @ weights[name].T for name in "qkv")
    looks = q @ k.T
    pattern = np.exp(looks) / np.exp(looks).sum(1, keepdims=True) if net.softmax else looks
    z = pattern @ v
    attn = z @ weights["o"].T
    middle = x + attn
    pre = normed(middle) @ weights["up"].T
    post = pre * np.vectorize(lambda t: (1 + math.erf(t / 2**0.5)) / 2)(pre)
    mlp = post @ weights["down"].T
    relevance = (middle + mlp) * net.weights.detach().numpy()
    # A sum: to each summand its share.
    to_mlp, to_middle = (part / (middle + mlp) * relevance for part in (mlp, middle))
    to_pre = _linear(post, weights["down"], to_mlp)  # the activation hands on what it gets
    to_middle += _norm(middle, _linear(normed(middle), weights["up"], to_pre))
    to_attn, to_x = (part / middle * to_middle for part in (attn, x))
    to_pattern, to_v = _product(pattern, v, _linear(z, weights["o"], to_attn))
    to_looks = _softmax(looks, pattern, to_pattern) if net.softmax else to_pattern
    to_q, to_k = _product(q, k.T, to_looks)
    to_y = sum(_linear(y, weights[name], part) for name, part in zip("qkv", (to_q, to_k.T, to_v), strict=True))
    return to_x + _norm(x, to_y)


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"softmax": False}], ids=str)
def test_equals_relevance_handed_on_by_loops(options: dict[str, bool]) -> None:
    net, x = _block(**options)
    found = AttnLRP().attributions(_runner(net, x))
    for i in range(len(x)):
        expected = _by_loops(net, x[i].numpy())
        torch.testing.assert_close(found[i], torch.from_numpy(expected), rtol=1e-10, atol=1e-10)
    maps, details = AttnLRP().measured(_runner(net, x, batch_size=3))
    torch.testing.assert_close(maps, found.sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(maps.sum(1) - net(x).detach(), details["gap"])
    # Softmax keeps some: its rule is a linear approximation with a constant.
    assert (details["gap"].abs() < 1e-12).all() if "softmax" in options else (details["gap"].abs() > 1e-4).any()


class Gated(nn.Module):
    """Nothing but what hands all on: no bias, no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.second = (nn.Linear(6, 6, bias=False) for _ in range(3))
        self.conv, self.head = nn.Conv1d(5, 5, 3, padding=1, bias=False), nn.Linear(6, 2, bias=False)
        self.rms, self.norm = nn.RMSNorm(6), nn.GroupNorm(1, 5, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + functional.silu(self.gate(self.rms(x))) * self.first(self.rms(x))
        x = x + functional.gelu(self.conv(self.norm(x)), approximate="tanh")
        x = x + torch.einsum("bpd,bqd,bqe->bpe", x, self.second(x), x).tanh()
        return self.head(x / x.norm(dim=-1, keepdim=True)).mean(1)[:, 1] + (x**3).sum((1, 2))


def test_nothing_is_lost_without_biases_and_softmax() -> None:
    torch.manual_seed(0)
    net, x = Gated().double(), torch.randn(4, 5, 6, dtype=torch.float64)
    maps, details = AttnLRP().measured(_runner(net, x))
    assert details["gap"].abs().max() < 1e-10
    torch.testing.assert_close(maps.sum(1), net(x).detach(), rtol=1e-10, atol=1e-10)
    # The plain gradient does not add up.
    assert (InputXGradient().measured(_runner(net, x))[0].sum(1) - net(x)).abs().max() > 1


def test_of_lines_it_is_input_times_gradient() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 8),
        nn.ReLU(inplace=True),
        nn.Linear(8, 8),
        nn.LeakyReLU(0.1),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(12, 1),
        nn.Flatten(0),
    ).double()
    runner = _runner(net, torch.randn(5, 3, 4, dtype=torch.float64))
    torch.testing.assert_close(AttnLRP().attributions(runner), InputXGradient().attributions(runner), rtol=0, atol=0)


def test_a_transformer_of_patches_and_what_it_reports(patches: Any) -> None:
    """Prefix tokens have relevance that is on no map; batches of any size are the same."""
    maps, details = AttnLRP().measured(patches())
    found, scores = AttnLRP().attributions(patches()), patches().scores()
    assert found.shape == (4, 13, 6) and maps.shape == (4, 3, 4)
    torch.testing.assert_close(maps.flatten(1), found[:, 1:].sum(-1))
    torch.testing.assert_close(details["gap"], found.sum((1, 2)) - scores)
    for size in (1, 3):
        torch.testing.assert_close(
            AttnLRP().measured(patches(batch_size=size)), (maps, details), rtol=1e-12, atol=1e-12
        )
    alone = AttnLRP().measured(patches(slice(2, 3)))[0]
    torch.testing.assert_close(alone[0], maps[2], rtol=1e-12, atol=1e-12)


def test_a_model_is_left_as_found_when_the_score_raises(patches: Any) -> None:
    def raises(_output: Any) -> Any:
        raise KeyError("score")

    runner = patches(score=raises)
    module = runner.scorer.model.module.train()
    with pytest.raises(KeyError):
        AttnLRP().measured(runner)
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())
    torch.testing.assert_close(
        torch.autograd.functional.jacobian(torch.tanh, torch.ones(1)), 1 - torch.ones(1, 1).tanh() ** 2
    )


def _small(kind: str) -> tuple[Any, Inputs]:
    from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    if kind == "gpt2":
        text = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=30, n_positions=16))
        model = load_model(text.eval())
        return model, model.collate([torch.tensor([3, 9, 4, 11]), torch.tensor([5, 7, 2, 1])])
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    plain = ViTForImageClassification(ViTConfig(image_size=12, patch_size=4, num_labels=3, hidden_act=kind, **small))
    return load_model(plain.eval()), Inputs({"pixel_values": torch.randn(2, 3, 12, 12)})


class OfMlp(Score):
    """A weighted sum of what an MLP adds."""

    @property
    def sites(self) -> tuple[str, ...]:
        return ("blocks.1.hook_mlp_out",)

    def __call__(self, run: Pass) -> Tensor:
        (values,) = run.values.values()
        return (values * torch.linspace(1, 2, values[0].numel()).view_as(values[0])).flatten(1).sum(1)


@pytest.mark.parametrize("kind", ["gelu", "quick_gelu", "gpt2"])
def test_models_of_transformers_whatever_attention_they_run(kind: str) -> None:
    """Fused and eager attention agree, and relevance of an MLP without biases is all handed on, however its activation
    is written."""
    model, inputs = _small(kind)
    score: Callable[[Any], Tensor] = lambda output: output.logits.flatten(1)[:, -1]  # noqa: E731
    if kind != "gpt2":
        eager = load_model(model.module, attention="eager")
        pair = []
        for runs in (eager, model):
            runs.module.set_attn_implementation("eager" if runs is eager else "sdpa")
            runner = Runner(Scorer(runs, score), Examples.all(inputs), runs.site("blocks.0@in"))
            pair.append(AttnLRP().measured(runner)[0])
        torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-5)
    for name, part in model.module.named_parameters():
        if "bias" in name:
            nn.init.zeros_(part)
    for site in ("blocks.1.mlp.hook_pre", "blocks.1.mlp.in@in"):
        runner = Runner(Scorer(model, OfMlp()), Examples.all(inputs), model.site(site))
        _, details = AttnLRP().measured(runner)
        assert details["gap"].abs().max() < 1e-5 * runner.scores().abs().max()
