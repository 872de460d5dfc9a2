"""The fast network is the textbook one: same keys, same numbers, same gradients."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restormer_cli.model import restormer as module
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import GDFN, MDTA, Gram, LayerNorm, Level, Restormer
from restormer_cli.model.textbook import TextbookRestormer

# Twice a prime, heads that differ at every level: a swapped field does not fit.
PRIME: dict[str, Any] = {"dim": 2 * 7, "blocks": (2, 3, 5, 7), "heads": (2, 7, 4, 14), "refinement": 3}
SMALL: dict[str, Any] = {"dim": 2 * 3, "blocks": (1, 1, 1, 1), "heads": (3, 2, 4, 1), "refinement": 1}
CHANNELS = {False: {"in_channels": 3}, True: {"in_channels": 6, "dual_pixel": True}}


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Every parameter away from what it starts as (norms at 1, biases at 0 would hide mistakes)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.normal_(0, 0.5 * fan_in**-0.5, generator=generator)


def networks(config: ModelConfig) -> tuple[Restormer, TextbookRestormer]:
    """Both networks in float64 with the same random weights."""
    fast, textbook = Restormer(config).double(), TextbookRestormer(config).double()
    randomise(fast)
    textbook.load_state_dict(fast.state_dict(), strict=True)
    return fast, textbook


def picture(config: ModelConfig, h: int = 16, w: int = 24, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, config.in_channels, h, w, dtype=torch.float64, generator=generator)


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of a lopsided sum of the output, so that no symmetry hides a transposition; the input's is under "x"."""
    x = x.clone().requires_grad_(True)
    y = model(x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape).sin()
    (y * weight).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters()} | {"x": x.grad, "y": y.detach()}
    assert all(grad is not None for grad in found.values()), [k for k, v in found.items() if v is None]
    return {name: grad for name, grad in found.items() if grad is not None}


def assert_same_network(config: ModelConfig, x: Tensor) -> None:
    fast, textbook = networks(config)
    ours, theirs = gradients(fast, x), gradients(textbook, x)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.abs().max() > 0, f"{name} is all zero: the test shows nothing"
        scale = max(1.0, float(theirs[name].abs().max()))
        assert (value - theirs[name]).abs().max() <= 1e-10 * scale, name
    assert (ours["y"] - theirs["y"]).abs().max() <= 1e-10


@pytest.mark.parametrize(("norm", "bias", "dual_pixel"), [("with-bias", False, False), ("bias-free", True, True)])
def test_output_and_gradients_equal_the_textbook(norm: Any, bias: bool, dual_pixel: bool) -> None:
    """At a shape without equal fields; all other combinations are below, at a smaller one."""
    config = ModelConfig(**PRIME, norm=norm, bias=bias, **CHANNELS[dual_pixel])
    assert_same_network(config, picture(config, 8, 24, batch=1))


@pytest.mark.parametrize("attention", ["mdta", "mta"])
@pytest.mark.parametrize("feed_forward", ["gdfn", "gfn", "dfn", "fn"])
@pytest.mark.parametrize("concat", [True, False])
def test_every_variant_equals_the_textbook(attention: Any, feed_forward: Any, concat: bool) -> None:
    """With half of the combinations of the other three: of any two, all four meet."""
    for norm, bias in itertools.product(("with-bias", "bias-free"), (False, True)):
        dual_pixel = bias == (norm == "with-bias")
        config = ModelConfig(
            **SMALL,
            **CHANNELS[dual_pixel],
            norm=norm,  # pyright: ignore[reportArgumentType]
            bias=bias,
            attention=attention,
            feed_forward=feed_forward,
            concat=concat,
        )
        assert_same_network(config, picture(config, 8, 16))


@pytest.mark.parametrize(
    "options",
    [
        {"refinement": 0},
        {"refinement": 0, "concat": False},
        {"refinement": 0, "blocks": (0, 2, 1, 0)},
        {"dim": 2 * 5, "heads": (5, 2, 10, 4), "expansion": 2.53},
        {"dim": 2 * 11, "heads": (1, 11, 2, 22), "expansion": 1},
        {"in_channels": 1, "out_channels": 1},
        {"in_channels": 2, "out_channels": 1, "dual_pixel": True},
        {"in_channels": 5, "out_channels": 5},
    ],
)
def test_other_shapes_equal_the_textbook(options: dict[str, Any]) -> None:
    config = ModelConfig(**{**SMALL, **options})
    assert_same_network(config, picture(config, 24, 8))


def test_a_batch_is_its_pictures_one_by_one() -> None:
    config = ModelConfig(**SMALL)
    fast, _ = networks(config)
    x = picture(config, batch=3)
    assert (fast(x) - torch.cat([fast(one[None]) for one in x])).abs().max() <= 1e-12


def test_single_precision_stays_near_the_textbook() -> None:
    config = ModelConfig(**SMALL)
    fast, textbook = networks(config)
    x = picture(config)
    assert (fast.float()(x.float()) - textbook(x)).abs().max() <= 1e-4


