"""Triton's interpreter, mended for findings/triton-interpreter-scalar-masks.sh; import it before a kernel runs."""

from typing import Any

import numpy as np
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def _with_conditions(name: str, place: int) -> None:
    """Have a builder's function take its mask, an argument counted from 0 after `self`, as conditions, not integers."""
    original = getattr(InterpreterBuilder, name)

    def mended(self: InterpreterBuilder, *arguments: object) -> object:
        given: list[Any] = list(arguments)
        mask = given[place]
        given[place] = TensorHandle(mask.data.astype(np.bool_), mask.dtype)
        return original(self, *given)

    setattr(InterpreterBuilder, name, mended)


_with_conditions("create_masked_load", 1)
_with_conditions("create_masked_store", 2)
