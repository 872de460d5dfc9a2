"""Arms by name: the published networks to the digit, the compact ones as the search finds them, and every typing
mistake told with its cure."""

import re
import sys
from functools import cache
from pathlib import Path

import pytest

from restormer_cli.commands.ablate import arms
from restormer_cli.commands.ablate.arms import Spec, network, parse_arms, published, split_arguments
from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.cost import Operations, count_operations, count_parameters

MEASURE = Path(__file__).resolve().parents[3] / "scripts" / "measure"
sys.path.insert(0, str(MEASURE))
try:
    import compact_arms
finally:
    sys.path.remove(str(MEASURE))

# facts: parameters, convolution GMACs, all GMACs where given, PSNR at σ 50, whether only recalled
PUBLISHED = [
    (("mta", "fn"), 24_841_008, 83.746, None, 29.28, False),
    (("fn",), 24_841_008, 83.746, None, 29.28, False),
    (("mdta", "fn"), 25_027_632, 85.274, None, 29.43, False),
    (("gfn",), 24_794_928, 83.529, None, 29.40, True),
    (("dfn",), 25_089_840, 85.784, None, 29.42, False),
    (("gdfn",), 25_125_480, 86.231, None, 29.54, False),
    (("mta",), 25_125_480, 86.231, None, 29.54, False),
    (("mdta",), 25_312_104, 87.760, None, 29.62, False),
    (("no-concat",), 25_312_104, 87.760, None, 29.62, False),
    (("concat",), 25_655_160, 110.192, None, 29.66, False),
    (("no-refinement",), 25_655_160, 110.192, None, 29.66, False),
    (("refinement",), 26_126_644, 140.990, None, 29.71, False),
    (("deep-narrow",), 26_126_644, 140.990, 154.88, 29.71, False),
    (("middle",), 26_025_773, 142.745, 157.24, 29.63, True),
    (("wide-shallow",), 25_206_765, 147.706, 164.69, 29.56, True),
]


@cache
def counted(config: ModelConfig) -> tuple[int, Operations]:
    """Parameters and work, by running the network without numbers; some arms are the same network."""
    return count_parameters(config), count_operations(config, 256, 256)


@pytest.mark.parametrize(("names", "parameters", "conv", "everything", "psnr", "recalled"), PUBLISHED, ids=str)
def test_arms_at_paper_scale_are_the_published_ones_to_the_digit(names, parameters, conv, everything, psnr, recalled):
    count, work = counted(ModelConfig(**network(names, "paper")))
    assert count == parameters
    assert round(work.conv_macs / 1e9, 3) == conv
    if everything is not None:
        assert round(work.macs / 1e9, 2) == everything
    figure = published(names)
    assert figure is not None
    assert (figure.psnr, figure.recalled) == (psnr, recalled)


def test_progressive_has_its_own_figure_and_what_was_not_published_has_none():
    assert published(("progressive",)) == arms.Figure(29.78)
    assert published(("fixed-patch",)) == arms.Figure(29.71)
    for names in (("bias-free",), ("local",), ("mdta", "gfn"), ("wide-shallow", "mta"), ("progressive", "bias-free")):
        assert published(names) is None


def test_choices_change_what_they_say():
    assert network(("bias-free",), "paper")["norm"] == "bias-free"
    assert network(("with-bias",), "paper")["norm"] == "with-bias"
    assert network(("global",), "paper") == network(("local",), "paper") == network(("progressive",), "paper")
    assert network(("no-concat", "refinement"), "paper") | {"concat": True} == network(("deep-narrow",), "paper") | {
        "concat": True
    }
    wide = network(("wide-shallow", "fn"), "paper")
    assert (wide["dim"], wide["refinement"], wide["attention"], wide["feed_forward"]) == (80, 3, "mdta", "fn")
    assert wide["expansion"] == 3.01  # 2.0 · 4 / 2.66: as wide as a plain one has to be
    assert "concat" not in wide


@pytest.mark.parametrize("scale", ["paper", "compact"])
@pytest.mark.parametrize(
    "names", [("wide-shallow",), ("dfn",), ("no-concat",), ("middle", "mta", "gfn", "bias-free")], ids=str
)
def test_costs_are_those_that_are_counted(scale, names):
    config = ModelConfig(**network(names, scale))
    work, found = count_operations(config, 256, 256), compact_arms.cost(config)
    assert (found.parameters, found.conv_macs, found.macs) == (count_parameters(config), work.conv_macs, work.macs)


# --- The compact arms -----------------------------------------------------------------------------------------


def test_the_committed_arms_are_what_the_search_finds():
    assert compact_arms.compact_shapes() == arms.SHAPES["compact"]
    assert compact_arms.compact_expansions() == arms.EXPANSIONS["compact"]


