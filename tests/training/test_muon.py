"""Muon, against what its papers write; what it leaves to AdamW; its state from run to run."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from restormer_cli.errors import UserError
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe
from restormer_cli.training import learner
from restormer_cli.training.muon import Muon, is_matrix, turned
from restormer_cli.training.trainer import fit

RATE, DECAY = 1e-2, 0.1


@pytest.mark.parametrize(("rows", "columns"), [(6, 40), (40, 6), (24, 24), (192, 510)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_orthogonal_and_as_long_as_adamws(rows: int, columns: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    short, long = sorted((rows, columns))
    left, right = (torch.linalg.qr(torch.randn(side, short)).Q for side in (rows, columns))
    matrix = left @ torch.diag(torch.logspace(0, -1, short)) @ right.T
    step = turned(1e-4 * matrix[None], dtype)[0]
    values = torch.linalg.svdvals(step) / (0.2 * long**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The same directions: the product with the matrix is symmetric and positive.
    assert (left.T @ step @ right).diagonal().min() > 0
    assert float(step.square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)


def written_out(weight: Tensor, gradients: list[Tensor]) -> Tensor:
    """Steps as the papers have them, one matrix at a time, in float64."""
    weight, momentum = weight.double().flatten(1), torch.zeros(weight.shape, dtype=torch.float64).flatten(1)
    for gradient in gradients:
        g = gradient.double().flatten(1)
        momentum = 0.95 * momentum + 0.05 * g
        x = 0.05 * g + 0.95 * momentum
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x - 4.7750 * a @ x + 2.0315 * a @ a @ x
        weight = (1 - RATE * DECAY) * weight - RATE * 0.2 * max(weight.shape) ** 0.5 * x
    return weight


def network() -> nn.Sequential:
    """Two equal matrices, a wide and a tall one, and what are none: a depth-wise kernel, one output, vectors."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(8, 3, 1),
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(5, 1, 3),
        nn.LayerNorm(7),
    )


def test_matrices_step_as_the_papers_say_and_the_rest_as_adamw() -> None:
    ours, plain, before = network(), network(), network()
    gradients = [[torch.randn_like(p) for p in ours.parameters()] for _ in range(3)]
    keywords = {"lr": RATE, "weight_decay": DECAY, "betas": (0.9, 0.99)}
    for model, optimizer in (
        (ours, Muon(ours.parameters(), **keywords)),
        (plain, torch.optim.AdamW(plain.parameters(), **keywords)),
    ):
        for step in gradients:
            for p, g in zip(model.parameters(), step, strict=True):
                p.grad = g.clone()
            optimizer.step()
    count = 0
    for number, (mine, adamw, start) in enumerate(
        zip(ours.parameters(), plain.parameters(), before.parameters(), strict=True)
    ):
        if is_matrix(mine):
            wanted = written_out(start.detach(), [step[number] for step in gradients])
            torch.testing.assert_close(mine.detach().flatten(1).double(), wanted, rtol=1e-4, atol=1e-5)
            count += 1
        else:
            assert mine.equal(adamw)
    assert count == 4


def test_nothing_moves_where_a_gradient_is_not_finite() -> None:
    model = network()
    optimizer = Muon(model.parameters(), lr=torch.tensor(RATE), weight_decay=DECAY, fused=True)
    for number in range(2):
        kept = copy.deepcopy((list(model.parameters()), optimizer.state_dict()["state"]))
        for p in model.parameters():
            p.grad = torch.full_like(p, torch.nan) if number else torch.randn_like(p)
        optimizer.found_inf = torch.tensor(float(number))
        optimizer.step()
    for p, old in zip(model.parameters(), kept[0], strict=True):
        assert p.equal(old)
    for number, state in optimizer.state_dict()["state"].items():
        assert all(state[key].equal(kept[1][number][key]) for key in state)
        assert float(state["step"]) == 1


def weights(folder: Path) -> list[Tensor]:
    return list(load_weights(folder / "weights.safetensors").model.parameters())


def test_a_resumed_run_has_the_bits_of_a_whole_one(small_recipe, tmp_path: Path) -> None:
    recipe = small_recipe(stage=[{"iterations": 7, "patch": 8, "batch": 2}], optimizer={"kind": "muon"})
    list(fit(recipe, tmp_path / "whole", device="cpu"))
    list(fit(recipe, tmp_path / "parts", device="cpu", stop_after=4))
    list(fit(recipe, tmp_path / "parts", device="cpu", resume=True))
    assert all(a.equal(b) for a, b in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True))
    other = small_recipe(stage=[{"iterations": 7, "patch": 8, "batch": 2}])
    list(fit(other, tmp_path / "adamw", device="cpu"))
    assert any(not a.equal(b) for a, b in zip(weights(tmp_path / "whole"), weights(tmp_path / "adamw"), strict=True))


@pytest.mark.parametrize("kinds", [("adamw", "muon"), ("muon", "adamw")])
def test_a_run_goes_on_with_the_other_optimiser(kinds: tuple[str, str], small_recipe, tmp_path: Path) -> None:
    stages = [{"iterations": 6, "patch": 8, "batch": 2}]
    first, second = (small_recipe(stage=stages, optimizer={"kind": kind}) for kind in kinds)
    list(fit(first, tmp_path / "run", device="cpu", stop_after=3))
    list(fit(second, tmp_path / "run", device="cpu", resume=True, accept_changes=True))
    assert all(p.isfinite().all() for p in weights(tmp_path / "run"))


def test_sharded_weights_are_refused(small_recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe: Recipe = small_recipe(stage=[{"iterations": 1, "patch": 8, "batch": 1}], optimizer={"kind": "muon"})
    accelerator = learner.Accelerator(cpu=True)
    monkeypatch.setattr(
        type(accelerator), "distributed_type", property(lambda self: learner.DistributedType.FSDP), raising=False
    )
    with pytest.raises(UserError, match=r"optimizer\.kind = muon: FSDP cuts its matrices"):
        learner.TrainState(recipe, accelerator)
