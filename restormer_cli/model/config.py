"""The shape of a network, as a frozen value; no torch, so that recipes can be read at once."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

Norm = Literal["with-bias", "bias-free"]
Attention = Literal["mdta", "mta"]
FeedForward = Literal["gdfn", "gfn", "dfn", "fn"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Hyper-parameters of Restormer; the defaults are the paper's network (section 4, 26.1 M parameters).

    Raises ValueError, naming the offending numbers, where no such network exists.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    in_channels: int = 3
    """1 in gray, 3 in colour, 6 for two views in colour."""
    out_channels: int = 3
    """As many as go in; half as many with `dual_pixel`."""
    dim: int = 48
    """Channels C of level 1; levels 2 to 4 have 2C, 4C, 8C."""
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    """Transformer blocks of encoder levels 1 to 3 (and the decoder's, mirrored) and of the latent; 0: none there."""
    refinement: int = 4
    """Blocks behind the level-1 decoder."""
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    """Attention heads by level; they divide its channels."""
    expansion: float = 2.66
    """Hidden width of the feed-forward network, as a multiple of its channels (rounded down)."""
    norm: Norm = "with-bias"
    """LayerNorm, or `bias-free`: divided by σ, not centred, as the published denoising weights expect."""
    bias: bool = False
    """Biases in convolutions; the published networks have none."""
    dual_pixel: bool = False
    """Two views in (channels concatenated), one picture out: no global residual."""
    attention: Attention = "mdta"
    """`mta` is MDTA without its depth-wise convolution (paper, Table 7)."""
    feed_forward: FeedForward = "gdfn"
    """`gfn`: no depth-wise convolution; `dfn`: no gate; `fn`: neither (paper, Table 7)."""
    concat: bool = True
    """Whether the level-1 decoder keeps the 2C channels of the skip connection's concatenation."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "dim"):
            _require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("blocks", "heads"):
            row = tuple(getattr(self, name))
            _require(len(row) == 4, f"{name} = {list(row)}: needs four entries, one per level")
            least = 0 if name == "blocks" else 1
            _require(min(row) >= least, f"{name} = {list(row)}: every level needs at least {least}")
            object.__setattr__(self, name, row)
        _require(self.refinement >= 0, f"refinement = {self.refinement}: must be 0 or more")
        _require(self.dim % 2 == 0, f"dim = {self.dim}: must be even, since downsampling halves it first")
        for level, (channels, heads) in enumerate(zip(self.channels, self.heads, strict=True), start=1):
            _require(channels % heads == 0, f"heads = {heads} at level {level} do not divide its {channels} channels")
        _require(self.level1_channels % self.heads[0] == 0, "heads of level 1 must divide the decoder's channels")
        _require(
            0 < self.expansion < 64 and self.hidden(self.dim) >= 1,
            f"expansion = {self.expansion}: the hidden width int({self.dim} · expansion) must be at least 1",
        )
        for name, choices in (("norm", Norm), ("attention", Attention), ("feed_forward", FeedForward)):
            value = getattr(self, name)
            _require(value in get_args(choices), f"{name} = {value!r}: must be one of {', '.join(get_args(choices))}")
        if self.dual_pixel:
            _require(
                self.in_channels == 2 * self.out_channels,
                f"dual_pixel with in_channels = {self.in_channels}, out_channels = {self.out_channels}: "
                "takes two views, so twice as many channels in as out",
            )
        else:
            _require(
                self.in_channels == self.out_channels,
                f"in_channels = {self.in_channels}, out_channels = {self.out_channels}: the global residual adds the "
                "input to the output, so they must be equal (unless dual_pixel = true)",
            )

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of encoder levels 1 to 3 and of the latent."""
        return (self.dim, 2 * self.dim, 4 * self.dim, 8 * self.dim)

    @property
    def level1_channels(self) -> int:
        """Channels of the level-1 decoder and the refinement."""
        return 2 * self.dim if self.concat else self.dim

    def hidden(self, channels: int) -> int:
        """Hidden width h of the feed-forward network at a level with so many channels."""
        return int(channels * self.expansion)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Read `to_dict`'s form. Raises ValueError for an unknown key, a wrong type or an impossible value."""
        known = cls.__dataclass_fields__
        for key, value in values.items():
            _require(key in known, f"model has no field {key!r}")
            default = known[key].default
            if isinstance(default, tuple):
                _require(
                    isinstance(value, list | tuple) and all(type(entry) is int for entry in value),
                    f"{key} = {value!r}: must be a list of whole numbers",
                )
            elif isinstance(default, float):
                _require(type(value) in (int, float), f"{key} = {value!r}: must be a number")
            else:
                _require(type(value) is type(default), f"{key} = {value!r}: must be a {type(default).__name__}")
        return cls(**values)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
