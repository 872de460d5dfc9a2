"""Compile the kernels for this processor, once, and load it; no compiler, no library, and nothing depends on one.

The compiler is the system's (cc, gcc or clang), or Zig's, which comes as a wheel: `pip install 'restormer-cli[fast]'`.
The library lies in the user's cache under a name made of everything that it was made from.
There are two of them, from the same text: with products of float32, and with products of bf16 (rows.h).
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from restormer_cli.errors import RestormerError
from restormer_cli.files import cache_folder, write_atomically
from restormer_cli.hardware import processor_name

HERE = Path(__file__).parent
SOURCES = tuple(HERE / name for name in ("kernels.c", "training.c"))
HEADERS = (HERE / "rows.h",)
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-ffp-contract=fast", "-shared", "-fPIC")
PATIENCE = 120
"""Seconds that a compiler may take."""


@cache
def library(*, bf16: bool = False) -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler, where it fails, or where RESTORMER_NATIVE=0 says so."""
    if os.environ.get("RESTORMER_NATIVE") == "0":
        return None
    for compiler in _compilers():
        command = (*compiler, *_flags(compiler), *(("-DBF16",) if bf16 else ()))
        path = cache_folder() / "native" / f"{_fingerprint(command)}{_suffix()}"
        with suppress(OSError, AttributeError):  # not there yet, or damaged
            return _load(path)
        with suppress(OSError, AttributeError, subprocess.SubprocessError, RestormerError):
            _compile(command, path)
            return _load(path)
    return None


@cache
def multiplies_pairs() -> bool:
    """Whether products of bf16 are faster by the kernels: where AVX-512 has an instruction for pairs of them.

    Others take many instructions for one, which is for tests; where there is AMX, PyTorch's products make use of it.
    """
    # Both are private: float32 where PyTorch lacks them.
    pairs, tiles = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    if pairs is None or tiles is None or not pairs() or tiles():
        return False
    kernels = library(bf16=True)
    return kernels is not None and bool(kernels.has_pairs())  # older compilers do not know it


def _compilers() -> list[tuple[str, ...]]:
    """The commands to try, in order."""
    found: list[tuple[str, ...]] = [(path,) for name in COMPILERS if (path := shutil.which(name))]
    if find_spec("ziglang") is not None:
        found.append((sys.executable, "-m", "ziglang", "cc"))
    return found


def _flags(compiler: tuple[str, ...]) -> tuple[str, ...]:
    native = "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"
    return (*FLAGS, native) if len(compiler) == 1 else FLAGS  # Zig compiles for this processor unless told otherwise


def _fingerprint(command: tuple[str, ...]) -> str:
    """Of source, compiler and processor: another one of these is another library."""
    parts = [*command, processor_name(), torch.backends.cpu.get_cpu_capability(), sys.platform]
    with suppress(OSError):
        parts.append(str(os.stat(command[0]).st_mtime_ns))
    texts = b"".join(path.read_bytes() for path in (*SOURCES, *HEADERS))
    return hashlib.sha256(texts + "\0".join(parts).encode()).hexdigest()[:24]


def _suffix() -> str:
    return {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def _compile(command: tuple[str, ...], path: Path) -> None:
    """Raises OSError, SubprocessError or RestormerError where it does not work out."""
    with TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        whole = [*command, "-o", str(made), *map(str, SOURCES), "-lm"]
        subprocess.run(whole, check=True, capture_output=True, timeout=PATIENCE, cwd=folder)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, lambda stream: stream.write(made.read_bytes()))
        path.chmod(0o600)


def _load(path: Path) -> ctypes.CDLL:
    """Raises OSError where there is none, or where somebody else could have put it there."""
    about = path.stat()
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
        raise PermissionError(f"{path}: others may write to it")
    found = ctypes.CDLL(str(path))
    found.lanes.restype = found.has_pairs.restype = ctypes.c_int
    for name in ("scratch_floats", "conv_scratch_floats", "half_scratch_floats", "tall_rows"):
        getattr(found, name).restype = ctypes.c_int64
    found.has_few.restype, found.has_few.argtypes = ctypes.c_int, (ctypes.c_int64, ctypes.c_int64)
    found.tall_rows.argtypes = (ctypes.c_int64,)
    found.lay_panels.argtypes = (ctypes.c_void_p, *(ctypes.c_int64,) * 6, ctypes.c_void_p)
    for name in ("lay_panels", "gather", "apply", "save_halo", "convolve", "half_forward", "half_backward"):
        getattr(found, name).restype = None
    return found
