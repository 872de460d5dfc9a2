"""What a run of the strip engine allocates: one table, from which strips.py takes its tensors and the plan its sum.

A network runs in three phases: everything up to the join with the level-1 skip, the level-1 decoder with refinement,
and the output. The peak is that of the phase that holds most (test_the_table_is_what_is_allocated).
"""

from dataclasses import dataclass
from functools import cached_property

from restormer_cli.engine.bands import BAND
from restormer_cli.engine.pieces import COLUMNS, JOINED, Piece, cut, halo_pixels
from restormer_cli.engine.tlc import Cells
from restormer_cli.model.config import ModelConfig

ENCODING, DECODING, OUTPUT = PHASES = (0, 1, 2)
STRIP_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20, "mps": 128 << 20}
"""Size of the widest intermediate of a strip: what the caches of a core hold, or enough to fill a GPU."""
SKIP_BYTES = 1 << 20
"""Size of the rows to which a dual-pixel network adds its embedding at a time."""


@dataclass(frozen=True)
class Allocation:
    """A tensor, or several that live as long: bytes, and the phases in which they are held."""

    name: str
    bytes: int
    phases: tuple[int, ...]


@dataclass(frozen=True)
class Allocations:
    """The tensors of one picture of height × width pixels, multiples of 8, in a type of `itemsize` bytes."""

    config: ModelConfig
    height: int
    width: int
    itemsize: int = 4
    keep_v: bool = True
    """Whether v of the level-1 decoder is kept."""
    window: int | None = None
    threads: int = 1
    native: bool = False
    """Whether the kernels run it, piece by piece, and not PyTorch's operators, strip by strip."""
    device: str = "cpu"

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def maps(self) -> int:
        """Numbers of the two level-1 maps, one of which is room for v and for deeper maps until it is needed."""
        return 2 * self.pixels * self.config.dim

    @property
    def level2(self) -> int:
        """Numbers of the level-2 map."""
        return self.pixels * self.config.dim // 2

    @property
    def decoder_v(self) -> int:
        """Numbers of v in the level-1 decoder, which is as large as its map; without concatenation the second map is
        free for it."""
        if not self.keep_v or not self.config.concat or not self.config.blocks[0] + self.config.refinement:
            return 0
        return self.maps

    @property
    def joins(self) -> bool:
        """Whether the raised map and the skip become one. The kernels leave them apart where only the output reads
        them."""
        config = self.config
        read_once = not config.blocks[0] + config.refinement and not config.dual_pixel
        return config.concat and not (self.native and read_once)

    @property
    def embedded(self) -> int:
        """Numbers of the embedding that a dual-pixel network adds at the end."""
        return self.pixels * self.config.dim if self.config.dual_pixel else 0

    @cached_property
    def table(self) -> list[Allocation]:
        """Everything, but for what is too small to matter: weights' copies."""
        config, size = self.config, self.itemsize
        wide = max(4, size)  # what meets the picture is not rounded
        levels = [self._level(level, config.dim << (level - 1), True) for level in (1, 2, 3, 4)]
        decoder = self._level(1, config.level1_channels, self.keep_v)
        rows = min(2 * JOINED, self.height) if self.joins else 0
        return [
            Allocation("picture, channels last", wide * self.pixels * config.in_channels, PHASES),
            Allocation("level-1 maps", size * self.maps, PHASES),
            Allocation("embedding", size * self.embedded, PHASES),
            Allocation("level-2 map", size * self.level2, (ENCODING,)),
            Allocation("rows of the skip", size * rows * self.width * config.dim if self.native else 0, (ENCODING,)),
            Allocation("pieces' borders, sums and matrices", max(levels), (ENCODING,)),
            Allocation("v of the level-1 decoder", size * self.decoder_v, (DECODING,)),
            Allocation("pieces' borders, sums and matrices of the level-1 decoder", decoder, (DECODING,)),
            Allocation("rows of the embedding", SKIP_BYTES if config.dual_pixel else 0, (OUTPUT,)),
            Allocation("result", wide * self.pixels * config.out_channels, (OUTPUT,)),
            Allocation("strips", self._strips(), PHASES),
        ]

    @property
    def peak(self) -> int:
        """Bytes at the fullest phase."""
        return max(sum(entry.bytes for entry in self.table if phase in entry.phases) for phase in PHASES)

    def _level(self, level: int, channels: int, v_is_kept: bool) -> int:
        """Bytes that a level's blocks take beside its map and v."""
        height, width = self.height >> (level - 1), self.width >> (level - 1)
        has_blocks = self.config.blocks[level - 1] or (level == 1 and self.config.refinement)
        if not has_blocks:
            return 0
        reach = 1 if v_is_kept else 2
        cells = self._cells(height, width, level, channels)
        if not self.native:
            pieces = self._pieces(height, width)
            halos = sum(halo_pixels(piece, reach) for piece in pieces if len(pieces) > 1)
            return halos * channels * self.itemsize + cells
        pieces = cut(height, width, COLUMNS, self.threads)
        head = channels // self.config.heads[level - 1] + 2
        halos = sum(halo_pixels(piece, reach) for piece in pieces) * channels * 4
        return max(halos, len(pieces) * channels * head * 8) + cells

    def _pieces(self, height: int, width: int) -> list[Piece]:
        """Those of PyTorch's operators: on a GPU one."""
        return cut(height, width, BAND, self.threads) if self.device == "cpu" else cut(height, width, width, 1)

    def _cells(self, height: int, width: int, level: int, channels: int) -> int:
        """Sums and matrices of TLC's windows and cells at a level, and the prepared ones; of the map without TLC."""
        cells = Cells.at(level, height, width, self.window)
        windows = len(cells.rows.starts) * len(cells.columns.starts)
        down, across = cells.shape
        count, square, sums = down * across, channels**2, channels**2 // self.config.heads[level - 1]
        most = max(windows * (3 * sums + 2 * square), (windows + count) * square, 2 * count * square)
        return 4 * (count * sums + most)

    def _strips(self) -> int:
        """The strips that are worked on at once; for the kernels, the rows that each thread keeps (`lay_out`)."""
        config = self.config
        if self.native:
            rows = 0
            for level, c in enumerate((*config.channels, config.level1_channels)):
                widest = max(3 * c, 2 * config.hidden(c) + 32)
                rows = max(rows, (min(COLUMNS, self.width >> (level % 4)) + 4) * (5 * (c + 16) + 4 * widest))
            return 4 * (self.threads + (self.threads > 1)) * rows
        widest = max(3 * config.level1_channels, 2 * config.hidden(config.level1_channels))
        if self.device == "cpu":
            pieces = len(self._pieces(self.height, self.width))
            # Sums are float32 whatever the type, and so are the strips that they are made from.
            return (8 + 8 * min(self.threads, pieces)) * min(STRIP_BYTES["cpu"], 4 * self.pixels * (widest + 32))
        # On a GPU one strip is worked on at a time: what is widest, what it is made from, copies.
        return 4 * min(STRIP_BYTES[self.device], self.pixels * widest * self.itemsize)
