"""A training step as one CUDA graph: thousands of launches by the host become one.

Whatever a step does is then done again with the same memory, so nothing in it may be decided by the host: the rate is
a tensor, and whether a step counts is a flag on the device (learner.py).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from restormer_cli.hardware import as_current

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Micro-batches of (degraded, clean)."""
Step = Callable[[Pairs], Tensor]

WARM_UP = 3
"""Steps of a shape that run by single calls, before one is captured: libraries choose algorithms, blocks compile."""


class StepGraph:
    """Takes steps on a GPU, and from the fourth of a shape on replays one. `notes` says what did not work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.notes: list[str] = []
        self._captures = True
        self.forget()

    def run(self, pairs: Pairs, step: Step, key: object = None) -> Tensor:
        """`step(pairs)`, a tensor that the next step overwrites; `pairs` may still lie in pinned memory.

        `key` tells apart what `step` does beside its inputs' shapes. Raises what `step` raises. A capture that fails
        is told of, and steps go on by single calls.
        """
        shape = key, *((tensor.shape, tensor.dtype) for pair in pairs for tensor in pair)
        if shape != self._shape:
            self.forget()  # of one stage after the other, one graph is enough, and its memory is large
            self._shape = shape
        if self._replay is None and self._captures and self._seen >= WARM_UP:
            self._capture(pairs, step)
        if self._replay is not None:
            for held, given in zip(self._inputs, pairs, strict=True):
                for target, source in zip(held, given, strict=True):
                    target.copy_(source, non_blocking=True)
            return self._replay()
        self._seen += 1
        return aside(self.device, lambda: step(self._placed(pairs)))

    def forget(self) -> None:
        """Begin anew by single calls, as where what `step` works on are other tensors than before."""
        self._shape: object = None
        self._seen = 0
        self._inputs: Pairs = ()
        self._replay: Callable[[], Tensor] | None = None

    def _placed(self, pairs: Pairs) -> Pairs:
        return [(a.to(self.device, non_blocking=True), b.to(self.device, non_blocking=True)) for a, b in pairs]

    def _capture(self, pairs: Pairs, step: Step) -> None:
        inputs = [(a.to(self.device, copy=True), b.to(self.device, copy=True)) for a, b in pairs]
        try:
            self._replay = captured(self.device, lambda: step(inputs))
            self._inputs = inputs
        except RuntimeError as error:  # whatever a capture meets, memory included, it can be done without
            reason, _, _ = str(error).partition("\n")
            self.notes.append(f"steps are no CUDA graph, which is slower: {reason}")
            self._captures = False


def aside(device: torch.device, work: Callable[[], Tensor]) -> Tensor:
    """The result of `work` on a stream of its own, as what is to be captured must have run before."""
    now, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    stream.wait_stream(now)
    with torch.cuda.stream(stream):
        result = work()
    now.wait_stream(stream)
    return result


def captured(device: torch.device, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`work` as a CUDA graph: called, it replays and returns the same tensor each time. Raises RuntimeError."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    # Other threads prepare batches meanwhile, and pin their memory.
    stream = torch.cuda.Stream(device)
    with as_current(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
