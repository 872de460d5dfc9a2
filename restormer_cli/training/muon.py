"""Muon: the step of a matrix of weights is its momentum made orthogonal; all other weights are AdamW's.

Keller Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024), has the iteration; Liu and
others, "Muon is scalable for LLM training" (2025), the length of a step, by which AdamW's learning rate serves both.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
"""Of matrices, with Nesterov's look ahead."""
LENGTH = 0.2
"""Root mean square of a matrix's step, in learning rates, as AdamW's is in practice."""
ROUNDS = 5
"""Of the iteration that makes a matrix orthogonal; all singular values are between 0.7 and 1.2 after them."""
CURVE = (3.4445, -4.7750, 2.0315)
"""The iteration's odd polynomial: coefficients of x, x³ and x⁵."""


def is_matrix(weight: Tensor) -> bool:
    """Whether these are a convolution's weights that mix channels, (out, in, h, w): a matrix (out, in * h * w)."""
    return weight.ndim == 4 and min(weight.shape[:2]) > 1


def by_shape(weights: Iterable[Tensor]) -> dict[tuple[int, int], list[Tensor]]:
    """The matrices among weights, by their rows and columns, so that equal ones are turned at once."""
    shapes: dict[tuple[int, int], list[Tensor]] = {}
    for weight in weights:
        if is_matrix(weight):
            shapes.setdefault((weight.shape[0], weight[0].numel()), []).append(weight)
    return shapes


def turned(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Steps of length LENGTH along matrices (n, rows, columns) made orthogonal, in float32; products are in `dtype`."""
    rows, columns = matrices.shape[-2:]
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = (x.mT if rows > columns else x).to(dtype)
    a, b, c = CURVE
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if rows > columns else x).float() * (LENGTH * math.sqrt(max(rows, columns)))


class Muon(torch.optim.AdamW):
    """AdamW for all but matrices. `dtype` is that of the products; other keywords are AdamW's.

    State of a matrix: `exp_avg`, its momentum, and `step`. As AdamW's fused kernels it changes nothing where the
    attribute `found_inf`, a tensor, is 1, and does not wait for the device.
    """

    found_inf: Tensor | None = None

    def __init__(self, params: Iterable[Tensor], *, dtype: torch.dtype = torch.float32, **keywords: Any) -> None:
        super().__init__(params, **keywords)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step along `grad`; matrices have none afterwards."""
        assert closure is None
        for group in self.param_groups:
            of_matrices = by_shape(weight for weight in group["params"] if weight.grad is not None)
            for shape, weights in of_matrices.items():
                self._turn(weights, shape, group)
                for weight in weights:
                    weight.grad = None  # AdamW passes them over
        super().step()

    def _turn(self, weights: list[Tensor], shape: tuple[int, int], group: dict[str, Any]) -> None:
        found_inf = self.found_inf
        taken = 1.0 if found_inf is None else 1 - found_inf
        ahead: list[Tensor] = []
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None
            if not state:
                state["step"] = torch.zeros((), device=weight.device)
                state["exp_avg"] = torch.zeros_like(weight)
            momentum = state["exp_avg"]
            if found_inf is not None:
                gradient = torch.where(found_inf == 0, gradient, momentum)
            momentum.lerp_(gradient, 1 - MOMENTUM)
            state["step"] += taken
            ahead.append(gradient.lerp(momentum, MOMENTUM).reshape(shape))
        rate = group["lr"] * taken
        for weight, step in zip(weights, turned(torch.stack(ahead), self.dtype), strict=True):
            weight.mul_(1 - rate * group["weight_decay"]).sub_(step.view_as(weight) * rate)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up Muon's state, or AdamW's, of which a matrix's first moment stands for its momentum."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for weight in filter(is_matrix, group["params"]):
                self.state.get(weight, {}).pop("exp_avg_sq", None)


def forget_matrices(optimizer: torch.optim.Optimizer) -> None:
    """Let AdamW, which took up Muon's state, begin afresh with the matrices, of which that lacks the second moment."""
    for state in optimizer.state.values():
        if "exp_avg_sq" not in state:
            state.clear()
