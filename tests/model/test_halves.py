"""A block's halves in C against PyTorch's operators: results, gradients, what is kept, and when they step aside."""

from copy import deepcopy

import pytest
import torch

from restormer_cli.model import halves, restormer
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Block, Restormer
from restormer_cli.native.build import library

compiled = pytest.mark.skipif(library() is None, reason="no compiler here")

VARIANTS = {
    "plain": {},
    "bias-free": {"norm": "bias-free"},
    "biases": {"bias": True},
    "no whole vectors": {"dim": 14, "heads": (7, 2, 4, 8), "bias": True},
}


def block(**variant) -> Block:
    torch.manual_seed(1)
    config = ModelConfig(**{"dim": 12, "blocks": (1, 1, 1, 1), "heads": (2, 2, 4, 8), **variant})
    made = Block(config.dim, config.heads[0], config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def gradients(module: Block, x: torch.Tensor, dy: torch.Tensor) -> list[torch.Tensor]:
    """The result and every gradient."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    y = module(x)
    (y * dy).sum().backward()
    assert x.grad is not None
    return [
        y.detach(),
        x.grad,
        *(parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None),
    ]


@compiled
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_results_and_gradients_are_those_of_the_operators(monkeypatch, variant, threads):
    module = block(**variant)
    exact = deepcopy(module).double()
    monkeypatch.setattr(halves, "_pool", lambda: halves.WorkerPool(threads))
    for size in ((1, 8, 8), (2, 40, 70), (1, 3, 1)):
        x, dy = (torch.randn(*size, module.norm1.body.weight.numel()) for _ in range(2))
        ours = gradients(module, x, dy)
        with monkeypatch.context() as patch:
            patch.setattr(restormer, "library", lambda: None)
            plain = gradients(module, x, dy)
        truth = gradients(exact, x.double(), dy.double())
        assert len(ours) == len(truth) == 2 + len(list(module.parameters()))
        for mine, theirs, right in zip(ours, plain, truth, strict=True):
            scale = right.abs().max().item()
            allowed = (theirs - right).abs().max().item()
            assert (mine - right).abs().max().item() <= max(2e-5 * scale, 4 * allowed, 1e-6)


@compiled
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_by_autocast_results_and_gradients_are_no_farther_off_than_those_of_the_operators(monkeypatch, variant):
    """By the processor's own instruction or, where it has none, by others."""
    module = block(**variant)
    exact = deepcopy(module).double()
    for size in ((1, 8, 8), (2, 40, 71), (1, 3, 1)):
        x, dy = (torch.randn(*size, module.norm1.body.weight.numel()) for _ in range(2))
        truth = gradients(exact, x.double(), dy.double())
        with torch.autocast("cpu", dtype=torch.bfloat16), monkeypatch.context() as patch:
            patch.setattr(restormer, "multiplies_pairs", lambda: True)
            ours = gradients(module, x, dy)
            patch.setattr(restormer, "multiplies_pairs", lambda: False)
            plain = gradients(module, x, dy)
        assert ours[0].dtype == torch.float32
        away = [max((one - right).norm() / right.norm() for one, right in zip(found, truth, strict=True))
                for found in (ours, plain)]  # fmt: skip
        assert 1e-3 < away[0] < min(0.05, 1.5 * away[1])


@compiled
def test_equal_steps_have_equal_bits():
    module = block()
    x, dy = torch.randn(2, 2, 24, 72, 12)
    once, again = gradients(module, x, dy), gradients(module, x, dy)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@compiled
def test_only_the_inputs_of_the_halves_are_kept():
    module, kept = block(dim=16), []
    x = torch.randn(1, 64, 64, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        module(x)
    maps = {tensor.untyped_storage().data_ptr() for tensor in kept if tensor.numel() >= x.numel()}
    assert len(maps) == 2  # x, and what follows attention


@compiled
def test_fake_tensors_run_no_kernel():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        network = Restormer(ModelConfig(dim=8, blocks=(1, 1, 1, 1))).train()
        loss = network(torch.zeros(1, 3, 16, 16)).sum()
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


@compiled
@pytest.mark.parametrize("variant", [{"attention": "mta"}, {"feed_forward": "dfn"}, {"feed_forward": "gfn"}])
def test_plainer_blocks_are_left_to_the_operators(monkeypatch, variant):
    monkeypatch.setattr(halves, "residual_half", None)  # would be called
    gradients(block(**variant), torch.randn(1, 8, 8, 12), torch.ones(1, 8, 8, 12))


@compiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_left_to_the_operators_unless_products_of_pairs_are_faster(monkeypatch, dtype):
    monkeypatch.setattr(halves, "residual_half", None)
    monkeypatch.setattr(restormer, "multiplies_pairs", lambda: dtype == torch.float16)
    with torch.autocast("cpu", dtype=dtype):
        block()(torch.randn(1, 8, 8, 12, requires_grad=True)).sum().backward()
