"""Cost of a network, counted by running it without numbers: two conventions, both named.

The paper's "GFLOPs" are the multiply-accumulates of convolutions alone. Attention's two matrix products per head
add about a tenth, and a FLOP is half a multiply-accumulate, so `torch.utils.flop_counter` reports 2.2 times as
much for the same network. People quote either; a table that does not say which is worth nothing.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer


@dataclass(frozen=True)
class Operations:
    """The work of one pass over one picture; elementwise work (norms, GELU, softmax) is in neither convention."""

    height: int
    width: int
    conv_macs: int
    """Multiply-accumulates of convolutions, 1×1 ones included: the paper's "FLOPs"."""
    attention_macs: int
    """Multiply-accumulates of attention's matrix products, which the paper leaves out."""

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.conv_macs + self.attention_macs

    @property
    def flops(self) -> int:
        """All floating-point operations, two per multiply-accumulate: as `torch.utils.flop_counter` counts."""
        return 2 * self.macs


@cache
def count_parameters(config: ModelConfig) -> int:
    """Trainable numbers in the network."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Restormer(config).parameters())


def count_operations(config: ModelConfig, height: int, width: int) -> Operations:
    """The textbook network's work on one picture of height × width pixels, padded to multiples of 8."""
    height, width = (-(-side // 8) * 8 for side in (height, width))
    # Attention is across channels, so that all work is proportional to the pixels.
    conv, attention = (count * (height // 8) * (width // 8) for count in _on_8_by_8(config))
    return Operations(height, width, conv_macs=conv, attention_macs=attention)


@cache
def _on_8_by_8(config: ModelConfig) -> tuple[int, int]:
    """Multiply-accumulates of convolutions and of attention for the smallest picture.

    A level's blocks are equal in shape: one is counted, and stands for all of them.
    """
    with torch.device("meta"):
        network = TextbookRestormer(with_one_block(config)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, config.in_channels, 8, 8, device="meta"))
    counted = counter.get_flop_counts()
    conv = total = 0
    further = [
        (f"{TextbookRestormer.__name__}.{name}", max(count - 1, 0)) for name, count in level_blocks(config).items()
    ]
    for module, repetitions in [("Global", 1), *further]:
        for operator, flops in counted.get(module, {}).items():
            total += repetitions * flops
            conv += repetitions * flops * ("convolution" in str(operator))
    return conv // 2, (total - conv) // 2


def with_one_block(config: ModelConfig) -> ModelConfig:
    """The same network with at most one block in each level: to count what its blocks cost."""
    return replace(config, blocks=tuple(min(count, 1) for count in config.blocks), refinement=min(config.refinement, 1))


def level_blocks(config: ModelConfig) -> dict[str, int]:
    """How many blocks each level has, by its name in the network."""
    first, second, third, fourth = config.blocks
    return {
        **{"encoder_level1": first, "encoder_level2": second, "encoder_level3": third, "latent": fourth},
        **{"decoder_level3": third, "decoder_level2": second, "decoder_level1": first, "refinement": config.refinement},
    }
