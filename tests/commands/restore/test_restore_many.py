"""Many pictures: thousands of thumbnails, hostile files, killed runs, several processes. Minutes; run as slow tests."""

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from restormer_cli.images.listing import find_pictures

SCRIPT = str(Path(sys.executable).parent / "restormer")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

THUMBNAILS, CORRUPT = 5000, 50


def make_thumbnails(folder: Path, samples, side: int, count: int = THUMBNAILS, corrupt: int = CORRUPT) -> set[str]:
    """Thumbnails of several kinds, some of them torn or no pictures at all; returns the names of those."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    sound = imagecodecs.png_encode(samples(side, side))
    gray = imagecodecs.png_encode(samples(side, side, 1))
    jpeg = imagecodecs.jpeg8_encode(samples(side, side), level=95)
    bad = set(rng.choice(count, corrupt, replace=False).tolist())
    for number in range(count):
        data, kind = [(sound, "png"), (gray, "png"), (jpeg, "jpg")][number % 3]
        if number in bad:
            data = [data[: len(data) // 2], b"", b"\0" * 500, data[:-40]][number % 4]
        (folder / f"{number}.{kind}").write_bytes(data)
    return {f"{number}.{'jpg' if number % 3 == 2 else 'png'}" for number in bad}


def test_five_thousand_thumbnails_with_fifty_corrupt(tmp_path, colour_weights, samples):
    """Finished, every corrupt one reported, every sound one there, and the memory of the last as of the first."""
    bad = make_thumbnails(tmp_path / "in", samples, 128)
    command = [SCRIPT, "restore", tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--json"]
    begun = time.monotonic()
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True)
    seconds = time.monotonic() - begun
    assert done.returncode == 3, done.stderr[-2000:]
    document = json.loads(done.stdout)
    failed = {Path(file["input"]).name for file in document["files"] if file["status"] == "failed"}
    assert failed == bad
    assert len(re.findall(r"^error: ", done.stderr, re.MULTILINE)) == CORRUPT
    assert {path.name for path in (tmp_path / "out").iterdir()} == {p.name for p in (tmp_path / "in").iterdir()} - bad
    memory = [file["memory"] for file in document["files"] if file["memory"]]
    early, late = np.mean(memory[200:700]), np.mean(memory[-500:])
    print(f"{THUMBNAILS} in {seconds:.0f} s; memory {early / 1e6:.1f} MB early, {late / 1e6:.1f} MB late")
    assert late < early + 10e6  # 10 MB in 4,000 pictures of 50 KB: none is kept


def test_killed_at_random_and_resumed_it_completes_and_no_half_file_is_ever_seen(tmp_path, colour_weights, samples):
    side, count = 64, 1500
    bad = make_thumbnails(tmp_path / "in", samples, side, count, 15)
    out = tmp_path / "out"
    command = [SCRIPT, "restore", tmp_path / "in", out, "--weights", colour_weights, "--device", "cpu"]
    rng = random.Random(0)
    checked: set[str] = set()

    def check_new() -> None:
        """Every picture that is visible is whole, at any moment."""
        for path in out.iterdir() if out.exists() else ():
            if not path.name.startswith(".") and path.name not in checked:
                decode = imagecodecs.png_decode if path.suffix == ".png" else imagecodecs.jpeg8_decode
                assert decode(path.read_bytes()).shape[:2] == (side, side)
                checked.add(path.name)

    kills = 0
    while True:
        wanted = len(checked) + rng.randrange(1, 400)
        with subprocess.Popen(
            [*command, "--skip-existing"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and len(checked) < wanted:
                check_new()
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        check_new()
        if process.returncode >= 0:
            break
    assert process.returncode == 3
    assert kills >= 3
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "in").iterdir()} - bad


def test_three_thousand_mutants_are_restored_or_reported(tmp_path, colour_weights):
    """Through the command's own error path, under a limit of memory; the mutants of test_hostile_pictures."""
    path = Path(__file__).parents[2] / "images" / "test_hostile_pictures.py"
    spec = importlib.util.spec_from_file_location("hostile_pictures", path)
    assert spec is not None
    assert spec.loader is not None
    hostile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hostile)
    files, folder = hostile.corpus(), tmp_path / "in"
    folder.mkdir()
    extensions = {"jpeg": "jpg", "tiff": "tif"}
    for number in range(40_000, 43_000):
        name, data = hostile.mutant(number, files)
        kind = re.search(r"png|jpe?g|tiff?|webp|bmp|jxl|avif", name.lower())
        extension = extensions.get(kind[0], kind[0]) if kind else "png"
        (folder / f"{number}.{extension}").write_bytes(data)
    for name, data in hostile.giants().items():
        (folder / f"giant {re.sub('[^a-z0-9]+', ' ', name.lower())}.png").write_bytes(data)
    count = len(find_pictures(folder))
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); "
    limited += "from restormer_cli.cli import main; main()"
    arguments = ["restore", folder, tmp_path / "out", "--weights", colour_weights, "--strength", "0", "--ext", "png"]
    done = subprocess.run([sys.executable, "-c", limited, *arguments, "--json"], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    restored = {Path(f["output"]).name for f in document["files"] if f["status"] == "restored"}
    failed = [file["error"] for file in document["files"] if file["status"] == "failed"]
    assert len(restored) + len(failed) == len(document["files"]) == count >= 3000
    assert len(restored) > 300
    assert len(failed) > 1000
    assert all(error and "\n" not in error for error in failed)
    assert {path.name for path in (tmp_path / "out").iterdir()} == restored


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_several_processes_share_the_pictures_and_one_tells(tmp_path, colour_weights, write_png, launcher):
    for number in range(20):
        write_png(tmp_path / "in" / f"{number}.png", 8 + 8 * number, 64)
    options = "--multi_gpu --num_processes=2 --main_process_port=29632 --num_machines=1 --mixed_precision=no"
    launch = {
        "torchrun": ["torchrun", "--nproc-per-node=2", "--master-port=29631", "-m", "restormer_cli"],
        "accelerate": ["accelerate", "launch", *options.split(), "--dynamo_backend=no", "-m", "restormer_cli"],
    }[launcher]
    first, *rest = launch
    command = [Path(sys.executable).parent / first, *rest, "restore", tmp_path / "in", tmp_path / "out"]
    options = ["--weights", colour_weights, "--json", "--device", "cpu"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)  # one document, from one process
    assert sorted(int(Path(file["input"]).stem) for file in document["files"]) == list(range(20))
    assert document["summary"]["restored"] == 20
    assert done.stderr.count("20 restored, 0 failed") == 1
    alone = subprocess.run(
        [SCRIPT, "restore", tmp_path / "in", tmp_path / "alone", *options], capture_output=True, timeout=200
    )
    assert alone.returncode == 0
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "alone" / path.name).read_bytes()


