"""The machine: processor, devices, memory that is free, held and was needed at the most."""

import ctypes
import math
import os
import platform
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from restormer_cli.errors import UserError

if TYPE_CHECKING:
    import torch

EMULATED = "bf16 is emulated on this processor, many times slower than fp32"
"""Note where `multiplies_bf16` is False and bf16 was asked for."""
LIBRARIES = ("torch", "numpy", "scikit-image", "onnxruntime", "openvino", "bm3d")


@dataclass(frozen=True)
class Machine:
    """Everything that a reader needs to judge a figure; sizes in bytes."""

    processor: str
    instructions: str
    cores: int
    """Cores that this process may use."""
    threads: int
    """Threads that every method was given."""
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
        memory=psutil.virtual_memory().total,
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


@contextmanager
def usual_priority() -> Iterator[None]:
    """Give threads their scheduling back that a library changes in the block: this thread, and those that it begins.

    SVT-AV1 takes real time for itself and for who calls it, where it may (as root, in most containers); all other
    programs of the machine then stand still. Nothing is done where the system has no such thing.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        tasks = Path("/proc/self/task")
        threads = [int(task.name) for task in tasks.iterdir()] if tasks.is_dir() else [threading.get_native_id()]
        for thread in threads:
            with suppress(OSError):  # it has ended
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameters)


def available_cores() -> int:
    """Cores that this process may use, and has the time of: a container's quota (`docker --cpus`) counts too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _container_cores())))


def limit_threads(processes: int = 1) -> None:
    """Give PyTorch no more threads than this process, one of so many on the machine, has cores."""
    import torch

    cores = max(1, available_cores() // processes)
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


def processor_name() -> str:
    """The processor, as the system calls it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_memory(text: str | int, flag: str = "--memory") -> int:
    """Bytes, or a number with a unit ("6GB" is 6·10⁹, "6GiB" 6·2³⁰) -> bytes. Raises UserError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?)b?\s*", str(text).lower())
    if match is None or match[2] not in UNITS or not float(match[1]):
        raise UserError(f"{flag} {text}: not an amount of memory; write it like 6GB, 1.5GB or 800MB")
    amount = round(float(match[1]) * UNITS[match[2]])
    if isinstance(text, str) and not match[2] and amount < 1_000_000:
        raise UserError(f"{flag} {text}: is in bytes without a unit, which is too little: write {flag} {match[1]}GB")
    return amount


def held(device: "torch.device") -> int:
    """Bytes that this process holds now: resident, or allocated on a GPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def give_back() -> None:
    """Return to the system what C's allocator keeps of freed memory, so that `held` counts what is in use (glibc)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def keep_freed() -> None:
    """Have C's allocator keep freed memory for what comes next, for the rest of this process (glibc).

    A training step frees and asks for the same tensors again and again; by default large ones go back to the system and
    come again page by page, zeroed: a fifth of a bf16 step of `denoise-fast` on a core, a tenth of one of `denoise`.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            allocator = ctypes.CDLL(None)
            for which, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**30), (M_TOP_PAD, 2**26)):
                allocator.mallopt(which, size)


LARGE_PAGE = 1 << 21
MADV_HUGEPAGE = 14  # Linux's mman.h


def in_large_pages(tensor: "torch.Tensor") -> "torch.Tensor":
    """The same tensor, which nothing has been written to: where Linux can, its memory comes in pages of 2 MB.

    Maps of megabytes come and go with every picture, and the system zeroes 512 pages of 4 KB in a multiple of the time.
    """
    if sys.platform == "linux" and tensor.device.type == "cpu":
        begin = -(-tensor.data_ptr() // LARGE_PAGE) * LARGE_PAGE
        size = (tensor.data_ptr() + tensor.nbytes - begin) // LARGE_PAGE * LARGE_PAGE
        if size > 0:
            with suppress(OSError, AttributeError):  # another C library
                ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), MADV_HUGEPAGE)
    return tensor


def free(device: "torch.device") -> int:
    """Bytes that could be had now; on the host, by the system's count and the container's limit, if it has one."""
    if device.type == "cuda":
        import torch

        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    return min(psutil.virtual_memory().available, _container_limit())


CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")
"""Keys of a group's memory.stat: page cache and the like, which the system gives up before it refuses memory."""


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and its parents, in version 2 and 1, as far as they can be seen."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            roots = [CONTROL_GROUPS, CONTROL_GROUPS / "unified"]
        elif controller in controllers.split(","):
            roots = [CONTROL_GROUPS / controller, CONTROL_GROUPS / controllers]
        else:
            continue
        for root in roots:
            group = root / path.strip("/")  # in a container the path may be the host's, and lead nowhere
            yield from (place for place in (group, *group.parents) if place == root or root in place.parents)


