"""What a measurement was taken on."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

EMULATED = "bf16 is emulated on this processor, many times slower than fp32"
"""What to say where `multiplies_bf16` is False and bf16 was asked for."""
LIBRARIES = ("torch", "numpy", "scikit-image", "onnxruntime", "openvino", "bm3d")


@dataclass(frozen=True)
class Machine:
    """Everything that a reader needs to judge a figure; sizes in bytes."""

    processor: str
    instructions: str
    cores: int
    """Cores that this process may use."""
    threads: int
    """Threads that every contestant was given."""
    memory: int | None
    accelerator: str | None
    system: str
    python: str
    libraries: dict[str, str]
    load: float | None
    """Processes that wanted to run when the measurement began, besides ours; above about 0.2 figures are doubtful."""


def describe_machine(threads: int) -> Machine:
    """Look at the machine, now."""
    import torch

    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        processor=processor_name(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        cores=available_cores(),
        threads=threads,
        memory=_meminfo("MemTotal"),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=libraries,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def multiplies_bf16(device: "torch.device") -> bool:
    """Whether a device has products of bf16; where they are emulated they can be 14 times slower than fp32's."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine() in ("x86_64", "AMD64"):
        # oneDNN's own answer is also yes for AVX-512 without them. These are private: fp32 where PyTorch lacks them.
        asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(ask() for ask in asked if ask is not None)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that could be had now without swapping; None where the system does not say."""
    return _meminfo("MemAvailable")


def _meminfo(key: str) -> int | None:
    path = Path("/proc/meminfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    return None


def processor_name() -> str:
    """The processor, as the system calls it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
