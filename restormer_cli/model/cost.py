"""Cost of a network, counted by running it without numbers: two conventions, both named.

The paper's "GFLOPs" are the multiply-accumulates of convolutions alone. Attention's two matrix products per head
add about a tenth, and a FLOP is half a multiply-accumulate, so `torch.utils.flop_counter` reports 2.2 times as
much for the same network. People quote either; a table that does not say which is worth nothing.
"""

from dataclasses import dataclass

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


def count_parameters(config: ModelConfig) -> int:
    """Trainable numbers in the network."""
    return sum(parameter.numel() for parameter in _shape_only(config).parameters())


def count_operations(config: ModelConfig, height: int, width: int) -> Operations:
    """The textbook network's work on one picture of height × width pixels, padded to multiples of 8."""
    height, width = (-(-side // 8) * 8 for side in (height, width))
    network = _shape_only(config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, config.in_channels, height, width, device="meta"))
    by_operator = counter.get_flop_counts()["Global"]
    conv = sum(count for operator, count in by_operator.items() if "convolution" in str(operator))
    rest = counter.get_total_flops() - conv
    return Operations(height, width, conv_macs=conv // 2, attention_macs=rest // 2)


def _shape_only(config: ModelConfig) -> nn.Module:
    with torch.device("meta"):
        return TextbookRestormer(config).eval()