def _container_limit() -> int:
    """Bytes that containers (control groups) still allow, page cache not counted; sys.maxsize if there is no limit."""
    least = sys.maxsize
    for group in _control_groups("memory"):
        for limit, used, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            try:
                left = int((group / limit).read_text()) - int((group / used).read_text())
            except (OSError, ValueError):  # no such file, or "max"
                continue
            with suppress(OSError, ValueError):
                counts = dict(line.split() for line in (group / "memory.stat").read_text().strip().splitlines())
                left += sum(int(counts.get(prefix + name, 0)) for name in RECLAIMABLE)
            least = min(least, max(0, left))
    return least


def _container_cores() -> float:
    """Cores' worth of time that containers allow; inf if there is no quota."""
    least = math.inf
    for group in _control_groups("cpu"):
        with suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            least = min(least, int(quota) / int(period))
        with suppress(OSError, ValueError):
            quota = int((group / "cpu.cfs_quota_us").read_text())  # -1: none
            least = min(least, quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else least)
    return least


def choose_device(name: str) -> "torch.device":
    """`auto` is cuda, else cpu (`about_device` says why not mps). Raises UserError for one that this machine lacks."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: unknown; choose auto, cpu, cuda, cuda:1 … or mps") from None
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: not on this machine; --device auto takes the best there is")
    return device


def as_current(device: "torch.device") -> AbstractContextManager[object]:
    """In which a CUDA device is the one that Triton's kernels and graphs go to, as PyTorch's own calls do anyway."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" and device.index is not None else nullcontext()


def about_device(name: str) -> str | None:
    """Note where `auto` does not use a device that this machine has."""
    import torch

    if name != "auto" or torch.cuda.is_available() or not torch.backends.mps.is_available():
        return None
    return "running on the CPU: nobody has tried this program on Apple's GPUs yet; --device mps does"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch says so in RuntimeErrors of many wordings."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower())


NO_COMPILER = (
    "InvalidCxxCompiler",
    "No working C++ compiler",
    "Failed to find C compiler",
    "TritonMissing",
    "working triton",
)
"""Messages of torch.compile where its compiler is missing."""


def lacks_compiler(error: BaseException) -> bool:
    """Whether torch.compile failed for want of a compiler."""
    text = f"{type(error).__name__}: {error}"
    return any(words in text for words in NO_COMPILER)


class Peak:
    """`start()`, work, `bytes()`: what the process (on a GPU: its tensors there) needed at the most meanwhile."""

    def __init__(self, device: str) -> None:
        self.cuda = device if device.startswith("cuda") else None

    def start(self) -> None:
        """Forget earlier peaks, where the system lets us."""
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self.cuda)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM; see proc(5)

    def bytes(self) -> int | None:
        """Since `start`; since the process began where the system cannot forget; None where it does not say."""
        if self.cuda:
            import torch

            return torch.cuda.max_memory_allocated(self.cuda)
        with suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            if found:
                return int(found[1]) * 1024
        with suppress(ImportError):
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return None
