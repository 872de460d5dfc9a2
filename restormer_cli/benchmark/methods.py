"""Methods of a benchmark: this network's own ways of running, its peers, and classical methods.

A method is a small value; `prepare` turns it into a function from picture to picture, in whatever process
that is called. Every one gets the same weights, the same picture and the same number of threads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restormer_cli.benchmark.classical import METHODS, Hints
from restormer_cli.benchmark.networks import Network
from restormer_cli.benchmark.peers import check_peer, is_peer, peer_name, prepare_peer, published_code
from restormer_cli.errors import UserError
from restormer_cli.extras import require
from restormer_cli.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from restormer_cli.engine.backend import Notice
    from restormer_cli.engine.memory_plan import Plan
    from restormer_cli.engine.restorer import Restorer

OURS = "restormer"
PEERS = {
    "textbook": "the network as the paper writes it, in PyTorch",
    "published": "the published code, as spandrel-extra-arches has it; in bf16 under autocast",
    "compile": "textbook under torch.compile, static shapes; on a GPU max-autotune, channels last, in bf16 under "
    "autocast; compiling is in the warm-up",
    "onnxruntime": "the network as `restormer export` writes it, in ONNX Runtime",
    "openvino": "the same file in OpenVINO",
}
"""Other ways of running the same network."""

_ONNX = ("onnx", "onnxscript>=0.7.1", "onnxslim")
NEEDS = {
    "onnxruntime": ("export", *_ONNX, "onnxruntime"),
    "openvino": ("export,openvino", *_ONNX, "openvino"),
    "published": ("peers", "spandrel", "spandrel-extra-arches"),
    "wavelet": ("classical", "PyWavelets"),
}
"""Extra and packages."""
_PRECISIONS = {
    "textbook": ("fp32", "bf16"),
    "published": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16"),
}

Restore = Callable[[np.ndarray], np.ndarray]
"""float32 (h, w, c), nominally in [0, 1] -> the same shape."""


@dataclass(frozen=True)
class Method:
    """One way of restoring a picture."""

    kind: str
    """`restormer`, a peer or a classical method."""
    precision: str = "fp32"
    device: str = "cpu"
    tile: int | None = None
    overlap: int = 32
    window: int | None = None
    memory: str | None = None
    hints: Hints | None = None
    """What a classical method, or a peer, is told about the degradation; None: σ 25, no blur."""
    strength: float | None = None
    """A classical method's, where it is given; None: tuned, or its middle one where there are no pictures."""

    @property
    def name(self) -> str:
        """Name in tables, without precision and device."""
        parts = [peer_name(self.kind) if is_peer(self.kind) else self.kind]
        parts += [f"tile {self.tile}"] if self.tile else []
        parts += [f"window {self.window}"] if self.window else []
        parts += [f"in {self.memory}"] if self.memory else []
        return " ".join(parts)

    @property
    def classical(self) -> bool:
        """Whether it is a classical method, which has no network."""
        return self.kind in METHODS

    @property
    def runs_network(self) -> bool:
        """Whether it is a way of running the network that is measured, so that answers can be compared."""
        return not self.classical and not is_peer(self.kind)

    def offers(self) -> bool:
        """Whether it can run at this precision on this device."""
        if self.kind == OURS:
            return True
        if is_peer(self.kind):
            return self.precision in ("fp32", "bf16")
        if self.classical:
            return self.precision == "fp32" and self.device == "cpu"
        on_cpu = self.device == "cpu" or self.kind in ("textbook", "published", "compile")
        return on_cpu and self.precision in _PRECISIONS[self.kind]


def read_kind(word: str) -> tuple[str, float | None]:
    """`bm3d` or `bm3d=1.15`: a method's kind, and its strength where one is given. Raises UserError."""
    if is_peer(word):
        return word, None
    kind, equals, text = (part.strip() for part in word.partition("="))
    if not equals:
        return kind, None
    if kind not in METHODS:
        raise UserError(f"--against {word}: only classical methods have a strength: {', '.join(METHODS)}")
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not (math.isfinite(strength) and strength > 0):
        raise UserError(
            f"--against {word}: the strength is a number above 0, such as {kind}={METHODS[kind].strengths[0]:g}"
        )
    return kind, strength


