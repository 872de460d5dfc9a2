"""The share of a picture that is done, heard while it is restored: rising, to the end, and nothing is changed by it."""

import threading

import numpy as np
import pytest
import torch

from restormer_cli.engine.adapter import restore_pixels
from restormer_cli.engine.progress import silent
from restormer_cli.engine.restorer import Restorer
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.native.build import library

TINY = ModelConfig(dim=8, blocks=(1, 2, 1, 2), heads=(1, 2, 2, 4), refinement=1)
SIDE = 72


@pytest.fixture(scope="module")
def model() -> Restormer:
    torch.manual_seed(0)
    return Restormer(TINY).eval()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)


@pytest.mark.parametrize("native", [False, True])
def test_it_rises_in_small_steps_to_the_end(model: Restormer, native: bool) -> None:
    if native and library() is None:
        pytest.skip("no compiler")
    heard: list[float] = []
    network, picture = StripNetwork(model, native=native), torch.rand(1, 3, 160, 160)
    told = network.run(picture, True, heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1)
    assert len(heard) >= 2 * 11  # two passes of each block
    assert max(np.diff([0.0, *heard])) < 0.25
    assert torch.equal(told, network.run(picture))


@pytest.mark.parametrize(("tile", "ensemble"), [(None, False), (32, False), (None, True), (32, True)])
def test_tiles_and_turns_are_parts_of_the_whole(
    model: Restormer, pixels: np.ndarray, tile: int | None, ensemble: bool
) -> None:
    heard: list[float] = []
    threads: set[int] = set()

    def hear(share: float) -> None:
        heard.append(share)
        threads.add(threading.get_ident())

    restorer = Restorer(model, device="cpu", tile=tile, overlap=8)
    answer = restore_pixels(restorer, pixels, ensemble=ensemble, progress=hear)
    assert heard[0] == 0
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1)
    assert threads == {threading.get_ident()}
    assert np.array_equal(answer, restore_pixels(restorer, pixels, ensemble=ensemble))
    if ensemble:
        assert sum(0.49 < share < 0.51 for share in heard) >= 2  # after four turns, before the fifth


def test_it_begins_again_with_the_picture(model: Restormer, pixels: np.ndarray, monkeypatch) -> None:
    heard: list[float] = []
    restorer, real = Restorer(model, device="cpu"), StripNetwork.run

    def once_too_large(self, picture, keep_v=True, progress=silent):
        result = real(self, picture, keep_v, progress)
        if keep_v:
            raise MemoryError
        return result

    monkeypatch.setattr(StripNetwork, "run", once_too_large)
    restorer(pixels, progress=heard.append)
    assert heard.count(0.0) == 2
    assert heard[-1] == pytest.approx(1)
