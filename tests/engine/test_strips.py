"""Strips against the textbook network: exact, whatever the strip height, shape or variant."""

import math
from functools import cache, partial
from typing import Any

import pytest
import torch

from restormer_cli.engine import packed
from restormer_cli.engine.bands import Band, BlockPasses, LineBuffer
from restormer_cli.engine.packed import PackedConv, PackedLinear
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.engine.tlc import Cells
from restormer_cli.engine.transitions import StripTransitions
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer, TransposedAttention

VARIANTS = {
    "colour": {},
    "bias-free": {"norm": "bias-free"},
    "biases": {"bias": True},
    "dual-pixel": {"in_channels": 6, "dual_pixel": True, "bias": True},
    "gray": {"in_channels": 1, "out_channels": 1, "norm": "bias-free"},
    "plain": {"attention": "mta", "feed_forward": "fn", "concat": False},
    "dfn": {"feed_forward": "dfn", "bias": True},
    "gfn": {"feed_forward": "gfn", "concat": False, "bias": True},
    "empty levels": {"blocks": (0, 2, 1, 0), "refinement": 0},
}


def network(**variant) -> Restormer:
    torch.manual_seed(7)
    shape: dict[str, Any] = {"dim": 6, "blocks": (1, 2, 1, 1), "refinement": 1, "heads": (3, 2, 4, 8)}
    model = Restormer(ModelConfig(**{**shape, **variant}))
    for parameter in model.parameters():  # biases and temperatures too: zeros and ones hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def textbook(model: Restormer, picture: torch.Tensor) -> torch.Tensor:
    judge = TextbookRestormer(model.config).double()
    judge.load_state_dict(model.state_dict())
    with torch.no_grad():
        return judge(picture)


@cache
def pictures_and_answers(variant: str) -> tuple[Restormer, list[tuple[torch.Tensor, torch.Tensor]]]:
    """The network, and pictures of three shapes with what it makes of each; the tests change neither."""
    model = network(**VARIANTS[variant])
    pictures = [
        torch.rand(1, model.config.in_channels, *size, dtype=torch.float64)
        for size in ((8, 8), (3 * 8, 7 * 8), (5 * 8, 2 * 8))
    ]
    return model, [(picture, textbook(model, picture)) for picture in pictures]