def check_kinds(kinds: tuple[str, ...]) -> None:
    """Raises UserError for a method that is unknown, or whose package is not installed."""
    known = (*PEERS, *METHODS)
    for kind in kinds:
        if is_peer(kind):
            check_peer(kind)
            continue
        if kind not in known:
            raise UserError(f"--against {kind}: unknown; choose from {', '.join(known)}, spandrel:FILE")
        if kind in NEEDS:
            require(f"--against {kind}", *NEEDS[kind])
        if kind == "bm3d" and find_spec("bm3d") is None:  # no extra of ours: its licence is for academic use only
            raise UserError("--against bm3d: needs the package bm3d: pip install bm3d (for academic use only)")


def needs_onnx(kind: str) -> bool:
    """Whether the method runs the exported network."""
    return kind in ("onnxruntime", "openvino")


def prepare(method: Method, network: Network, threads: int, onnx: Path | None = None) -> Restore:
    """The method, ready to run; `onnx` is the exported network where one is needed.

    Raises UserError where it cannot be had.
    """
    if method.classical:
        return METHODS[method.kind].prepare(method.hints or Hints(strength=method.strength))
    if is_peer(method.kind):
        sigma = method.hints.sigma if method.hints else None
        return prepare_peer(method.kind, method.device, method.precision, sigma)
    return prepare_network(method, network, threads, onnx)


def prepare_network(method: Method, network: Network, threads: int, onnx: Path | None = None) -> "Restorer":
    """As `prepare`, for what runs the network: ours or another way of running it."""
    from restormer_cli.engine.restorer import Restorer

    if method.kind == OURS:
        return Restorer(network.build(), **ours_options(method))
    if needs_onnx(method.kind):
        assert onnx is not None
        return Restorer(Peer(method, network.config, _runtime(method, onnx, threads)))
    return Restorer(Peer(method, network.config, _plain(method, network)))


class Peer:
    """Another way of running the network, as a Backend: always the whole picture, whatever memory there is."""

    replans = False

    def __init__(self, method: Method, config: ModelConfig, forward: "Callable[[Tensor], Tensor]") -> None:
        import torch

        self.config, self.precision, self.device = config, method.precision, torch.device(method.device)
        self._forward = forward

    def plan(self, height: int, width: int, *, tile: int | None, budget: int | None, base: int) -> "Plan":
        from restormer_cli.engine.memory_plan import Plan

        return Plan("whole", True, None, None, self.precision, base)

    def run(self, picture: "Tensor", plan: "Plan", notice: "Notice", progress: object = None) -> "Tensor":
        return self._forward(picture.contiguous())


def ours_options(method: Method) -> dict[str, Any]:
    """The Restorer's arguments; only those that are asked for, so that its own defaults hold."""
    options: dict[str, Any] = {"device": method.device, "precision": method.precision}
    if method.tile:
        options |= {"tile": method.tile, "overlap": method.overlap}
    if method.window:
        options["window"] = method.window
    if method.memory:
        options["memory"] = method.memory
    return options


def _plain(method: Method, network: Network) -> "Callable[[Tensor], Tensor]":
    """The textbook network, as it is or compiled, or the published code's."""
    import torch

    from restormer_cli.engine.backend import PRECISIONS
    from restormer_cli.model.textbook import TextbookRestormer

    half, on_gpu = method.precision == "bf16", method.device != "cpu"
    if method.kind == "published":
        model = published_code(network)
    else:
        with torch.device("meta"):  # so that there is never a second copy of the weights
            model = TextbookRestormer(network.config)
        model.load_state_dict(network.build().state_dict(), assign=True)
    # Autocast keeps weights in fp32: as the published code is run, and the faster one under torch.compile on a GPU.
    casts = half and (method.kind == "published" or (method.kind == "compile" and on_gpu))
    dtype = torch.float32 if casts else PRECISIONS[method.precision]
    model = model.eval().requires_grad_(False).to(method.device, dtype)
    forward, layout = model, torch.contiguous_format
    if method.kind == "compile":
        if on_gpu:
            layout = torch.channels_last
            model = model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        forward = torch.compile(model, dynamic=False, mode="max-autotune" if on_gpu else None)

    def run(picture: "Tensor") -> "Tensor":
        with torch.autocast(picture.device.type, torch.bfloat16, enabled=casts):
            result = forward(picture.to(dtype, memory_format=layout))
        # What a CUDA graph gives is overwritten by its next run.
        return result.float().clone(memory_format=torch.contiguous_format)

    return run


def _runtime(method: Method, onnx: Path, threads: int) -> "Callable[[Tensor], Tensor]":
    """The exported network in the runtime that `restore` uses for such files."""
    from restormer_cli.engine.runtimes import OnnxRuntime, OpenVino

    if method.kind == "onnxruntime":
        return OnnxRuntime(onnx, threads).run
    return OpenVino(onnx, threads, method.precision).run
