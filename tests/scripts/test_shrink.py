"""A smaller network's start, cut out of a larger one's weights."""

import sys
from pathlib import Path

import pytest
import torch

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "results"))
from shrink import shrink

LARGE = ModelConfig(dim=8, blocks=(1, 2, 2, 2), heads=(1, 2, 4, 8), refinement=1, expansion=2.0)


def test_what_is_left_out_did_nothing_then_nothing_changes() -> None:
    """Blocks that the small network lacks, and hidden channels that weigh least, are made to do nothing first."""
    torch.manual_seed(0)
    large = Restormer(LARGE).eval()
    small_config = ModelConfig(dim=8, blocks=(0, 1, 1, 1), heads=LARGE.heads, refinement=0, expansion=1.0)
    kept = {"encoder_level2.0", "encoder_level3.0", "latent.0", "decoder_level3.1", "decoder_level2.1"}
    with torch.no_grad():
        for name, parameter in large.named_parameters():
            block = ".".join(name.split(".")[:2])
            if name.endswith("project_out.weight") and block not in kept:
                parameter.zero_()
            elif name.endswith("ffn.project_out.weight"):
                parameter[:, ::2] = 0  # every second hidden channel: half of them stay
    small = shrink(large, small_config).eval()
    x = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        assert torch.allclose(small(x), large(x), atol=1e-6)


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="gives no"):
        shrink(Restormer(LARGE), ModelConfig(dim=16, blocks=(0, 1, 1, 1), heads=LARGE.heads, refinement=0))