@pytest.mark.parametrize("keep_v", [True, False], ids=["v kept", "v recomputed"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_strips_equal_the_whole_image(variant, keep_v):
    model, pictures = pictures_and_answers(variant)
    ways = [(24_000, None, 7), (2_500, 16, 1), (1 << 30, 5, 3)]
    if not keep_v:
        ways = ways[1:] + ways[:1]  # every size meets two of them
    for (picture, expected), (strip_bytes, band, threads) in zip(pictures, ways, strict=True):
        scale = expected.abs().max().item()
        strips = StripNetwork(model, torch.float64, strip_bytes=strip_bytes, band=band, threads=threads)
        result = strips.run(picture, keep_v)
        assert (result - expected).abs().max().item() <= 1e-12 * max(1, scale)


@pytest.mark.parametrize("keep_v", [True, False], ids=["v kept", "v recomputed"])
def test_strips_of_a_single_row_and_bands_of_a_single_column(keep_v):
    model = network(bias=True)
    picture = torch.rand(1, 3, 16, 8, dtype=torch.float64)
    expected = textbook(model, picture)
    result = StripNetwork(model, torch.float64, strip_bytes=1, band=1).run(picture, keep_v)
    assert (result - expected).abs().max().item() <= 1e-12 * max(1, expected.abs().max().item())


@pytest.mark.parametrize("size", [(8, 8), (8, 1024), (1024, 8), (104, 152)])
def test_float32_strips_are_no_farther_from_the_truth_than_the_float32_textbook(size):
    model = network()
    picture = torch.rand(1, 3, *size, dtype=torch.float64)
    truth = textbook(model, picture)
    judge = TextbookRestormer(model.config)
    judge.load_state_dict(model.state_dict())
    with torch.no_grad():
        allowed = (judge(picture.float()) - truth).abs().max().item()
    result = StripNetwork(model.float()).run(picture.float())
    assert (result - truth).abs().max().item() <= max(2e-6, 2 * allowed)


def test_bfloat16_stays_close():
    model = Restormer(ModelConfig(dim=16, blocks=(1, 1, 1, 1), refinement=1)).eval()
    picture = torch.rand(1, 3, 64, 72)
    exact, rounded = StripNetwork(model).run(picture), StripNetwork(model, torch.bfloat16).run(picture)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).square().mean().sqrt().item() < 0.01


def test_the_model_is_never_changed():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    picture = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    kept = picture.clone()
    StripNetwork(model, torch.float64).run(picture)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(picture, kept)


def test_hidden_operators_change_nothing(monkeypatch):
    model = network(bias=True).float()
    picture = torch.rand(1, 3, 24, 40)
    caches = (packed.has_onednn, packed.prefers_onednn)
    fast = StripNetwork(model, native=False).run(picture)
    for cached in caches:
        cached.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(packed.torch.ops, "mkldnn", object())
        plain = StripNetwork(model, native=False)
        assert isinstance(plain.transitions, StripTransitions)
        assert not plain.transitions.first.packed
        assert not plain.transitions.reductions["reduce_chan_level3"].packed
        result = plain.run(picture)
    for cached in caches:
        cached.cache_clear()
    assert (result - fast).abs().max().item() <= 1e-5 * fast.abs().max().item()


def test_a_sum_onto_bfloat16_is_rounded_once():
    """x + W v in bfloat16 is the exact sum, rounded: not the rounded product, added and rounded again."""
    generator = torch.Generator().manual_seed(3)
    x, v, weight = (torch.randn(size, generator=generator).bfloat16() for size in ((32, 1, 32), (32, 1, 32), (32, 32)))
    once = (x.double() + v.double() @ weight.double().T).bfloat16()
    twice = x + (v.double() @ weight.double().T).bfloat16()
    result = PackedLinear(weight, None, torch.bfloat16)(v, onto=x)
    assert (result != once).sum() < 0.2 * (twice != once).sum()


def local(model: Restormer, picture: torch.Tensor, window: int) -> torch.Tensor:
    """TLC written directly: every window its own softmax, outputs averaged where windows overlap."""

    def starts(side, size):
        count = math.ceil(side / size)
        step = math.ceil((side - size) / (count - 1)) if count > 1 else 0
        return [min(index * step, side - size) for index in range(count)]

    def attend(attention, x):
        scale = picture.shape[2] // x.shape[2]
        (height, width), size = x.shape[2:], window // scale
        qkv = attention.qkv_dwconv(attention.qkv(x))
        total, covered = torch.zeros_like(x), torch.zeros_like(x)
        rows, columns = min(size, height), min(size, width)
        for top in starts(height, rows):
            for left in starts(width, columns):
                part = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
                q, k, v = (
                    t.reshape(attention.heads, -1, rows * columns) for t in qkv[part].contiguous().chunk(3, dim=1)
                )
                q, k = (torch.nn.functional.normalize(t, dim=-1) for t in (q, k))
                mixed = (q @ k.mT * attention.temperature).softmax(-1) @ v
                total[part] += mixed.reshape(1, -1, rows, columns)
                covered[part] += 1
        return attention.project_out(total / covered)

    judge = TextbookRestormer(model.config).double()
    judge.load_state_dict(model.state_dict())
    for module in judge.modules():
        if isinstance(module, TransposedAttention):
            module.forward = partial(attend, module)  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        return judge(picture)


@cache
def windowed(size: tuple[int, int], window: int) -> tuple[Restormer, torch.Tensor, torch.Tensor]:
    """A network, a picture, and what it makes of it, window by window; the tests change neither."""
    blocks = (1, 1, 1, 1) if max(size) < 90 else (1, 0, 0, 1)
    model = network(bias=True, blocks=blocks, refinement=0)
    picture = torch.rand(1, 3, *size, dtype=torch.float64)
    expected = local(model, picture, window)
    if window < max(size):
        assert (expected - textbook(model, picture)).abs().max().item() > 1e-6
    return model, picture, expected


@pytest.mark.parametrize("keep_v", [True, False], ids=["v kept", "v recomputed"])
@pytest.mark.parametrize(
    ("size", "window"), [((48, 72), 32), ((40, 88), 24), ((72, 16), 40), ((24, 24), 64), ((104, 8), 16)]
)
def test_cells_equal_windows_computed_one_by_one(size, window, keep_v):
    model, picture, expected = windowed(size, window)
    for strip_bytes, band in ((10_500, 12), (1 << 30, None)):
        strips = StripNetwork(model, torch.float64, window=window, strip_bytes=strip_bytes, band=band, threads=6)
        result = strips.run(picture, keep_v)
        assert (result - expected).abs().max().item() <= 1e-12 * max(1, expected.abs().max().item())


@pytest.mark.parametrize("cuts", [[9], [1] * 9, [2, 3, 4], [8, 1]])
@pytest.mark.parametrize("wanted", [(0, 9), (0, 4), (3, 8), (1, 7), (5, 9)])
def test_rolling_computes_every_wanted_row_once_and_in_order(wanted, cuts):
    point = torch.randn(3, 2, dtype=torch.float64)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64)
    rows = torch.randn(9, 7, 2, dtype=torch.float64)  # the first and the last column lie beyond the map
    product = PackedLinear(point, torch.ones(3, dtype=torch.float64), torch.float64, (1, 2))
    layers = tuple(PackedConv(part, None, torch.float64, depthwise=True) for part in weight.split((1, 2)))
    walk = BlockPasses(None, rows[:, 1:-1], None, Cells.of(9, 5, None), 9)  # pyright: ignore[reportArgumentType]
    rolling = LineBuffer(product, layers, wanted, Band(0, 5, 5), walk)
    first, last = max(wanted[0] - 1, 0), min(wanted[1] + 1, 9)
    parts, at = [], first
    for count in cuts:
        count = min(count, last - at)
        if count == 0:
            break
        done, start, end = rolling.push(rows[at : at + count], at, at + count)
        at += count
        assert start == wanted[0] + sum(len(part) for part in parts)
        assert end == (9 if at == wanted[1] == 9 else max(wanted[0], at - 1))
        if done:
            parts.append(torch.cat(done, dim=-1))
            assert end == start + len(parts[-1])
    products = (rows[:, 1:-1] @ point.T + 1).permute(2, 0, 1)
    expected = torch.nn.functional.conv2d(products[None], weight, padding=1, groups=3)[0].permute(1, 2, 0)
    assert torch.allclose(torch.cat(parts), expected[slice(*wanted)], atol=1e-12)
