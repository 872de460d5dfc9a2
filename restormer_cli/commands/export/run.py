"""`export`: weights in, a file for another tool out, kept only if it does what the network does."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restormer_cli import __version__
from restormer_cli.errors import CheckFailed, Failed, UserError
from restormer_cli.files import replacing

if TYPE_CHECKING:  # importing them would load torch before the request is checked
    from restormer_cli.export.parity import Comparison
    from restormer_cli.model.config import ModelConfig
    from restormer_cli.model.weights_file import Weights

PRECISIONS = {
    ".safetensors": ("fp32", "fp16", "bf16"),
    ".pth": ("fp32", "fp16", "bf16"),
    ".onnx": ("fp32", "fp16"),
    ".pt2": ("fp32", "fp16", "bf16"),
    ".xml": ("fp32", "fp16"),
}
"""Precisions of each format. ONNX Runtime and OpenVINO take no bf16 convolutions."""
WEIGHTS_ONLY = (".safetensors", ".pth")

Files = Callable[[Mapping[str, Any]], dict[str, bytes]]
"""Metadata -> the bytes of each file that the artefact consists of, by extension."""


@dataclass(frozen=True)
class Request:
    """Which weights, where to, and how."""

    weights: str
    target: Path
    precision: str = "fp32"
    any_size: bool = False
    compile: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Started:
    """Export that will be written, before it is built."""

    weights: Path
    target: Path
    precision: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """One input through the artefact and through the network."""

    comparison: "Comparison"


@dataclass(frozen=True)
class Finished:
    """Export that was written."""

    files: tuple[Path, ...]
    bytes: int
    metadata: dict[str, Any]


def export(request: Request) -> Iterator[Started | Verified | Finished]:
    """Yields one Started, a Verified per input, one Finished.

    Raises UserError before any work where the request is wrong, CheckFailed where the artefact is not the network,
    Failed where it cannot be written; then there is no file.
    """
    kind = _check(request)

    # After the checks: they answer at once, without torch.
    from restormer_cli.export.parity import LIMITS, report
    from restormer_cli.model.weights import load_weights

    weights = load_weights(request.weights)
    limit = LIMITS[request.precision]
    yield Started(weights.path, request.target, request.precision, _notes(kind, weights.config))
    try:
        with tempfile.TemporaryDirectory(prefix="restormer-export-") as name:
            folder = Path(name)
            metadata = _metadata(request, kind, weights)
            files = _build(request, kind, weights, folder)
            comparisons: list[Comparison] = []
            for comparison in _verify(request, kind, weights, files(metadata), folder):
                comparisons.append(comparison)
                yield Verified(comparison)
            verified = report(comparisons, limit)
            worst = max(comparisons, key=lambda row: row.maximum)
            if not worst.maximum <= limit:
                raise CheckFailed(
                    f"{request.target}: not written: on {worst.name} it differs from the network by "
                    f"{worst.maximum:.3g}/255, more than {limit}/255 ({request.precision})"
                )
            metadata = {**metadata, "verified": verified}
            written = _write(request.target, files(metadata))
    except OSError as error:
        raise Failed(f"{request.target}: cannot be made: {error.strerror or error}") from None
    yield Finished(tuple(written), sum(path.stat().st_size for path in written), metadata)


def _check(request: Request) -> str:
    """The format; everything that can be refused is refused here, before any work."""
    target, kind = request.target, request.target.suffix.lower()
    if kind not in PRECISIONS:
        raise UserError(f"{target}: unknown format {kind or 'without an extension'}; choose {' '.join(PRECISIONS)}")
    if request.precision not in PRECISIONS[kind]:
        raise UserError(f"--precision {request.precision}: {kind} takes {', '.join(PRECISIONS[kind])}")
    if request.compile and kind != ".pt2":
        raise UserError(f"--compile: makes a compiled .pt2; {target} is none: name it {target.with_suffix('.pt2')}")
    if request.any_size and kind in WEIGHTS_ONLY:
        raise UserError(f"--any-size: {kind} holds weights, no graph that could pad; leave it out")
    for path in _targets(target):
        if path.is_dir():
            raise UserError(f"{path}: is a folder: name a file in it, such as {path / 'model.onnx'}")
        if path.exists() and not request.overwrite:
            raise UserError(f"{path}: already there: --overwrite replaces it")
    if Path(request.weights).exists() and target.exists() and Path(request.weights).samefile(target):
        raise UserError(f"{target}: is the input, which is never overwritten: name another file")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent}: no such folder: make it first (mkdir -p {target.parent})")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UserError(f"{target.parent}: cannot be written to: no permission")
    _check_packages(kind, target)
    return kind


def _check_packages(kind: str, target: Path) -> None:
    from restormer_cli.extras import require

    if kind in (".onnx", ".xml"):
        require(str(target), "export", "onnx", "onnxscript>=0.7.1", "onnxslim", "onnxruntime")
    if kind == ".xml":
        require(str(target), "openvino", "openvino")


def _targets(target: Path) -> tuple[Path, ...]:
    """Every file that an artefact of this name consists of, the one that names the others last."""
    return (target.with_suffix(".bin"), target) if target.suffix.lower() == ".xml" else (target,)


def _notes(kind: str, config: "ModelConfig") -> tuple[str, ...]:
    if kind not in WEIGHTS_ONLY:
        return ()
    variant = [
        f"{name} = {value}"
        for name, value, usual in (
            ("attention", config.attention, "mdta"),
            ("feed_forward", config.feed_forward, "gdfn"),
            ("concat", config.concat, True),
        )
        if value != usual
    ]
    if variant:
        return (f"an ablation variant ({', '.join(variant)}): only restormer-cli can load it, not spandrel",)
    if not _spandrel_finds(config):
        return (
            f"expansion {config.expansion}: spandrel works it out from level 1 alone, where it is ambiguous, "
            "and so cannot load this file; restormer-cli can",
        )
    return ()


def _spandrel_finds(config: "ModelConfig") -> bool:
    """Whether the hidden widths of levels 2 to 4 follow from level 1's; the published 2.66 is known to it as such."""
    first = config.hidden(config.dim) / config.dim
    return config.expansion == 2.66 or all(int(c * first) == config.hidden(c) for c in config.channels)