def test_a_request_that_is_refused_ends_every_process(tmp_path):
    command = [Path(sys.executable).parent / "torchrun", "--nproc-per-node=2", "--master-port=29633", "-m"]
    arguments = ["restormer_cli", "restore", tmp_path / "nowhere", tmp_path / "out", "--json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert done.stderr.count("nowhere: no such file or folder") == 1
    assert json.loads(done.stdout)["exit_code"] == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_is_really_full(tmp_path, colour_weights, write_png):
    """A file system of 300 KB: what fits is whole, the rest is told, and after making room it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        rng = np.random.default_rng(0)
        (tmp_path / "in").mkdir()
        for number in range(12):
            noise = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
            (tmp_path / "in" / f"{number}.png").write_bytes(imagecodecs.png_encode(noise))
        command = [SCRIPT, "restore", tmp_path / "in", disk / "out", "--weights", colour_weights, "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert re.search(r"stopped with \d+ of 12 pictures done: make room, then go on", done.stderr)
        results = list((disk / "out").iterdir())
        assert results
        for path in results:
            assert imagecodecs.png_decode(path.read_bytes()).shape == (128, 128, 3)
        subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)
        again = subprocess.run([*command, "--skip-existing"], capture_output=True, text=True, timeout=100)
        assert again.returncode == 0, again.stderr
        assert len(list((disk / "out").iterdir())) == 12
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        refused = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, timeout=100)
        assert refused.returncode == 2
        assert "is on a read-only file system" in refused.stderr
    finally:
        subprocess.run(["umount", disk], check=False)
