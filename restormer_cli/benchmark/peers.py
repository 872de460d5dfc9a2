"""Other people's networks beside ours: any file that spandrel loads, as a method of `bench --against spandrel:FILE`.

spandrel knows some fifty architectures by their weights alone (DnCNN, DRUNet, SCUNet, NAFNet, SwinIR …). Such a peer
sees the same picture as everybody; one whose first layer takes a plane of the noise's σ (DRUNet, FDnCNN) is told it,
as the classical methods are.
"""

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restormer_cli.benchmark.networks import Network
from restormer_cli.errors import Failed, RestormerError, UserError, one_line
from restormer_cli.extras import require
from restormer_cli.hardware import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "spandrel:"
PUBLISHED = "published"
"""A way of running the network by the published code, which spandrel's extra architectures have."""
SIGMA = 25 / 255
"""The noise that a peer is told of where nobody knows: when only times are measured."""


def is_peer(kind: str) -> bool:
    """Whether a method's kind is a network that spandrel loads."""
    return kind.startswith(PREFIX)


def peer_name(kind: str) -> str:
    """What tables call it: the file, and that it is not a way of running ours."""
    return f"{_path(kind).stem} (spandrel)"


def check_peer(kind: str) -> None:
    """Raises UserError where its file or the packages are missing."""
    require(f"--against {kind}", "peers", "spandrel", "spandrel-extra-arches")
    if not _path(kind).is_file():
        raise UserError(f"--against {kind}: no such file; write {PREFIX}FILE with weights that spandrel knows")


def about_peers(kinds: tuple[str, ...], network: Network) -> tuple[str, ...]:
    """What each of some peers is, in a line.

    Raises UserError for one that cannot take part: it does not load, enlarges or wants a mask, or is a network of ours
    under another name, which would be measured against itself.
    """
    idle = []
    if PUBLISHED in kinds and (0 in network.config.blocks or not network.config.refinement):
        idle = [f"{PUBLISHED}: its code needs a block everywhere, so where this network has none it has an idle one"]
    kinds = tuple(dict.fromkeys(filter(is_peer, kinds)))
    names = [peer_name(kind) for kind in kinds]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--against: two peers would be called {twice}: give their files different names")
    return (*idle, *(_about(kind, network) for kind in kinds))


def _about(kind: str, network: Network) -> str:
    peer = load_peer(kind)
    if peer.architecture == "Restormer":
        _refuse_ours(kind, network)
    parameters = sum(weights.numel() for weights in peer.model.parameters())
    told = "told σ" if peer.told else "not told σ"
    return (
        f"{peer_name(kind)}: {peer.architecture} ({', '.join(peer.tags)}), {parameters / 1e6:.2f} M parameters, {told}"
    )


def _refuse_ours(kind: str, network: Network) -> None:
    from restormer_cli.model.weights import bundled_tasks, load_weights

    path = _path(kind)
    try:
        theirs = load_weights(path)
    except RestormerError:  # what we cannot load is not ours
        return
    if "format" in theirs.header:
        raise UserError(f"--against {kind}: was written by this program; to measure it: restormer bench {path}")
    state = theirs.model.state_dict()
    names: list[str | Path] = [*bundled_tasks(), *([network.path] if network.path else [])]
    for name in names:
        ours = load_weights(name).model.state_dict()
        if state.keys() == ours.keys() and all(_same(state[key], ours[key]) for key in state):
            raise UserError(f"--against {kind}: has the weights of {name}, which would be measured against itself")


def _same(one: "Tensor", other: "Tensor") -> bool:
    """Whether two tensors have one shape and equal values."""
    return one.shape == other.shape and bool(one.equal(other))


@dataclass(frozen=True, eq=False)
class Peer:
    """A loaded network, on the CPU in float32."""

    model: "nn.Module"
    run: "Callable[[Tensor, float], Tensor]"
    """(1, channels, h, w), σ -> the same shape."""
    architecture: str
    tags: tuple[str, ...]
    channels: int
    told: bool
    """Whether it takes a plane of σ beside the picture."""
    bf16: bool


