"""The paper's network has the paper's parameters, and a network that cannot exist is a clear ValueError."""

import json
from typing import Any

import pytest
import torch

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer

BASE = {"refinement": 0, "concat": False}  # the rows of Table 7 before the two last ones
MIDDLE = {"dim": 64, "blocks": (2, 3, 3, 4), "refinement": 3, "expansion": 2.53}
WIDE = {"dim": 80, "blocks": (1, 2, 2, 2), "refinement": 3, "expansion": 2.0}

PUBLISHED: list[tuple[int, dict[str, Any]]] = [
    (26_126_644, {}),
    (26_111_668, {"norm": "bias-free"}),
    (26_132_548, {"in_channels": 6, "dual_pixel": True}),
    (26_109_076, {"in_channels": 1, "out_channels": 1, "norm": "bias-free"}),
    (24_841_008, {**BASE, "attention": "mta", "feed_forward": "fn", "expansion": 4}),
    (25_027_632, {**BASE, "attention": "mdta", "feed_forward": "fn", "expansion": 4}),
    (24_794_928, {**BASE, "attention": "mta", "feed_forward": "gfn"}),
    (25_089_840, {**BASE, "attention": "mta", "feed_forward": "dfn", "expansion": 4}),
    (25_125_480, {**BASE, "attention": "mta", "feed_forward": "gdfn"}),
    (25_312_104, {**BASE, "attention": "mdta", "feed_forward": "gdfn"}),
    (25_655_160, {"refinement": 0}),
    (26_025_773, MIDDLE),
    (25_206_765, WIDE),
]


@pytest.mark.parametrize(("count", "options"), PUBLISHED)
@pytest.mark.parametrize("network", [Restormer, TextbookRestormer])
def test_parameters_are_as_many_as_published(
    network: type[torch.nn.Module], count: int, options: dict[str, Any]
) -> None:
    with torch.device("meta"):
        model = network(ModelConfig(**options))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0, "out_channels": 0}, "in_channels = 0"),
        ({"out_channels": -1}, "out_channels = -1"),
        ({"dim": 0}, "dim = 0"),
        ({"dim": 7}, "dim = 7: must be even"),
        ({"blocks": (1, 2, 3)}, r"blocks = \[1, 2, 3\]: needs four"),
        ({"blocks": (1, 2, 3, 4, 5)}, "needs four"),
        ({"blocks": (1, -1, 3, 4)}, "at least 0"),
        ({"heads": ()}, "needs four"),
        ({"heads": (1, 2, 4, 0)}, "at least 1"),
        ({"heads": (1, 2, 4, -8)}, "at least 1"),
        ({"heads": (5, 2, 4, 8)}, "heads = 5 at level 1 do not divide its 48"),
        ({"heads": (1, 2, 7, 8)}, "heads = 7 at level 3 do not divide its 192"),
        ({"heads": (1, 2, 4, 11)}, "heads = 11 at level 4 do not divide its 384"),
        ({"refinement": -1}, "refinement = -1"),
        ({"expansion": 0.0}, "expansion = 0"),
        ({"expansion": -2.66}, "expansion = -2.66"),
        ({"expansion": 0.02}, "expansion = 0.02"),
        ({"expansion": float("nan")}, "expansion = nan"),
        ({"expansion": float("inf")}, "expansion = inf"),
        ({"norm": "batch"}, "norm = 'batch': must be one of with-bias, bias-free"),
        ({"attention": "full"}, "attention = 'full': must be one of mdta, mta"),
        ({"feed_forward": "mlp"}, "feed_forward = 'mlp': must be one of gdfn, gfn, dfn, fn"),
        ({"dual_pixel": True}, "two views"),
        ({"dual_pixel": True, "in_channels": 6, "out_channels": 6}, "two views"),
        ({"in_channels": 6}, "in_channels = 6, out_channels = 3.*must be equal"),
    ],
)
def test_impossible_networks_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**options)


def test_dict_form_is_json_and_reads_back() -> None:
    config = ModelConfig(
        in_channels=10,
        out_channels=5,
        dim=22,
        blocks=(2, 3, 5, 7),
        refinement=11,
        heads=(1, 2, 4, 8),
        expansion=2.53,
        norm="bias-free",
        bias=True,
        dual_pixel=True,
        attention="mta",
        feed_forward="dfn",
        concat=False,
    )
    default = ModelConfig()
    assert all(getattr(config, name) != getattr(default, name) for name in vars(default) if name != "heads")
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert ModelConfig.from_dict({}) == default


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 3}, "no field 'depth'"),
        ({"dim": "48"}, "dim = '48': must be a int"),
        ({"dim": 48.0}, "dim = 48.0"),
        ({"dim": True}, "dim = True"),
        ({"bias": 1}, "bias = 1"),
        ({"norm": None}, "norm = None"),
        ({"norm": ["with-bias"]}, "norm"),
        ({"blocks": 4}, "blocks = 4: must be a list of whole numbers"),
        ({"blocks": [4, 6, 6, "8"]}, "list of whole numbers"),
        ({"heads": [1, 2, 4, 8.0]}, "list of whole numbers"),
        ({"heads": {"1": 1}}, "list of whole numbers"),
        ({"expansion": "2.66"}, "must be a number"),
        ({"expansion": True}, "must be a number"),
        ({"dim": 7}, "must be even"),
    ],
)
def test_dict_form_of_a_wrong_type_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(values)


def test_rows_given_as_lists_become_tuples() -> None:
    config = ModelConfig(blocks=[1, 2, 3, 5], heads=[1, 2, 4, 8])  # pyright: ignore[reportArgumentType]
    assert config == ModelConfig(blocks=(1, 2, 3, 5))
    assert hash(config) == hash(ModelConfig(blocks=(1, 2, 3, 5)))
