"""[teacher]: another network's answers as targets."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from restormer_cli.data.pictures import Note
from restormer_cli.engine.positions import UPRIGHT
from restormer_cli.errors import UserError
from restormer_cli.model.cards import read_header
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.cost import count_parameters
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights
from restormer_cli.recipe import Recipe, Teaching
from restormer_cli.training.estimate import make_plan
from restormer_cli.training.teacher import Teacher, target
from restormer_cli.training.trainer import fit


@pytest.fixture
def teacher(tmp_path: Path, small_recipe) -> Path:
    """Weights of the recipe's shape, of another seed."""
    torch.manual_seed(5)
    path = tmp_path / "teacher.safetensors"
    save_weights(path, Restormer(short(small_recipe).model), {"task": "denoise"})
    return path


def pictures(side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    degraded, clean = torch.rand(2, 2, 3, side, side, generator=generator)
    return degraded, clean


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_views_are_turned_back(views):
    degraded, clean = pictures()
    wanted = Teaching(weights="x", views=views, share=0.25)
    for iteration in range(8):
        made = target(lambda x: x, degraded, clean, wanted, iteration)
        torch.testing.assert_close(made, 0.75 * clean + 0.25 * degraded)


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_iterations_take_turns_at_the_views(views):
    degraded, clean = pictures()
    seen: list[torch.Tensor] = []

    def answer(x):
        seen.append(x)
        return x

    for iteration in range(10, 10 + 8 // views):
        target(answer, degraded, clean, Teaching(weights="x", views=views), iteration)
    assert len(seen) == 8
    assert len({tuple(x.flatten().tolist()) for x in seen}) == 8


def test_the_mean_of_all_views_turns_with_the_picture():
    """Whatever the teacher answers: what depends on the position averages out."""
    degraded, clean = pictures()
    slope = torch.linspace(0, 1, 16) * torch.linspace(1, 3, 16)[:, None]
    wanted = Teaching(weights="x", views=8, share=1)
    straight = target(lambda x: x * slope, degraded, clean, wanted, 1)
    turned = target(lambda x: x * slope, degraded.rot90(1, (-2, -1)), clean, wanted, 1)
    torch.testing.assert_close(straight.rot90(1, (-2, -1)), turned)


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_a_teacher_of_falling_rain_sees_no_quarter_turn(views):
    degraded, clean = pictures()
    lying = {tuple(x.flatten().tolist()) for turned in (1, 3) for x in both_ways(degraded.rot90(turned, (-2, -1)))}
    seen: list[torch.Tensor] = []

    def answer(x):
        seen.append(x)
        return x

    for iteration in range(4):
        target(answer, degraded, clean, Teaching(weights="x", views=views), iteration, UPRIGHT)
    assert len({tuple(x.flatten().tolist()) for x in seen}) == 4
    assert not lying & {tuple(x.flatten().tolist()) for x in seen}


def both_ways(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x, x.flip(-1)


def test_a_teacher_of_two_views_sees_them_as_they_are(tmp_path, small_recipe):
    model = {**short(small_recipe).model.to_dict(), "in_channels": 6, "dual_pixel": True}
    views = {"degraded": "left", "right": "right", "clean": "clean"}
    path = tmp_path / "dual.safetensors"
    save_weights(path, Restormer(ModelConfig(**model)), {"task": "defocus"})
    recipe = short(
        small_recipe, model=model, data={"train": views}, degrade={}, teacher={"weights": str(path), "views": 1}
    )
    degraded, clean = torch.rand(1, 6, 16, 16), torch.rand(1, 3, 16, 16)
    teacher = Teacher(recipe, torch.device("cpu"), "fp32")
    first, *others = [teacher.targets([(degraded, clean)], iteration)[0][1] for iteration in range(8)]
    assert all(torch.equal(first, other) for other in others)


def test_targets_are_the_networks_answers(small_recipe, teacher):
    recipe = short(small_recipe, teacher={"weights": str(teacher), "views": 2, "share": 0.5})
    degraded, clean = pictures(24)
    network = load_weights(str(teacher)).model.eval()
    with torch.no_grad():
        mirrored = network(degraded.flip(-1)).flip(-1)
        expected = (clean + (network(degraded) + mirrored) / 2) / 2
    ((same, made),) = Teacher(recipe, torch.device("cpu"), "fp32").targets([(degraded, clean)], 8)
    assert torch.equal(same, degraded)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, small_recipe, teacher):
    recipe = short(small_recipe, teacher={"weights": str(teacher), "views": 4})
    whole, parts, alone = tmp_path / "whole", tmp_path / "parts", tmp_path / "alone"
    run(recipe, whole)
    run(recipe, parts, stop_after=3)
    run(recipe, parts, resume=True)
    run(short(small_recipe), alone)
    assert bits(whole) == bits(parts)
    assert bits(whole) != bits(alone)


def test_the_header_names_the_teacher(tmp_path, small_recipe, teacher):
    run(short(small_recipe, teacher={"weights": str(teacher)}), tmp_path / "run")
    training = read_header(tmp_path / "run" / "weights.safetensors")["training"]
    assert training["teacher"]["task"] == "denoise"
    assert re.fullmatch("[0-9a-f]{64}", training["teacher"]["sha256"])


def test_another_file_of_the_teachers_name_is_told(tmp_path, small_recipe, teacher):
    recipe = short(small_recipe, teacher={"weights": str(teacher)})
    run(recipe, tmp_path / "run", stop_after=2)
    save_weights(teacher, Restormer(recipe.model), {"task": "denoise"})
    notes = [log.text for log in run(recipe, tmp_path / "run", resume=True) if isinstance(log, Note)]
    assert any("teacher.weights" in note and "not to the same bits" in note for note in notes)


def test_a_teacher_of_other_channels_is_refused(tmp_path, small_recipe):
    gray = short(small_recipe, model={**short(small_recipe).model.to_dict(), "in_channels": 1, "out_channels": 1})
    path = tmp_path / "gray.safetensors"
    save_weights(path, Restormer(gray.model), {})
    with pytest.raises(UserError, match=r"takes 1 channels and gives 1, \[model\] 3 and 3"):
        run(short(small_recipe, teacher={"weights": str(path)}), tmp_path / "run")


def test_answers_and_weights_count_in_the_plan(small_recipe, teacher):
    alone = make_plan(short(small_recipe), 1).stages[0]
    taught = make_plan(short(small_recipe, teacher={"weights": str(teacher), "views": 2}), 1).stages[0]
    assert taught.tflops == pytest.approx(alone.tflops * 5 / 3)
    assert taught.memory == alone.memory + 8 * count_parameters(short(small_recipe).model)


def test_views_that_a_teacher_of_rain_lacks_do_not_count(tmp_path, small_recipe):
    path = tmp_path / "rain.safetensors"
    falling = {"recipe": {"degrade": {"steps": ["rainfall:1-5"]}}}
    save_weights(path, Restormer(short(small_recipe).model), falling)
    four, eight = (
        make_plan(short(small_recipe, teacher={"weights": str(path), "views": views}), 1).stages[0].tflops
        for views in (4, 8)
    )
    assert four == eight


def short(small_recipe: Callable[..., Recipe], **tables: Any) -> Recipe:
    return small_recipe(stage=[{"iterations": 5, "patch": 16, "batch": 2}], **tables)


def run(recipe: Recipe, folder: Path, **options: Any) -> list[Any]:
    return list(fit(recipe, folder, device="cpu", **options))


def bits(folder: Path) -> dict[str, list[float]]:
    weights = load_weights(folder / "weights.safetensors").model.state_dict()
    return {name: value.flatten().tolist() for name, value in weights.items()}