def load_peer(kind: str) -> Peer:
    """The network of `spandrel:FILE`. Raises UserError where spandrel does not know it, or it restores no pictures."""
    import torch

    spandrel = _spandrel(kind)
    try:
        with warnings.catch_warnings(action="ignore"):
            found = spandrel.ModelLoader(device="cpu").load_from_file(_path(kind))
    except spandrel.UnsupportedModelError:
        raise UserError(f"--against {kind}: an architecture that spandrel does not know") from None
    except Exception as error:  # of many kinds, by architecture
        reason = one_line(str(error)) or type(error).__name__
        raise UserError(f"--against {kind}: spandrel cannot load it: {reason}") from None
    name = str(found.architecture.name)
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise UserError(f"--against {kind}: {name} wants a mask beside the picture")
    if found.scale != 1:
        raise UserError(f"--against {kind}: {name} enlarges pictures {found.scale} times; this compares restoration")
    if found.input_channels != found.output_channels or found.input_channels not in (1, 3):
        shape = f"{found.input_channels} channels to {found.output_channels}"
        raise UserError(f"--against {kind}: {name} takes {shape}; a peer takes gray or colour pictures")
    model = found.model.eval().requires_grad_(False)
    told = _first_inputs(model) == found.input_channels + 1

    def run(picture: "Tensor", sigma: float) -> "Tensor":
        if not told:
            return found(picture)
        # spandrel's own call tells these networks 15/255, whatever the noise.
        height, width = picture.shape[2:]
        multiple = found.size_requirements.multiple_of
        edges = (0, -width % multiple, 0, -height % multiple)
        padded = torch.nn.functional.pad(
            picture, edges, mode="reflect" if min(height, width) > multiple else "replicate"
        )
        plane = torch.full_like(padded[:, :1], sigma)
        return model(torch.cat([padded, plane], dim=1))[..., :height, :width]

    return Peer(model, run, name, tuple(found.tags), found.input_channels, told, found.supports_bfloat16)


def published_code(network: Network) -> "nn.Module":
    """The published code's network, as spandrel-extra-arches has it, with a network's weights. Raises UserError."""
    from restormer_cli.model.weights_file import with_a_block_in_every_level

    _spandrel(PUBLISHED)
    from spandrel_extra_arches.architectures.Restormer import (  # pyright: ignore[reportMissingImports]
        RestormerArch,
    )

    try:
        return RestormerArch().load(dict(with_a_block_in_every_level(network.build()).state_dict())).model
    except Exception as error:  # of many kinds
        raise UserError(f"--against {PUBLISHED}: its code cannot be this network: {one_line(str(error))}") from None


def _first_inputs(model: "nn.Module") -> int:
    """Channels that its first convolution takes."""
    import torch

    return next((module.in_channels for module in model.modules() if isinstance(module, torch.nn.Conv2d)), 0)


def prepare_peer(
    kind: str, device: str = "cpu", precision: str = "fp32", sigma: float | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """The peer, ready to run: float32 (h, w, 1 or 3) -> the same shape; `sigma`, 1 being white, for one that is told.

    A gray network restores the channels of a colour picture one by one; a colour network gives gray pictures the mean
    of its channels. Raises UserError where it has not this precision.
    """
    import torch

    from restormer_cli.engine.restorer import PRECISIONS

    peer = load_peer(kind)
    if precision == "bf16" and not peer.bf16:
        raise UserError(f"--against {kind}: {peer.architecture} does not run in bf16")
    dtype = PRECISIONS[precision]
    peer.model.to(device, dtype)
    noise = SIGMA if sigma is None else sigma

    def through(planes: "Tensor") -> "Tensor":
        return peer.run(planes.to(device, dtype), noise).float().cpu()

    def restore(picture: np.ndarray) -> np.ndarray:
        planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32))[None]
        channels = planes.shape[1]
        try:
            with torch.inference_mode():
                if peer.channels < channels:
                    result = torch.cat([through(planes[:, c : c + 1]) for c in range(channels)], dim=1)
                elif peer.channels > channels:
                    result = through(planes.expand(-1, peer.channels, -1, -1)).mean(dim=1, keepdim=True)
                else:
                    result = through(planes)
        except (RuntimeError, MemoryError, ValueError) as error:
            reason = "not enough memory" if is_out_of_memory(error) else one_line(str(error))
            raise Failed(f"{peer_name(kind)}: {reason}") from None
        return np.ascontiguousarray(result[0].permute(1, 2, 0).numpy())

    return restore


def _path(kind: str) -> Path:
    return Path(kind.removeprefix(PREFIX)).expanduser()


def _spandrel(kind: str) -> Any:
    """spandrel with its extra architectures. Raises UserError.

    The package index's torchvision is built for a CUDA PyTorch. Beside one for processors its compiled operators are
    missing, and the import fails where it describes their shapes. No network needs them: they are declared until it
    goes through, and not defined.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of what they use, not of what we do
            _import_torchvision()
            import spandrel  # pyright: ignore[reportMissingImports]
            import spandrel_extra_arches  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f"--against {kind}: spandrel does not work here: {one_line(str(error))}") from None
    with suppress(spandrel.DuplicateArchitectureError):  # installed before
        spandrel_extra_arches.install()
    return spandrel


DECLARED: list[Any] = []
"""Keeps declared operators alive: they go with their library."""


def _import_torchvision() -> None:
    from torch import library

    for _ in range(50):
        try:
            import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
        except RuntimeError as error:
            operator = str(error).split("torchvision::")[-1].split(" ")[0]
            if "does not exist" not in str(error):
                raise
            if not DECLARED:
                DECLARED.append(library.Library("torchvision", "DEF"))
            DECLARED[0].define(f"{operator}(Tensor x) -> Tensor")
            for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[module]
        else:
            return
