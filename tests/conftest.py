"""Tiny networks and pictures that several rooms of the tests share."""

import gc
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from restormer_cli.files import cache_folder as user_cache
from restormer_cli.model.config import ModelConfig
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import read_recipe

# torch is imported where it is used: the process that only hands out tests to others need not wait for it.
if TYPE_CHECKING:
    from restormer_cli.model.restormer import Restormer

# Two threads on a busy machine wait for each other more than they work; subprocesses inherit the variable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test depends on the clock.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Dozens of tests start Python anew: where bytecode is not kept, each of them compiles the package again, for a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """What has been imported stays: looking through all of it for garbage, again and again, takes long."""
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries complain of what is left at the end


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded pictures go to a folder of the tests' own, in subprocesses too; returns it."""
    from restormer_cli.native.build import library

    folder = tmp_path_factory.mktemp("cache")
    if library() is not None:  # compiled once for all of them, in the user's own cache
        shutil.copytree(user_cache() / "native", folder / "native")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESTORMER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Iterator[list[str]]:
    """The beginning of a command line that is `restormer` without importing torch anew; see warm.py."""
    script, path = Path(__file__).with_name("warm.py"), tmp_path_factory.mktemp("warm") / "socket"
    if not hasattr(os, "fork") or not hasattr(socket, "AF_UNIX"):
        yield [str(Path(sys.executable).parent / "restormer")]
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        command = [sys.executable, "-P", str(script), str(listening.fileno())]
        server = subprocess.Popen(command, pass_fds=[listening.fileno()], start_new_session=True)
    yield [sys.executable, "-IS", str(script), str(path)]
    server.terminate()
    server.wait()


TINY = {"dim": 4, "blocks": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "refinement": 1}


def make_network(seed: int = 0, **changes) -> "Restormer":
    """A tiny network with random weights, in evaluation mode, that changes a picture visibly."""
    import torch

    from restormer_cli.model.restormer import Restormer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Restormer(ModelConfig(**{**TINY, **changes}))
    return network.eval()


@pytest.fixture(scope="session")
def tiny_network() -> "Callable[..., Restormer]":
    """A maker of tiny networks: `tiny_network(seed=1, in_channels=1, out_channels=1)`."""
    return make_network


def write_weights(path: Path, network: "Restormer", header: dict[str, str]) -> None:
    from restormer_cli.model.weights_file import save_weights

    save_weights(path, network, header)


@pytest.fixture(scope="session")
def colour_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "colour.safetensors"
    write_weights(path, make_network(), {"task": "denoise"})
    return path


@pytest.fixture(scope="session")
def gray_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "gray.safetensors"
    write_weights(path, make_network(in_channels=1, out_channels=1), {"task": "denoise"})
    return path


@pytest.fixture(scope="session")
def dual_pixel_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "dual.safetensors"
    write_weights(path, make_network(in_channels=6, dual_pixel=True), {"task": "defocus"})
    return path


@pytest.fixture(scope="session")
def broken_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one value that is not a number."""
    import torch

    network = make_network()
    with torch.no_grad():
        network.patch_embed.proj.weight[0, 0, 0, 0] = torch.nan  # pyright: ignore
    path = tmp_path_factory.mktemp("weights") / "broken.safetensors"
    write_weights(path, network, {})
    return path


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Recipe]:
    """`read(text, *overrides)`: the recipe in a file `mine.toml` of this text."""

    def read_text(text: str, *overrides: str) -> Recipe:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(str(path), overrides)

    return read_text


def make_samples(height: int, width: int, channels: int = 3, bits: int = 8) -> np.ndarray:
    """Smooth colours with an edge, away from black and white: uint8 or uint16 (h, w, c), or (h, w) for one channel."""
    y, x, c = np.ogrid[0 : 1 : height * 1j, 0 : 1 : width * 1j, 0:channels]
    waves = 0.5 + 0.2 * np.sin(9 * x + c) * np.cos(7 * y - c) + 0.15 * (x > y)
    samples = np.rint(waves * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return np.ascontiguousarray(samples if channels > 1 else samples[..., 0])


@pytest.fixture(scope="session")
def samples() -> Callable[..., np.ndarray]:
    """A maker of pictures: `samples(height, width, channels=3, bits=8)`."""
    return make_samples


@pytest.fixture(scope="session")
def write_png() -> Callable[..., Path]:
    """`write_png(path, height, width, channels=3, bits=8)` -> path, folders made."""

    def write(path: Path, height: int = 9, width: int = 13, channels: int = 3, bits: int = 8) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(imagecodecs.png_encode(make_samples(height, width, channels, bits)))
        return path

    return write