def test_compact_shapes_relate_as_the_published_ones_do():
    paper, small = arms.SHAPES["paper"], arms.SHAPES["compact"]
    for name in paper:
        assert small[name]["dim"] * 4 == paper[name]["dim"]
        assert (small[name]["blocks"], small[name]["refinement"]) == (paper[name]["blocks"], paper[name]["refinement"])
    deep = compact_arms.cost(ModelConfig(**small["deep-narrow"]))
    for name in ("middle", "wide-shallow"):
        proportions = compact_arms.cost(ModelConfig(**small[name])).proportions(deep)
        assert all(abs(proportion - 1) < 0.05 for proportion in proportions), (name, proportions)


def test_the_search_would_find_the_published_expansion():
    """A search that is told the published proportions at the published width comes out where the paper is."""
    wide = arms.SHAPES["paper"]["wide-shallow"]
    deep = compact_arms.cost(ModelConfig(**arms.SHAPES["paper"]["deep-narrow"]))
    wanted = compact_arms.cost(ModelConfig(**wide)).proportions(deep)
    assert compact_arms._best_expansion(wide | {"expansion": 1.0}, deep, wanted) == 2.0


# --- The command line -----------------------------------------------------------------------------------------

OPTIONS = {"--seeds": True, "--plan": False, "--help": False, "--out": True}


@pytest.mark.parametrize(
    ("typed", "ours", "words"),
    [
        ("--deep-narrow vs --wide-shallow", "", "--deep-narrow vs --wide-shallow"),
        ("--deep-narrow --seeds 3 vs --plan --wide-shallow", "--seeds 3 --plan", "--deep-narrow vs --wide-shallow"),
        ("--seeds=3 a.toml vs --arm w:model.dim=2 --out vs", "--seeds=3 --out vs", "a.toml vs --arm w:model.dim=2"),
        ("--seeds", "--seeds", ""),
        ("--plan -- --seeds vs", "--plan", "--seeds vs"),
        ("--sedes 3 vs --mta", "", "--sedes 3 vs --mta"),
    ],
)
def test_the_raw_argument_list_keeps_the_order_of_arms(typed, ours, words):
    assert split_arguments(typed.split(), OPTIONS) == (ours.split(), words.split())


def test_flags_between_two_vs_are_one_arm_and_the_order_is_the_one_given():
    specs = parse_arms(["--wide-shallow", "VS", "--mta", "--fn", "vs", "--deep-narrow"])
    assert [spec.name for spec in specs] == ["wide-shallow", "mta+fn", "deep-narrow"]
    assert specs[1].choices == ("mta", "fn")


def test_recipes_and_arms_of_ones_own():
    specs = parse_arms(["compact/denoise", "vs", "a/b.toml", "vs", "--arm=w:model.blocks=[1, 2, 2, 2],seed=3"])
    assert specs[0] == Spec("compact-denoise", recipe="compact/denoise")
    assert specs[1] == Spec("a-b", recipe="a/b.toml")
    assert specs[2] == Spec("w", changes=("model.blocks=[1, 2, 2, 2]", "seed=3"))


EXAMPLE = re.escape("restormer ablate --deep-narrow vs --wide-shallow")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", f"no arms: name two, such as {EXAMPLE}"),
        ("vs", f"no arms: name two, such as {EXAMPLE}"),
        ("--mta", f"mta: is one arm only: put vs and another behind it, as in {EXAMPLE}"),
        ("--mdta --mta", "--mdta --mta: one arm cannot be both; two arms are --mdta vs --mta"),
        ("--mdta vs vs --mta", "there is no arm between two vs: write ARM vs ARM"),
        ("vs --mdta vs --mta", "there is no arm before the first vs"),
        ("--mdta vs --mta vs", "there is no arm behind the last vs"),
        ("--mdta vs", "there is no arm behind the last vs"),
        ("--mdta vs --mdta", "mdta: is there twice"),
        ("--mdta vs --mta vs --mdta", "mdta: is there twice"),
        ("--deep-narow vs --middle", r"no arm or option --deep-narow: did you mean --deep-narrow\?"),
        ("--mta vs --fn --sedes 3", r"no arm or option --sedes: did you mean --seeds\?"),
        ("--qqqqqq vs --mta", "no arm or option --qqqqqq: there are --deep-narrow, --middle"),
        ("deep-narrow vs --mta", "deep-narrow: arms are flags: write --deep-narrow"),
        ("deep-narow vs --mta", r"deep-narow: no recipe of that name, nor an arm: did you mean --deep-narrow\?"),
        ("--mta a.toml vs --fn", "--mta a.toml: a recipe or --arm is an arm by itself: put vs between them"),
        ("--mta vs --arm", "--arm : write NAME:KEY=VALUE"),
        ("--mta vs --arm w", "--arm w: write NAME:KEY=VALUE"),
        ("--mta vs --arm a/b:seed=1", "--arm a/b:seed=1: write NAME:KEY=VALUE"),
        ("--mta vs --arm mdta:seed=1", "--arm mdta:seed=1: mdta is an arm already"),
        ("--mta vs --arm w:dim", "--arm w:dim: dim is not KEY=VALUE"),
    ],
)
def test_what_is_wrong_with_arms_is_told(typed, message):
    with pytest.raises(UserError, match=message):
        parse_arms(typed.split(), ("--seeds", "--out"))
