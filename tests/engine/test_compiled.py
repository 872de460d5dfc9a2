"""`--compile` changes speed only."""

import pytest
import torch

from restormer_cli.engine.strips import StripNetwork
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["with-bias", "bias-free"])
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_compiled_strips_equal_plain_ones(norm):
    torch.manual_seed(0)
    model = Restormer(ModelConfig(dim=8, blocks=(1, 1, 1, 1), heads=(1, 2, 2, 2), refinement=1, norm=norm)).eval()
    for size in ((24, 40), (64, 72)):
        picture = torch.rand(1, 3, *size)
        plain, compiled = StripNetwork(model).run(picture), StripNetwork(model, compiled=True).run(picture)
        assert (plain - compiled).abs().max().item() < 1e-5
