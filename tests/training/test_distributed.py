"""Several processes, or several micro-batches, take the steps that one process with the whole batch takes."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType, InitProcessGroupKwargs

from restormer_cli.errors import UserError
from restormer_cli.model.weights import load_weights
from restormer_cli.training import distributed
from restormer_cli.training.distributed import check_sharded, make_accelerator, on_main
from restormer_cli.training.schedule import split_batch

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]

RECIPE = """
task = "denoise"
[model]
dim = 4
blocks = [1, 1, 1, 1]
heads = [1, 1, 2, 2]
refinement = 1
[data]
train = {{ clean = "{folder}" }}
validate = {{ clean = "{folder}" }}
[degrade]
steps = ["gaussian:10-50"]
[validation]
every = 10
crop = 16
[ema]
decay = 0.9
[[stage]]
iterations = 12
patch = 16
batch = 4
[[stage]]
iterations = 8
patch = 24
batch = 2
"""

WORKER = """
import sys
from datetime import timedelta
from pathlib import Path
import torch
torch.set_num_threads(1)
torch.set_default_dtype(getattr(torch, sys.argv[1]))
from restormer_cli.recipe_files import read_recipe
from restormer_cli.training.trainer import fit
for _ in fit(read_recipe("recipe.toml", tuple(sys.argv[3:])), Path(sys.argv[2]), device="cpu"):
    pass
"""


@pytest.fixture
def here(tmp_path: Path, write_png) -> Path:
    """A folder with pictures, a recipe and the worker."""
    for number in range(3):
        write_png(tmp_path / "clean" / f"{number}.png", 40, 30 + number)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(folder=tmp_path / "clean"))
    (tmp_path / "worker.py").write_text(WORKER)
    return tmp_path


def train(here: Path, dtype: str, name: str, *changes: str, processes: int = 1) -> list[dict]:
    """Run the worker; its metrics."""
    python = [*TORCHRUN, f"--nproc-per-node={processes}"] if processes > 1 else [sys.executable]
    done = subprocess.run(
        [*python, "worker.py", dtype, name, *changes], cwd=here, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (here / name / "metrics.jsonl").read_text().splitlines()]


def furthest(one: list[dict], other: list[dict], key: str) -> float:
    """The largest difference of a column."""
    pairs = [(a[key], b[key]) for a, b in zip(one, other, strict=True) if key in a]
    assert len(pairs) == (20 if key == "loss" else 2)
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.slow
def test_two_processes_follow_one(here: Path) -> None:
    for dtype, bound in (("float64", 1e-9), ("float32", 1e-5)):
        one, two = (train(here, dtype, f"{dtype}-{n}", processes=n) for n in (1, 2))
        print(f"{dtype}: loss {furthest(one, two, 'loss'):.1e}, psnr {furthest(one, two, 'psnr'):.1e} dB")
        assert furthest(one, two, "loss") <= bound
        assert furthest(one, two, "psnr") <= 1e-3
        weights = [load_weights(here / f"{dtype}-{n}" / "weights.safetensors").model for n in (1, 2)]
        assert all(
            torch.allclose(a, b, atol=1e-4) for a, b in zip(*(model.parameters() for model in weights), strict=True)
        )
    environment = json.loads((here / "float64-2" / "environment.json").read_text())
    assert (environment["processes"], environment["distributed"]) == (2, "MULTI_CPU")


@pytest.mark.slow
def test_micro_batches_and_uneven_shares_follow_the_whole_batch(here: Path) -> None:
    whole = train(here, "float64", "whole")
    for micro in (1, 3):  # 3 of 4: micro-batches of 2 and 2; of 2: one
        parts = train(here, "float64", f"micro{micro}", f"run.micro_batch={micro}")
        assert furthest(whole, parts, "loss") <= 1e-9
    changes = ("stage.0.batch=3", "run.micro_batch=1")
    odd = train(here, "float64", "odd", changes[0])
    shared = train(here, "float64", "shared", *changes, "run.uneven=true", processes=2)
    assert furthest(odd, shared, "loss") <= 1e-9


@pytest.mark.slow
def test_the_command_under_torchrun_resumes_and_speaks_once(here: Path) -> None:
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "restormer_cli", "train", "recipe.toml", "--out", "run"]
    for more in (["--stop-after", "7"], ["--resume"]):
        done = subprocess.run([*command, *more], cwd=here, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("weights: run/weights.safetensors") == 1
    whole = train(here, "float32", "whole", processes=2)
    parts = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (whole, parts)]
    assert losses[0] == losses[1]


def test_a_device_of_ones_own_is_refused_under_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="under a launcher every process gets its own"):
        make_accelerator("cuda:0", None, tmp_path)


def test_a_launcher_that_starts_one_process_only_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match="starts one process only: for more, use torchrun"):
        make_accelerator("auto", None, tmp_path)


def test_the_main_process_alone_works_and_its_error_is_everyones(tmp_path: Path) -> None:
    accelerator = make_accelerator("cpu", None, tmp_path)
    assert on_main(accelerator, lambda: 7) == 7

    def fail() -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        on_main(accelerator, fail)
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ


def test_reading_and_hashing_may_take_longer_than_nccls_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come before the first collective, in the main process alone."""
    given: list[dict] = []
    accelerator = SimpleNamespace(num_processes=1)
    monkeypatch.setattr(distributed, "Accelerator", lambda **options: given.append(options) or accelerator)
    make_accelerator("cpu", None, tmp_path)
    (patience,) = [kwargs for kwargs in given[0]["kwargs_handlers"] if isinstance(kwargs, InitProcessGroupKwargs)]
    assert patience.timeout is not None
    assert patience.timeout >= timedelta(hours=1)


def test_uneven_micro_batches_are_refused_under_fsdp() -> None:
    """They would wait for one another for ever."""
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP)
    uneven = split_batch(3, 2, 1, uneven=True)
    with pytest.raises(UserError, match=r"run\.uneven: under FSDP every process needs as many micro-batches"):
        check_sharded(sharded, [uneven])  # pyright: ignore
    check_sharded(sharded, [split_batch(3, 2, None, uneven=True)])  # pyright: ignore
    check_sharded(SimpleNamespace(distributed_type=DistributedType.MULTI_GPU), [uneven])  # pyright: ignore


def test_a_number_of_processes_alone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="start processes by torchrun"):
        make_accelerator("cpu", None, tmp_path)