def _metadata(request: Request, kind: str, weights: "Weights") -> dict[str, Any]:
    least = 8 if not request.any_size else 9 if kind == ".pt2" else 1
    config = weights.config
    sides = f"any from {least} pixels on" if request.any_size else "multiples of 8"
    views = "two views, one after the other: " if config.dual_pixel else ""
    return {
        "producer": f"restormer-cli {__version__}",
        "task": weights.task or "",
        "model": config.to_dict(),
        "precision": request.precision,
        "input": f"{views}float32 (batch, {config.in_channels}, height, width), 0 black to 1 white, not clipped",
        "output": f"float32 (batch, {config.out_channels}, height, width), not clamped",
        "sizes": f"height and width: {sides}",
        "padding": "inside the graph" if request.any_size else "reflect at the right and bottom, then crop the result",
        "least_side": least,
        "licence": weights.header.get("licence") or "that of the weights it was made from, which do not say",
        # Of which `restore --ensemble` sees in what positions the network knows pictures.
        **({"recipe": weights.header["recipe"]} if "recipe" in weights.header else {}),
    }


def _build(request: Request, kind: str, weights: "Weights", folder: Path) -> Files:
    if kind in WEIGHTS_ONLY:
        return lambda metadata: _weights_file(request, kind, weights, folder, metadata)
    if kind == ".pt2":
        return _build_program(request, weights, folder)
    from restormer_cli.export.onnx_file import annotate_onnx, build_onnx

    # OpenVINO keeps its own choice of what it stores as fp16; it reads the fp32 graph.
    precision = request.precision if kind == ".onnx" else "fp32"
    graph = build_onnx(weights.model, precision, request.any_size)
    if kind == ".onnx":
        return lambda metadata: {".onnx": annotate_onnx(graph, metadata)}
    from restormer_cli.export.openvino_file import build_openvino

    return lambda metadata: build_openvino(annotate_onnx(graph, {}), folder, request.precision == "fp16", metadata)


def _build_program(request: Request, weights: "Weights", folder: Path) -> Files:
    from restormer_cli.engine.runtimes import NOTES
    from restormer_cli.export.graph import compile_program, export_program, pack_program

    if not request.compile:
        program = export_program(weights.model, request.precision, request.any_size)
        return lambda metadata: {".pt2": pack_program(program, metadata)}
    package = compile_program(weights.model, folder, request.precision, request.any_size)

    def annotated(metadata: Mapping[str, Any]) -> dict[str, bytes]:
        stream = io.BytesIO(package)
        with zipfile.ZipFile(stream, "a") as archive:
            root = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{root}/extra/{NOTES}", json.dumps(metadata))
        return {".pt2": stream.getvalue()}

    return annotated


def _weights_file(
    request: Request, kind: str, weights: "Weights", folder: Path, metadata: Mapping[str, Any]
) -> dict[str, bytes]:
    from restormer_cli.export.graph import DTYPES
    from restormer_cli.model.weights_file import save_weights

    path = folder / f"weights{kind}"
    # What the file said of itself stays, and comes first: recipe, training, licence.
    save_weights(
        path, weights.model, {**metadata, **weights.header, **_ours(metadata)}, dtype=DTYPES[request.precision]
    )
    return {kind: path.read_bytes()}


def _ours(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metadata[key] for key in ("producer", "precision", "verified") if key in metadata}


def _verify(
    request: Request, kind: str, weights: "Weights", files: Mapping[str, bytes], folder: Path
) -> Iterator["Comparison"]:
    """Load the artefact back as its user will, and compare."""
    from restormer_cli.engine.runtimes import Exported
    from restormer_cli.export.parity import compare
    from restormer_cli.model.weights import load_weights
    from restormer_cli.model.weights_file import with_a_block_in_every_level

    for suffix, data in files.items():
        (folder / f"candidate{suffix}").write_bytes(data)
    candidate = folder / f"candidate{kind}"
    if kind in WEIGHTS_ONLY:
        loaded = load_weights(candidate)
        # By shapes: a .pth has no configuration, and several expansions may belong to one set of widths.
        expected = with_a_block_in_every_level(weights.model) if kind == ".pth" else weights.model
        if _shapes(loaded.model) != _shapes(expected):
            raise CheckFailed(f"{request.target}: not written: it loads as another network, {loaded.config}")
        yield from compare(weights.model, _no_grad(loaded.model))
        return
    runtime = Exported(candidate)
    yield from compare(weights.model, runtime.run, request.any_size, runtime.least)


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _no_grad(model: Any) -> Callable[[Any], Any]:
    import torch

    return torch.inference_mode()(model.forward)


def _write(target: Path, files: Mapping[str, bytes]) -> list[Path]:
    """All files or none: each takes its place, and that of an older one, when all are on the disk."""
    paths = _targets(target)
    with ExitStack() as stack:
        for path in reversed(paths):  # the last to be opened takes its place first
            stream = stack.enter_context(replacing(path))
            stream.write(files[path.suffix.lower()])
            stream.flush()
            os.fsync(stream.fileno())
    return list(paths)
