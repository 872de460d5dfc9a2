"""Any network that is ready to run can stand behind the Restorer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from restormer_cli.engine import strips
from restormer_cli.engine.backend import Notice, OwnBackend
from restormer_cli.engine.memory_plan import Plan
from restormer_cli.engine.progress import Progress, silent
from restormer_cli.engine.restorer import Restorer
from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.native.build import library


class Negative:
    """A Backend that turns pictures into their negatives, and runs out of memory above a number of pixels."""

    config, precision, device = ModelConfig(), "fp32", torch.device("cpu")

    def __init__(self, most: int = 10**9, replans: bool = False, together: int = 1) -> None:
        self.most, self.replans, self.together = most, replans, together
        self.shapes: list[tuple[int, ...]] = []

    def __str__(self) -> str:
        return "negative.onnx"

    def plan(self, height: int, width: int, *, tile: int | None, budget: int | None, base: int) -> Plan:
        kind = "tiles" if tile else "whole"
        return Plan(kind, True, tile, None, self.precision, base, together=self.together)

    def run(self, picture: Tensor, plan: Plan, notice: Notice, progress: Progress = silent) -> Tensor:
        self.shapes.append(tuple(picture.shape))
        if picture.shape[2] * picture.shape[3] > self.most:
            raise MemoryError
        return 1 - picture


def picture(height: int = 70, width: int = 50) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3), np.float32)


@pytest.mark.parametrize("tile", [None, 32])
def test_a_backend_sees_planes_that_are_multiples_of_8(tile: int | None) -> None:
    backend = Negative()
    np.testing.assert_allclose(Restorer(backend, tile=tile, overlap=8)(picture()), 1 - picture(), atol=1e-6)
    assert {(b, c, h % 8, w % 8) for b, c, h, w in backend.shapes} == {(1, 3, 0, 0)}
    assert max(max(shape) for shape in backend.shapes) == (tile or 72)


def test_pictures_of_one_shape_go_together_as_far_as_the_plan_says() -> None:
    backend, heard = Negative(together=2), []
    pictures = [picture() + index for index in range(5)]
    answers = Restorer(backend).several(pictures, progress=heard.append)
    for one, answer in zip(pictures, answers, strict=True):
        np.testing.assert_allclose(answer, 1 - one, atol=1e-6)
    assert [shape[0] for shape in backend.shapes] == [2, 2, 1]
    with pytest.raises(UserError, match="pictures of one shape"):
        Restorer(backend).several([picture(), picture(50, 70)])


def test_and_so_do_tiles() -> None:
    backend = Negative(together=4)
    pictures = [picture(), picture() + 1]
    answers = Restorer(backend, tile=32, overlap=8).several(pictures)
    for one, answer in zip(pictures, answers, strict=True):
        np.testing.assert_allclose(answer, 1 - one, atol=1e-6)
    assert [shape[0] for shape in backend.shapes] == [4, 2] * 2  # six tiles of each


def test_one_after_the_other_where_memory_ran_out() -> None:
    backend = Negative(most=40 * 40, replans=True, together=4)
    np.testing.assert_allclose(Restorer(backend)(picture()), 1 - picture(), atol=1e-6)
    assert {shape[0] for shape in backend.shapes} == {1}


def test_smaller_tiles_are_tried_only_where_that_may_help() -> None:
    with pytest.raises(MemoryError):
        Restorer(Negative(most=40 * 40))(picture())
    restorer = Restorer(Negative(most=40 * 40, replans=True))
    np.testing.assert_allclose(restorer(picture()), 1 - picture(), atol=1e-6)
    assert restorer.done is not None
    assert restorer.done.kind == "tiles"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "--device cuda: negative.onnx is a finished graph, which runs on the CPU"),
        ({"precision": "bf16"}, "--precision bf16: negative.onnx is a finished graph in fp32"),
        ({"window": 64}, "--window 64: negative.onnx is a finished graph with global attention"),
        ({"compile": True}, "--compile: negative.onnx is a finished graph"),
    ],
)
def test_what_a_finished_graph_cannot_do_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Restorer(Negative(), **options)


@pytest.mark.skipif(library() is None, reason="no compiler here")
def test_in_bf16_operators_run_whole_what_kernels_could_only_run_in_tiles(monkeypatch) -> None:
    """Kernels keep maps in float32, twice as large."""
    monkeypatch.setattr(strips, "multiplies_pairs", lambda: True)
    model = Restormer(ModelConfig(blocks=(1, 1, 1, 1), refinement=1)).eval()
    backend = OwnBackend(model, torch.device("cpu"), "bf16")

    def plan(budget: int, tile: int | None = None) -> Plan:
        return backend.plan(2048, 2048, tile=tile, budget=budget, base=0)

    by_kernels = plan(10**12)
    assert (by_kernels.kind, by_kernels.operators) == ("whole", False)
    with monkeypatch.context() as patch:
        patch.setattr(strips, "multiplies_pairs", lambda: False)
        little = by_kernels.bytes
        while plan(little - (4 << 20)).kind != "tiles":
            little -= 4 << 20
        by_operators = plan(little)
    assert plan(little) == replace(by_operators, operators=True)
    assert not plan(little, tile=256).operators
    assert plan(little // 2).kind == "tiles"

    asked = []
    run = strips.StripNetwork.run
    monkeypatch.setattr(strips.StripNetwork, "run", lambda self, *rest: asked.append(self.native) or run(self, *rest))
    for chosen in (by_kernels, plan(little)):
        assert backend.run(torch.rand(1, 3, 16, 16), chosen, print).shape == (1, 3, 16, 16)
    assert asked == [True, False]
