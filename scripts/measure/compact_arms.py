"""How the compact arms are found: the published ones, shrunken so that the same relations hold.

    python scripts/measure/compact_arms.py      # prints what the search finds, as arms.py has it, and how near it comes

Widths are the published ones over 4 and depths are the published ones, so that an arm is as much wider and as much
shallower than another as in the paper. But depth-wise convolutions, norms and temperatures grow with the channels,
products with their square, so in narrow networks the published expansions no longer make equal budgets. The expansion
(which is what the paper too adjusts: 2.66, 2.53, 2.0) is therefore searched anew in steps of 0.01:

- middle and wide-shallow: what brings parameters, convolutions and all operations closest to deep-narrow's;
- a row of Table 7: what brings them closest to the published proportions to MDTA + GDFN.

Closest is the smallest largest deviation of the three, in proportion. No torch: costs are closed forms
(test_costs_are_those_that_are_counted), so the search takes a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pprint import pprint
from typing import Any

from restormer_cli.commands.ablate.arms import EXPANSIONS, SHAPES
from restormer_cli.model.config import ModelConfig

NARROWER = 4
SIDE = 256
STEPS = range(100, 501)
"""Expansions in hundredths."""


@dataclass(frozen=True)
class Cost:
    """What a network costs: numbers to learn, and multiply-accumulates for one picture of 256²."""

    parameters: int
    conv_macs: int
    macs: int

    def proportions(self, other: "Cost") -> tuple[float, float, float]:
        """This over the other."""
        return (
            self.parameters / other.parameters,
            self.conv_macs / other.conv_macs,
            self.macs / other.macs,
        )


def cost(config: ModelConfig) -> Cost:
    """The cost of a network without biases and of one view, by arithmetic."""
    c, pixels = config.dim, SIDE * SIDE
    blocks, heads = config.blocks, config.heads
    parameters = conv = attention = 0
    for channels, head_count, count, smaller in (
        (c, heads[0], blocks[0], 1),
        (2 * c, heads[1], 2 * blocks[1], 4),
        (4 * c, heads[2], 2 * blocks[2], 16),
        (8 * c, heads[3], blocks[3], 64),
        (config.level1_channels, heads[0], blocks[0] + config.refinement, 1),
    ):
        weights = _block_weights(config, channels)
        norms = 2 * channels * (2 if config.norm == "with-bias" else 1)
        parameters += count * (weights + norms + head_count)
        conv += count * weights * pixels // smaller
        attention += count * 2 * channels * channels // head_count * pixels // smaller
    for weights, smaller in (
        (9 * config.in_channels * c + 9 * config.level1_channels * config.out_channels, 1),
        (9 * c * c // 2 + (0 if config.concat else 2 * c * c), 1),
        (9 * 2 * c * c + 9 * 2 * c * 4 * c + 4 * c * 2 * c, 4),
        (9 * 4 * c * 2 * c + 9 * 4 * c * 8 * c + 8 * c * 4 * c, 16),
        (9 * 8 * c * 16 * c, 64),
    ):  # patch embedding and output; reduction, and resampling at each level: n -> n/2 down, n -> 2n up
        parameters += weights
        conv += weights * pixels // smaller
    return Cost(parameters, conv, conv + attention)


def _block_weights(config: ModelConfig, channels: int) -> int:
    """Weights of a block's convolutions."""
    hidden = config.hidden(channels)
    wide = 2 * hidden if config.feed_forward in ("gdfn", "gfn") else hidden
    attention = 4 * channels * channels + (27 * channels if config.attention == "mdta" else 0)
    feed_forward = channels * (wide + hidden) + (9 * wide if config.feed_forward in ("gdfn", "dfn") else 0)
    return attention + feed_forward


def compact_shapes() -> dict[str, dict[str, Any]]:
    """The compact network of each shape."""
    published = SHAPES["paper"]
    narrow = {name: shape | {"dim": shape["dim"] // NARROWER} for name, shape in published.items()}
    target = cost(ModelConfig(**narrow["deep-narrow"]))
    equal = (1.0, 1.0, 1.0)
    return {
        name: shape if name == "deep-narrow" else shape | {"expansion": _best_expansion(shape, target, equal)}
        for name, shape in narrow.items()
    }


def compact_expansions() -> dict[tuple[str, str], float]:
    """The compact expansion of each row of Table 7."""
    paper, small = (
        {**shapes["deep-narrow"], "concat": False, "refinement": 0} for shapes in (SHAPES["paper"], compact_shapes())
    )
    there, here = (cost(ModelConfig(**model)) for model in (paper, small))
    found = {}
    for (attention, feed_forward), expansion in EXPANSIONS["paper"].items():
        kind: dict[str, Any] = {"attention": attention, "feed_forward": feed_forward}
        published: dict[str, Any] = paper | kind | {"expansion": expansion}
        wanted = cost(ModelConfig(**published)).proportions(there)
        found[attention, feed_forward] = _best_expansion(small | kind, here, wanted)
    return found


def _best_expansion(model: Mapping[str, Any], target: Cost, wanted: tuple[float, float, float]) -> float:
    """The expansion whose costs, over the target's, deviate least from the wanted proportions."""
    start = ModelConfig(**model)

    def deviation(hundredths: int) -> float:
        proportions = cost(replace(start, expansion=hundredths / 100)).proportions(target)
        return max(abs(ours / theirs - 1) for ours, theirs in zip(proportions, wanted, strict=True))

    return min(STEPS, key=deviation) / 100


def main() -> None:
    shapes, expansions = compact_shapes(), compact_expansions()
    pprint(shapes, sort_dicts=False)
    pprint(expansions, sort_dicts=False)
    deep = ModelConfig(**shapes["deep-narrow"])
    print("\nparameters, convolution MACs, all MACs at 256²; over deep-narrow's")
    for name, shape in shapes.items():
        found = cost(ModelConfig(**shape))
        over = ", ".join(f"{ratio:.3f}" for ratio in found.proportions(cost(deep)))
        print(f"{name:12}  {found.parameters:,}  {found.conv_macs:,}  {found.macs:,}; {over}")
    print("\nthe rows of Table 7 over MDTA + GDFN; published, in brackets")
    for (attention, feed_forward), expansion in expansions.items():
        ours, theirs = (
            cost(row(model, attention, feed_forward, value)).proportions(cost(row(model, "mdta", "gdfn", 2.66)))
            for model, value in ((deep, expansion), (ModelConfig(), EXPANSIONS["paper"][attention, feed_forward]))
        )
        pairs = ", ".join(f"{a:.3f} ({b:.3f})" for a, b in zip(ours, theirs, strict=True))
        print(f"{attention.upper()} + {feed_forward.upper()}: {pairs}")


def row(model: ModelConfig, attention: str, feed_forward: str, expansion: float) -> ModelConfig:
    """A row of Table 7 in a width."""
    rest = {"attention": attention, "feed_forward": feed_forward, "expansion": expansion}
    return ModelConfig(**{**model.to_dict(), "concat": False, "refinement": 0, **rest})


if __name__ == "__main__":
    main()
