"""Cost of a network, counted by running it without numbers: two conventions, both named.

The paper's "GFLOPs" are the multiply-accumulates of convolutions alone. Attention's two matrix products per head
add about a tenth, and a FLOP is half a multiply-accumulate, so `torch.utils.flop_counter` reports 2.2 times as
much for the same network. People quote either; a table that does not say which is worth nothing.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restormer_cli.model.config import ModelConfig
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
    return sum(parameter.numel() for parameter in _shape_only(config).parameters())


@cache
def count_operations(config: ModelConfig, height: int, width: int) -> Operations:
    """The textbook network's work on one picture of height × width pixels, padded to multiples of 8.

    A level's blocks are equal in shape: one is counted, and stands for all of them.
    """
    height, width = (-(-side // 8) * 8 for side in (height, width))
    once = replace(config, blocks=tuple(min(count, 1) for count in config.blocks), refinement=min(config.refinement, 1))
    network = _shape_only(once)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, config.in_channels, height, width, device="meta"))
    counted = counter.get_flop_counts()
    conv = total = 0
    for module, repetitions in [("Global", 1), *_further_blocks(config)]:
        for operator, flops in counted.get(module, {}).items():
            total += repetitions * flops
            conv += repetitions * flops * ("convolution" in str(operator))
    return Operations(height, width, conv_macs=conv // 2, attention_macs=(total - conv) // 2)


def _further_blocks(config: ModelConfig) -> list[tuple[str, int]]:
    """Each sequence of blocks by the flop counter's name, and how many it has besides its first."""
    first, second, third, fourth = config.blocks
    counts = {
        **{"encoder_level1": first, "encoder_level2": second, "encoder_level3": third, "latent": fourth},
        **{"decoder_level3": third, "decoder_level2": second, "decoder_level1": first, "refinement": config.refinement},
    }
    return [(f"{TextbookRestormer.__name__}.{name}", max(count - 1, 0)) for name, count in counts.items()]


def _shape_only(config: ModelConfig) -> nn.Module:
    with torch.device("meta"):
        return TextbookRestormer(config).eval()
