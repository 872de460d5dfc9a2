"""What a machine is asked about, it answers; whatever PyTorch lacks."""

import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from restormer_cli import hardware
from restormer_cli.errors import UserError

CPU = torch.device("cpu")
ASKED = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.mark.parametrize("able", ASKED)
def test_either_kind_of_bf16_product_will_do(monkeypatch: pytest.MonkeyPatch, able: str) -> None:
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    for name in ASKED:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == able, raising=False)
    assert hardware.multiplies_bf16(CPU)
    monkeypatch.setattr(torch.cpu, able, lambda: False)
    assert not hardware.multiplies_bf16(CPU)


def test_a_pytorch_that_cannot_say_means_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    for name in ASKED:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not hardware.multiplies_bf16(CPU)
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not hardware.multiplies_bf16(CPU)


# --- Containers -----------------------------------------------------------------------------------------------

GB = 10**9


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lays out control groups: `groups("0::/a/b", {"a/memory.max": "5", …})`."""
    monkeypatch.setattr(hardware, "CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "OWN_GROUPS", tmp_path / "own")

    def lay_out(own: str, files: dict[str, object]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(f"{text}\n")

    return lay_out


def test_page_cache_counts_as_free(groups) -> None:
    """Reading much data does not turn exact runs into tiles."""
    stat = f"anon {GB}\ninactive_file {4 * GB}\nactive_file {2 * GB}\nslab_reclaimable {GB}\n"
    groups("0::/", {"memory.max": 10 * GB, "memory.current": 9 * GB, "memory.stat": stat})
    assert hardware._container_limit() == 8 * GB


def test_the_tightest_of_the_parents_counts(groups) -> None:
    limits = {"memory.max": "max", "a/memory.max": 4 * GB, "a/memory.current": GB}
    groups("0::/a/b", limits | {"memory.current": 0, "a/b/memory.max": 6 * GB, "a/b/memory.current": GB})
    assert hardware._container_limit() == 3 * GB


def test_version_1(groups) -> None:
    files = {"limit_in_bytes": 6 * GB, "usage_in_bytes": 5 * GB, "stat": f"inactive_file 7\ntotal_inactive_file {GB}"}
    groups("9:memory:/x\n4:cpu,cpuacct:/x", {f"memory/x/memory.{name}": text for name, text in files.items()})
    assert hardware._container_limit() == 2 * GB


def test_a_group_that_cannot_be_seen_leaves_its_mount(groups) -> None:
    groups("0::/docker/1234", {"memory.max": 2 * GB, "memory.current": GB})
    assert hardware._container_limit() == GB


def test_no_limit_is_none(groups) -> None:
    groups("0::/", {"memory.max": "max", "memory.current": GB, "cpu.max": "max 100000"})
    assert hardware._container_limit() == sys.maxsize
    assert hardware._container_cores() == math.inf


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/a", {"a/cpu.max": "150000 100000"}),
        ("1:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}),
    ],
)
def test_a_quota_decides_the_threads(groups, monkeypatch, own, files) -> None:
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    groups(own, files)
    assert hardware.available_cores() == 2
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        hardware.limit_threads()
        assert torch.get_num_threads() == 2
        hardware.limit_threads(processes=4)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


# --- Devices --------------------------------------------------------------------------------------------------


def test_apples_gpu_is_taken_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.choose_device("auto").type == "cpu"
    assert "--device mps" in str(hardware.about_device("auto"))
    assert hardware.choose_device("mps").type == "mps"
    assert hardware.about_device("mps") is None
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert hardware.about_device("auto") is None


def test_memory_without_a_unit_is_told_the_unit():
    with pytest.raises(UserError, match=r"--memory 6: .*--memory 6GB"):
        hardware.parse_memory("6")


FLAT = """
import ctypes
import numpy as np
import psutil
from restormer_cli.engine.restorer import Restorer
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer

restore = Restorer(Restormer(ModelConfig(dim=8, blocks=(1, 1, 1, 1), heads=(1, 2, 4, 8))).eval(), device="cpu")
held = []
for number in range(96):
    restore(np.zeros((48 + 8 * (number % 10), 48 + 8 * (number // 10), 3), np.float32))
    ctypes.CDLL(None).malloc_trim(0)
    held.append(psutil.Process().memory_info().rss)
print(held[-1] - held[60])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc to give back what is free")
def test_memory_stays_flat_over_many_sizes_of_pictures() -> None:
    done = subprocess.run([sys.executable, "-c", FLAT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 15_000_000  # it was 1.3 MB and more for each of 35


@pytest.mark.parametrize("own", [None, "7"])
def test_libraries_are_set_up_unless_somebody_says_otherwise(own: str | None) -> None:
    """By the package itself: they look when they are loaded."""
    ours = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "256", "OMP_WAIT_POLICY": "passive"}
    code = f"import os, sys, restormer_cli; print(*map(os.environ.get, {list(ours)}), 'torch' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment |= dict.fromkeys(ours, own) if own else {}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [*([own] * 3 if own else ours.values()), "False"]


def test_kernels_go_to_the_device_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's and graphs' would go to the first GPU, whatever their tensors are on."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: chosen.append(device) or nullcontext())
    for name in ("cpu", "cuda", "cuda:1"):
        with hardware.as_current(torch.device(name)):
            pass
    assert chosen == [torch.device("cuda:1")]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_what_comes_next() -> None:
    code = (
        "import resource, sys, torch\n"
        "from restormer_cli.hardware import keep_freed\n"
        "if sys.argv[1] == 'kept': keep_freed()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def step(): return [torch.zeros(2**21) for _ in range(5)]\n"  # of 8 MiB
        "for _ in range(3): step()\n"
        "begun = faults()\n"
        "for _ in range(10): step()\n"
        "print(faults() - begun)\n"
    )
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "4096"}  # else it depends on what was freed before
    counts = {}
    for way in ("kept", "given back"):
        command = [sys.executable, "-c", code, way]
        counts[way] = int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert counts["kept"] < counts["given back"] / 20, counts


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not LARGE_PAGES.exists(), reason="a system without large pages")
def test_large_pages_are_asked_for_as_far_as_a_map_has_whole_ones() -> None:
    page = hardware.LARGE_PAGE
    map_ = torch.empty(8 * page, dtype=torch.uint8)
    assert hardware.in_large_pages(map_) is map_
    begin = -(-map_.data_ptr() // page) * page
    assert "hg" in flags_at(begin)
    assert "hg" in flags_at(begin + 7 * page - 1)
    small = torch.empty(page // 2, dtype=torch.uint8)
    assert hardware.in_large_pages(small) is small


def flags_at(address: int) -> list[str]:
    """How the system keeps that page of this process."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if place := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(place[1], 16) <= address < int(place[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("not mapped")
