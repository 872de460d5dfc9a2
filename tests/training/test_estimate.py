"""A plan says what the recipe will do, before it is done."""

import pytest
import torch

from restormer_cli.errors import UserError
from restormer_cli.model import restormer
from restormer_cli.model.restormer import Restormer
from restormer_cli.native.build import library
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import read_recipe
from restormer_cli.training import estimate
from restormer_cli.training.estimate import make_plan, memory_of

compiled = pytest.mark.skipif(library() is None, reason="no compiler here")


@pytest.fixture(scope="module")
def small() -> Recipe:
    """The paper's stages on a network that is worked out in an instant."""
    return read_recipe("defocus", ("model.dim=16", "model.blocks=[1, 1, 1, 1]"))


def test_the_papers_recipe_on_its_eight_devices() -> None:
    plan = make_plan(read_recipe("defocus"), 8)
    assert plan.parameters == 26_126_644
    assert plan.gmacs == pytest.approx(140.99, abs=0.005)
    assert plan.gflops == pytest.approx(309.8, abs=0.1)
    assert [row.last for row in plan.stages] == [92_000, 156_000, 204_000, 240_000, 276_000, 300_000]
    assert [str(row.split) for row in plan.stages] == [f"{each} × 8 × 1" for each in (8, 5, 4, 2, 1, 1)]
    assert [row.megapixels for row in plan.stages] == pytest.approx(
        [1.0486, 1.024, 1.1796, 1.0486, 0.8192, 1.1796], abs=1e-4
    )
    assert plan.stages[0].samples == 92_000 * 64
    assert plan.stages[-1].samples == 92_000 * 64 + 64_000 * 40 + 48_000 * 32 + 36_000 * 16 + 60_000 * 8
    assert plan.stages[0].tflops == pytest.approx(3 * 64 * 0.3098 / 4, rel=1e-3)
    assert dict(plan.rates) == pytest.approx(
        {1: 3e-4, 92_001: 3e-4, 156_001: 2.35e-4, 204_001: 1.32e-4, 240_001: 5.83e-5, 276_001: 1.07e-5, 300_000: 1e-6},
        rel=0.01,
    )
    assert plan.uneven == ()


def test_the_global_batch_stays_whatever_the_devices_are(small: Recipe) -> None:
    for devices, micro, split in ((1, None, "64 × 1 × 1"), (4, 4, "4 × 4 × 4"), (8, 3, "3 × 8 × 3")):
        recipe = small.model_copy(update={"run": small.run.model_copy(update={"micro_batch": micro})})
        row = make_plan(recipe, devices).stages[0]
        assert str(row.split) == split
        assert sum(len(rows) for share in row.split.shares for rows in share) == 64


def test_an_uneven_split_is_told_and_stops_unless_allowed(small: Recipe) -> None:
    with pytest.raises(UserError, match=r"over 3 devices: 64 \(stage\.0\), 40 .*multiples of 3, .*run\.uneven=true$"):
        make_plan(small, 3)
    allowed = small.model_copy(update={"run": small.run.model_copy(update={"uneven": True})})
    plan = make_plan(allowed, 3)
    assert plan.uneven == (0, 1, 2, 3, 4, 5)
    assert str(plan.stages[4].split) == "3 or fewer × 3 × 1"
    with pytest.raises(UserError, match="batch of 8 on 9 devices"):
        make_plan(allowed, 9)


def test_memory_falls_with_half_precision_checkpointing_and_micro_batches(
    small: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory(**run: object) -> int:
        return make_plan(small.model_copy(update={"run": small.run.model_copy(update=run)}), 8).stages[0].memory

    monkeypatch.setattr(estimate, "library", lambda: None)  # as on a GPU
    monkeypatch.setattr(estimate, "multiplies_pairs", lambda: False)
    full = memory()
    assert 0.4 * full < memory(precision="bf16") < 0.7 * full
    assert memory(activation_checkpointing=True) < 0.5 * full
    assert 0.1 * full < memory(micro_batch=1) < 0.2 * full


def test_bf16_on_cuda_is_counted_a_third_higher(small: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast keeps float32 copies there, of which a forward pass without numbers on a CPU knows nothing."""
    monkeypatch.setattr(estimate, "library", lambda: None)
    monkeypatch.setattr(restormer, "library", lambda: None)
    for module in (estimate, restormer):
        monkeypatch.setattr(module, "multiplies_pairs", lambda: False)

    def per_pixel(precision: str, device: str) -> float:
        monkeypatch.setattr(estimate, "choose_device", lambda name: torch.device(device))
        return memory_of(small.model_copy(update={"run": small.run.model_copy(update={"precision": precision})}))[1]

    assert 1.2 < per_pixel("bf16", "cuda") / per_pixel("bf16", "cpu") < 4 / 3
    assert per_pixel("fp32", "cuda") == per_pixel("fp32", "cpu")


@pytest.mark.parametrize(
    ("kernels", "precision"),
    [(False, "fp32"), pytest.param(True, "fp32", marks=compiled), pytest.param(True, "bf16", marks=compiled)],
    ids=["operators", "kernels", "kernels in bf16"],
)
def test_estimated_memory_covers_what_the_backward_pass_keeps(
    monkeypatch: pytest.MonkeyPatch, kernels: bool, precision: str
) -> None:
    """Counted for real on another size than the estimate's own."""
    for module in (estimate, restormer):
        monkeypatch.setattr(module, "multiplies_pairs", lambda: kernels)
        if not kernels:
            monkeypatch.setattr(module, "library", lambda: None)
    recipe = read_recipe("quick/denoise", (f"run.precision={precision}", "ema.decay=0.0"))
    fixed, per_pixel = memory_of(recipe)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    network = Restormer(recipe.model).train()
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), half:
        network(torch.zeros(2, 3, 40, 40))
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    saved = sum(storage.nbytes() for address, storage in kept.items() if address not in weights)
    assert saved < per_pixel * 2 * 40 * 40 < 1.3 * saved
    assert fixed == 16 * sum(parameter.numel() for parameter in network.parameters())
