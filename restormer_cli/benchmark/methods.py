"""Who takes part in a benchmark: this network's own ways of running, and what people would use instead.

A contestant is a small value; `prepare` turns it into a function from picture to picture, in whatever process
that is called. Every one gets the same weights, the same picture and the same number of threads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from restormer_cli.benchmark.classical import METHODS, Hints
from restormer_cli.benchmark.networks import Network
from restormer_cli.benchmark.peers import check_peer, is_peer, peer_name, prepare_peer
from restormer_cli.errors import UserError
from restormer_cli.extras import require

OURS = "restormer"
PEERS = {
    "textbook": "the network as the paper writes it, in PyTorch",
    "compile": "the same under torch.compile, static shapes",
    "onnxruntime": "the network as `restormer export` writes it, in ONNX Runtime",
    "openvino": "the same file in OpenVINO",
}
"""Other ways of running the same network."""

_ONNX = ("onnx", "onnxscript>=0.7.1", "onnxslim")
_NEEDS = {
    "onnxruntime": ("export", *_ONNX, "onnxruntime"),
    "openvino": ("export,openvino", *_ONNX, "openvino"),
    "wavelet": ("classical", "PyWavelets"),
}
"""Extra and packages."""
_PRECISIONS = {
    "textbook": ("fp32", "bf16"),
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
        """What tables call it, without precision and device."""
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
        on_cpu = self.device == "cpu" or self.kind in ("textbook", "compile")
        return on_cpu and self.precision in _PRECISIONS[self.kind]


def read_kind(word: str) -> tuple[str, float | None]:
    """`bm3d` or `bm3d=1.15`: a contestant's kind, and its strength where one is given. Raises UserError."""
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
    """Raises UserError for a contestant that is unknown, or whose package is not installed."""
    known = (*PEERS, *METHODS)
    for kind in kinds:
        if is_peer(kind):
            check_peer(kind)
            continue
        if kind not in known:
            raise UserError(f"--against {kind}: unknown; choose from {', '.join(known)}, spandrel:FILE")
        if kind in _NEEDS:
            require(f"--against {kind}", *_NEEDS[kind])
        if kind == "bm3d" and find_spec("bm3d") is None:  # no extra of ours: its licence is for academic use only
            raise UserError("--against bm3d: needs the package bm3d: pip install bm3d (for academic use only)")


def needs_onnx(kind: str) -> bool:
    """Whether the contestant runs the exported network."""
    return kind in ("onnxruntime", "openvino")


def prepare(contestant: Method, network: Network, threads: int, onnx: Path | None = None) -> Restore:
    """The contestant, ready to run; `onnx` is the exported network where one is needed.

    Raises UserError where it cannot be had.
    """
    if contestant.classical:
        return METHODS[contestant.kind].prepare(contestant.hints or Hints(strength=contestant.strength))
    if is_peer(contestant.kind):
        sigma = contestant.hints.sigma if contestant.hints else None
        return prepare_peer(contestant.kind, contestant.device, contestant.precision, sigma)
    if contestant.kind == OURS:
        return _ours(contestant, network)
    if needs_onnx(contestant.kind):
        assert onnx is not None
        run = (_onnxruntime if contestant.kind == "onnxruntime" else _openvino)(onnx, contestant.precision, threads)
    else:
        run = _plain(contestant, network)

    def restore(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        planes = np.ascontiguousarray(_padded(picture).transpose(2, 0, 1)[None])
        return np.ascontiguousarray(run(planes)[0].transpose(1, 2, 0)[:height, :width])

    return restore


def ours_options(contestant: Method) -> dict[str, Any]:
    """The Restorer's arguments; only those that are asked for, so that its own defaults hold."""
    options: dict[str, Any] = {"device": contestant.device, "precision": contestant.precision}
    if contestant.tile:
        options |= {"tile": contestant.tile, "overlap": contestant.overlap}
    if contestant.window:
        options["window"] = contestant.window
    if contestant.memory:
        options["memory"] = contestant.memory
    return options


def _ours(contestant: Method, network: Network) -> Restore:
    from restormer_cli.engine.restorer import Restorer

    return Restorer(network.build(), **ours_options(contestant))


def _plain(contestant: Method, network: Network) -> Restore:
    """The textbook network, as it is or compiled: planes (1, c, h, w) in and out."""
    import torch

    from restormer_cli.engine.restorer import PRECISIONS
    from restormer_cli.model.textbook import TextbookRestormer

    with torch.device("meta"):  # so that there is never a second copy of the weights
        model = TextbookRestormer(network.config)
    model.load_state_dict(network.build().state_dict(), assign=True)
    dtype = PRECISIONS[contestant.precision]
    model = model.eval().to(contestant.device, dtype)
    forward = torch.compile(model, dynamic=False) if contestant.kind == "compile" else model

    def run(planes: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return forward(torch.from_numpy(planes).to(contestant.device, dtype)).float().cpu().numpy()

    return run


def _onnxruntime(onnx: Path, precision: str, threads: int) -> Restore:
    from restormer_cli.engine.runtimes import onnx_session

    session = onnx_session(onnx, threads)
    (source,) = session.get_inputs()
    return lambda planes: np.asarray(session.run(None, {source.name: planes})[0])


def _openvino(onnx: Path, precision: str, threads: int) -> Restore:
    import openvino

    from restormer_cli.engine.runtimes import openvino_request

    core = openvino.Core()
    request = openvino_request(core, core.read_model(str(onnx)), threads, "bf16" if precision == "bf16" else "f32")
    return lambda planes: np.array(request.infer([planes])[0])


def _padded(picture: np.ndarray) -> np.ndarray:
    """As every front end pads: reflected at the right and bottom, up to multiples of 8."""
    import torch

    from restormer_cli.model.padding import pad_to_multiple_of_8

    planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    return pad_to_multiple_of_8(planes)[0].permute(1, 2, 0).numpy()
