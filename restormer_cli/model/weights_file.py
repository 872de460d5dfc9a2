"""Weights to and from files: safetensors that carry their own configuration, and the published `.pth` layout.

Our files hold the official state-dict keys and, in the header, JSON: `format`, `model` (the whole ModelConfig),
`task`, `recipe`, `training`, `licence`. Files without that header have their configuration inferred from tensor
shapes. Every file is taken as hostile: nothing in it is ever executed, and the state dict is loaded strictly.
"""

import argparse
import itertools
import json
import pickle
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from restormer_cli.errors import UserError
from restormer_cli.files import write_atomically
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer

FORMAT = "restormer-cli/1"
WRAPPERS = ("params_ema", "params", "state_dict", "model")
"""Keys under which people keep a state dict in a `.pth`, the first one found wins."""
FIRST = "patch_embed.proj.weight"
LEFT_BEHIND = ("total_ops", "total_params")
"""Buffers that thop leaves in a network."""
MAX_CHANNELS = 4096
MAX_BLOCKS = 256
"""More blocks in a level than any sane file holds; keeps a hostile one from building a giant network."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A network ready to run, its shape, and what its file says about it."""

    model: Restormer
    config: ModelConfig
    header: dict[str, Any]
    path: Path

    @property
    def task(self) -> str | None:
        """The task in the header, if it has one."""
        task = self.header.get("task")
        return task if isinstance(task, str) else None

    @property
    def largest_patch(self) -> int | None:
        """Side of the largest training patch, if the header's recipe tells."""
        recipe = self.header.get("recipe")
        stages = recipe.get("stage") if isinstance(recipe, dict) else None
        rows = [row for row in stages if isinstance(row, dict)] if isinstance(stages, list) else []
        patches = [row.get("patch") for row in rows]
        return max((patch for patch in patches if isinstance(patch, int) and patch >= 8), default=None)


def load_file(path: Path) -> Weights:
    """Load safetensors (ours or not) or an official-layout `.pth`; half-precision files load as float32.

    Raises UserError naming the file and the first thing wrong with it: a key, a shape, a non-finite value.
    """
    try:
        state, header = _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        config = ModelConfig.from_dict(header["model"]) if "model" in header else infer_config(state)
        model = _build(config, state)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return Weights(model=model.eval(), config=config, header=header, path=path)


def save_weights(
    path: str | Path, model: torch.nn.Module, header: Mapping[str, Any], *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a Restormer's weights atomically; `.pth` gives the official layout, anything else safetensors.

    `dtype` is what they are stored as. The official layout is `params`; the header stands beside it, as JSON under
    `restormer_cli`, which nobody else reads. Raises Failed where the file cannot be written.

    Programs that read the official layout expect a block in every level, so it gets one that does nothing where the
    network has none.
    """
    path = Path(path)
    if path.suffix == ".pth":
        model = with_a_block_in_every_level(model)
    config: ModelConfig = model.config  # type: ignore[assignment]
    state = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    if path.suffix == ".pth":
        beside = {"restormer_cli": json.dumps(dict(header))} if header else {}
        write_atomically(path, lambda stream: torch.save({"params": state, **beside}, stream))
        return
    entries = {**header, "format": FORMAT, "model": config.to_dict()}
    data = save(state, metadata={key: _to_text(value) for key, value in entries.items()})
    write_atomically(path, lambda stream: stream.write(data))


def with_a_block_in_every_level(model: torch.nn.Module) -> torch.nn.Module:
    """The same network, with a block that adds nothing where a level has none; else the model itself."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    blocks = tuple(max(1, count) for count in config.blocks)
    if blocks == config.blocks:
        return model
    filled = Restormer(replace(config, blocks=blocks, refinement=max(1, config.refinement)))
    state = filled.state_dict()
    known = model.state_dict()
    for key, value in state.items():
        if key in known:
            state[key] = known[key].detach().to(value)
        elif ".project_out." in key:  # what attention and feed-forward add to x comes out of these
            state[key] = torch.zeros_like(value)
    filled.load_state_dict(state)
    return filled.eval()


def infer_config(state: Mapping[str, Tensor]) -> ModelConfig:
    """The network that a state dict belongs to. Raises ValueError naming the first key that is missing or odd."""

    def shape(key: str, axes: int) -> tuple[int, ...]:
        if key not in state:
            raise ValueError(f"not the weights of a Restormer: {key} is missing")
        if state[key].ndim != axes or 0 in state[key].shape:
            raise ValueError(f"{key} has shape {list(state[key].shape)}, expected {axes} axes")
        return tuple(state[key].shape)

    dim, in_channels = shape("patch_embed.proj.weight", 4)[:2]
    out_channels = shape("output.weight", 4)[0]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    blocks = tuple(_count(state, level) for level in levels)
    if not any(blocks):
        raise ValueError("not the weights of a Restormer: encoder_level1.0.norm1.body.weight is missing")
    there = [number for number, count in enumerate(blocks) if count]
    first = f"{levels[there[0]]}.0"
    # An empty level has no heads to count: the published numbers, which divide any dim · 2ⁿ, stand for them.
    heads = tuple(
        shape(f"{level}.0.attn.temperature", 3)[0] if count else 1 << number
        for number, (level, count) in enumerate(zip(levels, blocks, strict=True))
    )
    depthwise = f"{first}.ffn.dwconv.weight" in state
    wide = shape(f"{first}.ffn.project_in.weight", 4)[0]
    hidden = [(dim << number, shape(f"{levels[number]}.0.ffn.project_out.weight", 4)[1]) for number in there]
    gated = wide == 2 * hidden[0][1]
    return ModelConfig(
        in_channels=in_channels,
        out_channels=out_channels,
        dim=dim,
        blocks=blocks,  # type: ignore[arg-type]
        refinement=_count(state, "refinement"),
        heads=heads,  # type: ignore[arg-type]
        expansion=_expansion(hidden),
        norm="with-bias" if f"{first}.norm1.body.bias" in state else "bias-free",
        bias=f"{first}.attn.qkv.bias" in state,
        dual_pixel="skip_conv.weight" in state,
        attention="mdta" if f"{first}.attn.qkv_dwconv.weight" in state else "mta",
        feed_forward=("gdfn" if depthwise else "gfn") if gated else ("dfn" if depthwise else "fn"),
        concat="reduce_chan_level1.weight" not in state,
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with path.open("rb") as stream:
        start = stream.read(16)
    if not start:
        raise UserError(f"{path}: is empty")
    if start.startswith(b"version https://"):
        raise UserError(f"{path}: is a Git LFS pointer, not the weights: fetch them with git lfs pull")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: is a web page, not weights: download the file itself, in a browser if need be")
    # The header's length comes first: it may well begin with the byte 0x80, as a pickle does.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:
        return _read_safetensors(path)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or path.suffix in (".pth", ".pt", ".ckpt"):
        return _read_pickle(path), {}
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            metadata: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path}: not a complete safetensors file ({error})") from None
    header: dict[str, Any] = {}
    ours = metadata.get("format", "").startswith("restormer-cli/")
    for key, text in metadata.items() if ours else ():
        header[key] = _from_text(text)
    if ours and header["format"] != FORMAT:
        raise UserError(f"{path}: format {header['format']}, this version reads {FORMAT}: update restormer-cli")
    if ours and not isinstance(header.get("model"), dict):
        raise UserError(f"{path}: its header has no readable model configuration")
    return _strip(state), header


def _to_text(value: Any) -> str:
    """A header entry: a string as it is, unless that would read back as something else; other values as JSON."""
    return value if isinstance(value, str) and _from_text(value) == value else json.dumps(value, separators=(",", ":"))


def _from_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # A stream, since torch.load goes by the extension of a path.
        with path.open("rb") as stream, warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # about odd pickle protocols; whatever loads is checked below
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path}: refused: holds something other than tensors, or is damaged") from None
    except OSError:
        raise
    except Exception:
        # torch.load meets a damaged file with a dozen kinds (RuntimeError, KeyError, struct.error, BadZipFile, …).
        raise UserError(f"{path}: damaged or not a PyTorch file") from None
    if isinstance(content, dict):
        inside = (key for key, value in content.items() if isinstance(value, dict) and _is_state(value))
        known = (key for key in WRAPPERS if isinstance(content.get(key), dict))
        content = content.get(next(itertools.chain(known, inside), None), content)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds no state dict")
    if all(isinstance(key, str) for key in content):
        content = {key: value for key, value in content.items() if not key.endswith(LEFT_BEHIND)}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: holds no state dict: {key!r} is not a tensor")
    return _strip(content)


