"""The two conventions, against the figures of the paper and of facts counted by hand."""

import pytest

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.cost import count_operations, count_parameters

DEEP = ModelConfig()
MIDDLE = ModelConfig(dim=64, blocks=(2, 3, 3, 4), refinement=3, expansion=2.53)
WIDE = ModelConfig(dim=80, blocks=(1, 2, 2, 2), refinement=3, expansion=2.0)


@pytest.mark.parametrize(
    ("config", "parameters", "conv", "everything"),
    [(DEEP, 26_126_644, 140.99, 154.88), (MIDDLE, 26_025_773, 142.74, 157.24), (WIDE, 25_206_765, 147.71, 164.69)],
    ids=["deep-narrow", "middle", "wide-shallow"],
)
def test_the_papers_own_figures(config, parameters, conv, everything):
    work = count_operations(config, 256, 256)
    assert count_parameters(config) == parameters
    assert round(work.conv_macs / 1e9, 2) == conv
    assert round(work.macs / 1e9, 2) == everything
    assert work.flops == 2 * work.macs


@pytest.mark.parametrize(("blocks", "refinement"), [((1, 1, 1, 1), 0), ((2, 3, 5, 7), 4), ((0, 2, 0, 1), 1)])
def test_a_network_counted_by_hand(blocks, refinement):
    """dim 2, no gate, no depth-wise convolution, at 8×8: every product written out."""
    plain = {"heads": (1, 1, 1, 1), "expansion": 1.0, "attention": "mta", "feed_forward": "fn"}
    config = ModelConfig(dim=2, blocks=blocks, refinement=refinement, **plain)

    def block(c: int, pixels: int) -> int:
        return pixels * (3 * c * c + c * c + c * c + c * c)  # qkv, projection, and two layers of c -> c

    conv = 64 * 9 * 3 * 2 + 64 * 9 * 4 * 3  # patch embedding, output
    conv += sum(blocks[level] * block(2 << level, 64 >> 2 * level) for level in range(4))  # encoder, latent
    # Decoder; level 1 and refinement keep 2C.
    conv += blocks[2] * block(8, 4) + blocks[1] * block(4, 16) + (blocks[0] + refinement) * block(4, 64)
    conv += sum((64 >> 2 * level) * 9 * (2 << level) * (1 << level) for level in range(3))  # down: n -> n/2
    conv += sum((64 >> 2 * level) * 9 * (2 << level) * (4 << level) for level in range(1, 4))  # up: n -> 2n
    conv += 4 * 16 * 8 + 16 * 8 * 4  # reductions at levels 3 and 2
    attention = sum(2 * blocks[level] * (2 << level) ** 2 * (64 >> 2 * level) for level in range(4))  # q kᵀ and A v
    attention += 2 * (blocks[2] * 8 * 8 * 4 + blocks[1] * 4 * 4 * 16 + (blocks[0] + refinement) * 4 * 4 * 64)
    work = count_operations(config, 8, 8)
    assert (work.conv_macs, work.attention_macs) == (conv, attention)


def test_odd_sizes_count_with_their_padding():
    assert count_operations(DEEP, 57, 63).conv_macs == count_operations(DEEP, 64, 64).conv_macs
