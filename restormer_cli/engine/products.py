"""Choices by a measurement, made once for a machine and kept, so that equal commands write equal pixels.

Two libraries multiply matrices to other last bits, and a pixel beside a rounding border may differ by one. Which is
faster for a shape is measured, and a measurement may come out otherwise on a busy machine. So the first process that
asks writes its answer into the user's cache, one file for a processor and a version of PyTorch, and every later one
reads it. Where nothing can be kept nothing is measured either.

    @kept(possible=lambda *shape: True)
    def prefers_library(outputs: int, inputs: int) -> bool: ...            # measures
"""

import hashlib
import json
import platform
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import _lru_cache_wrapper, cache, wraps
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from restormer_cli.errors import RestormerError
from restormer_cli.files import cache_folder, write_atomically
from restormer_cli.hardware import processor_name

PATIENCE = 10.0
"""Seconds to wait for another process that writes its answer down."""


def kept(possible: Callable[..., bool]) -> "Callable[[Callable[..., bool]], _lru_cache_wrapper[bool]]":
    """Decorate a measurement: its answer for equal arguments is the first one that was ever given on this machine.

    `possible`, of the same arguments: whether there is a choice at all; where not, the answer is False. Where no answer
    can be kept it is whether PyTorch lacks MKL, which loses to oneDNN for few shapes. Arguments are numbers, words,
    types or tuples, by position. The number of threads should not be among them, lest it change the pixels.
    """

    def decorate(measure: Callable[..., bool]) -> "_lru_cache_wrapper[bool]":
        @cache
        @wraps(measure)
        def choose(*arguments: Hashable) -> bool:
            if not possible(*arguments):
                return False
            name = f"{measure.__name__}{arguments}"
            answer = _read().get(name)
            if answer is None:
                answer = _first(name, lambda: measure(*arguments))
            return not torch.backends.mkl.is_available() if answer is None else answer

        return choose

    return decorate


def machine() -> str:
    """What answers are good for: processor, its instructions as PyTorch uses them, and PyTorch's version."""
    return (
        f"{processor_name()} · {torch.backends.cpu.get_cpu_capability()} · {platform.machine()} · {torch.__version__}"
    )


def _file() -> Path:
    digest = hashlib.sha256(machine().encode()).hexdigest()[:16]
    return cache_folder() / "products" / f"{digest}.json"


def _read() -> dict[str, bool]:
    """The answers so far; a file that is damaged holds none."""
    with suppress(OSError, ValueError):
        document = json.loads(_file().read_text(encoding="utf-8"))
        choices = document.get("choices") if isinstance(document, dict) else None
        if isinstance(choices, dict):
            return {name: answer for name, answer in choices.items() if isinstance(answer, bool)}
    return {}


def _first(name: str, measure: Callable[[], bool]) -> bool | None:
    """The answer of whoever came first, kept; None where nothing can be kept."""
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=PATIENCE):
            choices = _read()
            if name not in choices:
                choices[name] = measure()
                document = {"machine": machine(), "choices": dict(sorted(choices.items()))}
                text = json.dumps(document, indent=1, ensure_ascii=False)
                write_atomically(file, lambda stream: stream.write(text.encode()))
            return choices[name]
    except (OSError, NotImplementedError, Timeout, RestormerError):
        return None
