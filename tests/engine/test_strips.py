"""Strips against the textbook network: exact, whatever the strip height, shape or variant."""

import pytest
import torch

from restormer_cli.engine import strips
from restormer_cli.engine.strips import Depthwise, Product, Rolling, Strips
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer

VARIANTS = {
    "colour": {},
    "bias-free": {"norm": "bias-free"},
    "biases": {"bias": True},
    "dual-pixel": {"in_channels": 6, "dual_pixel": True, "bias": True},
    "gray": {"in_channels": 1, "out_channels": 1, "norm": "bias-free"},
    "plain": {"attention": "mta", "feed_forward": "fn", "concat": False},
    "dfn": {"feed_forward": "dfn", "bias": True},
    "gfn": {"feed_forward": "gfn", "concat": False, "bias": True},
}


def network(**variant) -> Restormer:
    torch.manual_seed(7)
    model = Restormer(ModelConfig(dim=14, blocks=(2, 3, 1, 2), refinement=1, heads=(7, 2, 4, 8), **variant))
    for parameter in model.parameters():  # biases and temperatures too: zeros and ones hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def textbook(model: Restormer, picture: torch.Tensor) -> torch.Tensor:
    judge = TextbookRestormer(model.config).double()
    judge.load_state_dict(model.state_dict())
    with torch.no_grad():
        return judge(picture)


@pytest.mark.parametrize("keep_v", [True, False], ids=["v kept", "v recomputed"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_strips_equal_the_whole_image(variant, keep_v):
    model = network(**variant)
    for size in ((8, 8), (7 * 8, 11 * 8), (13 * 8, 5 * 8)):
        picture = torch.rand(1, model.config.in_channels, *size, dtype=torch.float64)
        expected = textbook(model, picture)
        scale = expected.abs().max().item()
        for strip_bytes in (1, 20_000, 1 << 30):
            result = Strips(model, torch.float64, keep_v=keep_v, strip_bytes=strip_bytes).run(picture)
            assert (result - expected).abs().max().item() <= 1e-12 * max(1, scale)


@pytest.mark.parametrize("size", [(8, 8), (8, 1024), (1024, 8), (104, 152)])
def test_float32_strips_are_no_farther_from_the_truth_than_the_float32_textbook(size):
    model = network()
    picture = torch.rand(1, 3, *size, dtype=torch.float64)
    truth = textbook(model, picture)
    judge = TextbookRestormer(model.config)
    judge.load_state_dict(model.state_dict())
    with torch.no_grad():
        allowed = (judge(picture.float()) - truth).abs().max().item()
    result = Strips(model.float()).run(picture.float())
    assert (result - truth).abs().max().item() <= max(2e-6, 2 * allowed)


def test_bfloat16_stays_close():
    model = Restormer(ModelConfig(dim=16, blocks=(1, 1, 1, 1), refinement=1)).eval()
    picture = torch.rand(1, 3, 64, 72)
    exact, rounded = Strips(model).run(picture), Strips(model, torch.bfloat16).run(picture)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).square().mean().sqrt().item() < 0.01


def test_the_model_is_never_changed():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    picture = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    kept = picture.clone()
    Strips(model, torch.float64).run(picture)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(picture, kept)


def test_products_fall_back_where_the_private_operators_are_missing(monkeypatch):
    strips.prefers_onednn.cache_clear()
    monkeypatch.setattr(strips.torch.ops, "mkldnn", object())
    weight, x = torch.randn(5, 3), torch.randn(7, 3)
    product = Product(weight, None, torch.float32)
    strips.prefers_onednn.cache_clear()
    assert product.packed is None
    assert torch.allclose(product(x), x @ weight.T)


@pytest.mark.parametrize("cuts", [[9], [1] * 9, [2, 3, 4], [8, 1]])
def test_rolling_computes_every_row_once_and_in_order(cuts):
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64)
    rows = torch.randn(9, 5, 3, dtype=torch.float64)
    rolling = Rolling(Depthwise(weight, None, torch.float64), 5, 3, rows)
    parts, at = [], 0
    for count in cuts:
        done, start, end = rolling.push(rows[at : at + count])
        assert (start, end) == (sum(len(part) for part in parts), start + len(done))
        parts.append(done)
        at += count
    parts.append(rolling.finish()[0])
    expected = torch.nn.functional.conv2d(rows.permute(2, 0, 1)[None], weight, padding=1, groups=3)[0].permute(1, 2, 0)
    assert torch.allclose(torch.cat(parts), expected, atol=1e-12)