@pytest.mark.parametrize("bias", [False, True])
def test_single_precision_gradients_stay_near_the_textbook(bias: bool) -> None:
    """Single precision has products of its own (oneDNN's), which the float64 tests do not reach."""
    config = ModelConfig(**SMALL, bias=bias)
    fast, textbook = networks(config)
    x = picture(config)
    ours, theirs = gradients(fast.float(), x.float()), gradients(textbook, x)
    for name, value in ours.items():
        assert (value - theirs[name]).abs().max() <= 1e-4 * max(1.0, float(theirs[name].abs().max())), name


def test_a_batch_trained_a_few_pictures_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(**SMALL)
    fast, _ = networks(config)
    x = picture(config, batch=3)
    whole = gradients(fast, x)
    sizes: list[int] = []
    original = Restormer._restore

    def watched(self: Restormer, few: Tensor) -> Tensor:
        sizes.append(few.shape[0])
        return original(self, few)

    monkeypatch.setattr(Restormer, "_restore", watched)
    monkeypatch.setattr(module, "BLOCK_BYTES", 2 * 16 * 24 * config.hidden(config.level1_channels) * 8)
    fast.zero_grad()
    parts = gradients(fast, x)
    assert sizes == [2, 1]
    assert all((whole[name] - parts[name]).abs().max() <= 1e-12 * max(1, whole[name].abs().max()) for name in whole)
    with torch.no_grad():
        fast(x)
    assert sizes == [2, 1, 3]


def test_bias_free_norm_is_not_centred() -> None:
    norm = LayerNorm(2, "bias-free").double()
    with torch.no_grad():
        norm.body.weight.copy_(torch.tensor([2.0, 3.0]))
    x = torch.tensor([[[[5.0, 9.0]]]], dtype=torch.float64)  # mean 7, variance 4: biased, as published
    expected = torch.tensor([5 * 2, 9 * 3], dtype=torch.float64) / (4 + 1e-5) ** 0.5
    assert (norm(x).flatten() - expected).abs().max() <= 1e-12
    assert set(norm.state_dict()) == {"body.weight"}


def test_with_bias_norm_is_centred() -> None:
    norm = LayerNorm(2, "with-bias").double()
    with torch.no_grad():
        norm.body.weight.copy_(torch.tensor([2.0, 3.0]))
        assert norm.body.bias is not None
        norm.body.bias.copy_(torch.tensor([0.5, 0.25]))
    x = torch.tensor([[[[5.0, 9.0]]]], dtype=torch.float64)
    expected = torch.tensor([-2 * 2, 2 * 3], dtype=torch.float64) / (4 + 1e-5) ** 0.5
    expected += torch.tensor([0.5, 0.25], dtype=torch.float64)
    assert (norm(x).flatten() - expected).abs().max() <= 1e-12


def test_a_zeroed_output_convolution_gives_the_input_back() -> None:
    config = ModelConfig(**SMALL)
    fast, textbook = networks(config)
    x = picture(config)
    for model in (fast, textbook):
        nn.init.zeros_(model.output.weight)
        assert torch.equal(model(x), x)


def test_dual_pixel_has_no_global_residual() -> None:
    config = ModelConfig(**SMALL, in_channels=6, dual_pixel=True)
    fast, textbook = networks(config)
    for model in (fast, textbook):
        nn.init.zeros_(model.output.weight)
        y = model(picture(config))
        assert y.shape == (2, 3, 16, 24)
        assert not y.any()


def test_gram_adds_up_over_two_halves_of_the_rows() -> None:
    attention = MDTA(12, heads=3, config=ModelConfig()).double()
    randomise(attention)
    generator = torch.Generator().manual_seed(2)
    q, k = torch.randn(2, 2, 11, 5, 12, dtype=torch.float64, generator=generator)
    whole = attention.gram(q, k)
    parts = [attention.gram(q[:, rows], k[:, rows]) for rows in (slice(0, 4), slice(4, 11))]
    assert [tuple(entry.shape) for entry in whole] == [(2, 3, 4, 4), (2, 3, 4), (2, 3, 4)]
    added = Gram(*(a + b for a, b in zip(*parts, strict=True)))
    for one, other in zip(whole, added, strict=True):
        assert (one - other).abs().max() <= 1e-10
    assert (attention.matrix(whole) - attention.matrix(added)).abs().max() <= 1e-12


def test_an_all_zero_channel_has_finite_gradients() -> None:
    config = ModelConfig(**SMALL)
    model = Restormer(config)
    randomise(model)
    with torch.no_grad():
        model.encoder_level1[0].attn.qkv.weight[0] = 0  # the first channel of q  # pyright: ignore
        model.latent[0].attn.qkv.weight[8 * 6 + 1] = 0  # the second of k  # pyright: ignore
    found = gradients(model, picture(config).float())
    assert all(torch.isfinite(grad).all() for grad in found.values())


