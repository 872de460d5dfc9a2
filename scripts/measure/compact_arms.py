"""The compact arms of `restormer ablate`, found anew: what arms.py has to say, and how near it comes.

python scripts/measure/compact_arms.py
"""

from pprint import pprint

from restormer_cli.commands.ablate.arms import EXPANSIONS
from restormer_cli.commands.ablate.compact import compact_expansions, compact_shapes, cost
from restormer_cli.model.config import ModelConfig


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