def _harmless() -> list[Any]:
    """Types beside the tensors in other training loops' files: numpy's numbers, parsed arguments."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    numbers = [type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *numbers, argparse.Namespace]


def _is_state(values: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and key.endswith(FIRST) for key in values)


def _strip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefix that every key shares, as DataParallel, Lightning, MMagic and others leave it."""
    prefix = next((key.removesuffix(FIRST) for key in state if key.endswith(FIRST)), "")
    if prefix and all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _build(config: ModelConfig, state: Mapping[str, Tensor]) -> Restormer:
    # On the meta device first: a hostile header costs no memory before its shapes are checked.
    widest = max(config.dim, config.in_channels, config.out_channels)
    if max(*config.blocks, config.refinement) > MAX_BLOCKS or widest > MAX_CHANNELS:
        raise ValueError("its network is larger than any file could hold")
    with torch.device("meta"):
        model = Restormer(config)
    expected = model.state_dict()
    for key, tensor in expected.items():
        if key not in state:
            raise ValueError(f"{key} is missing")
        if state[key].shape != tensor.shape:
            raise ValueError(f"{key} has shape {list(state[key].shape)}, expected {list(tensor.shape)}")
    for key, tensor in state.items():
        if key not in expected:
            raise ValueError(f"{key} is not part of this network")
        if not tensor.dtype.is_floating_point:
            raise ValueError(f"{key} is of type {tensor.dtype}, expected floating point")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{key} is not an ordinary dense tensor")
    # Copied, so that no two parameters share memory; checked as float32, since a double may overflow.
    # Not empty_like: of a tensor on the meta device it imports sympy, a quarter of a second.
    state = {key: torch.empty(value.shape, dtype=value.dtype).copy_(state[key]) for key, value in expected.items()}
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{key} has values that are not finite")
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(True)


def _count(state: Iterable[str], level: str) -> int:
    numbers = {key.split(".")[1] for key in state if key.startswith(f"{level}.")}
    return sum(str(index) in numbers for index in range(min(len(numbers), MAX_BLOCKS + 1)))


def _expansion(rows: list[tuple[int, int]]) -> float:
    """The shortest decimal e with int(channels · e) = hidden at every level; one level alone does not fix it."""
    low = max(Fraction(hidden, channels) for channels, hidden in rows)
    high = min(Fraction(hidden + 1, channels) for channels, hidden in rows)
    if low < high:
        for digits in range(13):
            # The rounding of int(c · e) in floating point decides at the edges, so candidates are tried as such.
            step = -(-low.numerator * 10**digits // low.denominator)
            for candidate in ((step + extra) / 10**digits for extra in range(2)):
                if candidate < high and all(int(channels * candidate) == hidden for channels, hidden in rows):
                    return candidate
    raise ValueError(f"ffn.project_out widths {[h for _, h in rows]} belong to no expansion factor")