@pytest.mark.parametrize("norm", ["with-bias", "bias-free"])
def test_a_black_picture_has_finite_gradients(norm: Any) -> None:
    config = ModelConfig(**SMALL, norm=norm)
    model = Restormer(config)
    found = gradients(model, torch.zeros(1, 3, 8, 8))
    assert all(torch.isfinite(grad).all() for grad in found.values())


def official_keys(config: ModelConfig) -> set[str]:
    """The names of facts.md §1, written from there and not from the code."""
    norms = ["norm1.body.weight", "norm2.body.weight"]
    if config.norm == "with-bias":
        norms += ["norm1.body.bias", "norm2.body.bias"]
    layers = ["attn.qkv", "attn.qkv_dwconv", "attn.project_out", "ffn.project_in", "ffn.dwconv", "ffn.project_out"]
    block = [*norms, "attn.temperature", *(f"{layer}.weight" for layer in layers)]
    if config.bias:
        block += [f"{layer}.bias" for layer in layers]
    counts = {
        "encoder_level1": config.blocks[0],
        "encoder_level2": config.blocks[1],
        "encoder_level3": config.blocks[2],
        "latent": config.blocks[3],
        "decoder_level3": config.blocks[2],
        "decoder_level2": config.blocks[1],
        "decoder_level1": config.blocks[0],
        "refinement": config.refinement,
    }
    keys = {f"{level}.{n}.{name}" for level, count in counts.items() for n in range(count) for name in block}
    keys |= {"patch_embed.proj.weight", "output.weight", "reduce_chan_level3.weight", "reduce_chan_level2.weight"}
    keys |= {f"{name}.body.0.weight" for name in ("down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1")}
    if config.dual_pixel:
        keys.add("skip_conv.weight")
    if config.bias:
        keys |= {"output.bias", "reduce_chan_level3.bias", "reduce_chan_level2.bias"}
        keys |= {"skip_conv.bias"} if config.dual_pixel else set()
    return keys


@pytest.mark.parametrize("norm", ["with-bias", "bias-free"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dual_pixel", [False, True])
def test_keys_are_exactly_the_official_ones(norm: Any, bias: bool, dual_pixel: bool) -> None:
    config = ModelConfig(**PRIME, norm=norm, bias=bias, **CHANNELS[dual_pixel])
    with torch.device("meta"):
        assert set(Restormer(config).state_dict()) == official_keys(config)
        assert set(TextbookRestormer(config).state_dict()) == official_keys(config)


def test_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = Restormer(ModelConfig(in_channels=6, dual_pixel=True)).state_dict()
    shapes = {
        "patch_embed.proj.weight": (48, 6, 3, 3),
        "encoder_level1.3.norm1.body.bias": (48,),
        "encoder_level2.5.attn.temperature": (2, 1, 1),
        "encoder_level3.5.attn.qkv.weight": (576, 192, 1, 1),
        "latent.7.attn.qkv_dwconv.weight": (1152, 1, 3, 3),
        "latent.0.ffn.project_in.weight": (2042, 384, 1, 1),  # int(384 · 2.66) = 1021
        "latent.0.ffn.project_out.weight": (384, 1021, 1, 1),
        "down1_2.body.0.weight": (24, 48, 3, 3),
        "up4_3.body.0.weight": (768, 384, 3, 3),
        "reduce_chan_level3.weight": (192, 384, 1, 1),
        "decoder_level1.3.attn.project_out.weight": (96, 96, 1, 1),
        "refinement.3.ffn.dwconv.weight": (510, 1, 3, 3),
        "skip_conv.weight": (96, 48, 1, 1),
        "output.weight": (3, 96, 3, 3),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize(
    "shape", [(1, 1, 16, 16), (1, 6, 16, 16), (1, 3, 12, 16), (1, 3, 16, 9), (1, 3, 0, 8), (1, 3, 8, 0)]
)
def test_a_wrong_input_is_a_value_error(shape: tuple[int, ...]) -> None:
    model = Restormer(ModelConfig(**SMALL))
    with pytest.raises(ValueError, match=r"needs 3 channels, h and w multiples of 8"):
        model(torch.zeros(shape))


def test_activation_checkpointing_gives_identical_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(**{**SMALL, "blocks": (1, 2, 1, 1)})
    model = Restormer(config).double()
    randomise(model)
    x = picture(config)
    plain = gradients(model, x)
    runs = 0
    original = GDFN.forward

    def counted(self: GDFN, x: Tensor, normed: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return original(self, x, normed)

    monkeypatch.setattr(GDFN, "forward", counted)
    levels = [module for module in model.modules() if isinstance(module, Level)]
    blocks = sum(len(level) for level in levels)
    for level in levels:
        level.checkpointing = True
    model.zero_grad()
    recomputed = gradients(model, x)
    assert runs == 2 * blocks  # forward, and once more in the backward pass
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
    model.eval()
    runs = 0
    with torch.no_grad():
        model(x)
    assert runs == blocks
