"""Naming a network, with and without weights."""

import pytest
import torch

from restormer_cli.benchmark.networks import find_network, random_network
from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.recipe_files import read_recipe

TINY = ModelConfig(dim=4, blocks=(1, 1, 1, 1), heads=(1, 1, 2, 2), refinement=1)


def test_the_paper_and_recipes_need_no_weights(tmp_path):
    assert find_network("paper").config == ModelConfig()
    for name in ("compact/denoise", "recipes/compact/denoise.toml"):
        network = find_network(name)
        assert (network.path, network.config) == (None, read_recipe("compact/denoise").model)


def test_a_bundled_name_is_its_weights_and_a_file_is_a_file(colour_weights):
    bundled = find_network("denoise")
    assert bundled.path is not None
    assert bundled.task == "denoise"
    ours = find_network(str(colour_weights))
    assert ours.path == colour_weights
    assert ours.build().config == ours.config


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(UserError, match=r"nothing: no such weights file.*denoise.*`paper`"):
        find_network("nothing")


def test_random_weights_are_the_seeds_and_leave_the_generator_alone():
    before = torch.random.get_rng_state()
    one, same, other = (random_network(TINY, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not any(torch.equal(one[key], other[key]) for key in one)


def test_a_random_network_changes_the_picture_visibly():
    """A residual near zero would make any two ways of running it agree."""
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for config in (TINY, ModelConfig(dim=16, norm="bias-free")):
            residual = random_network(config, 0)(picture) - picture
            assert residual.std((2, 3)).max() > 0.03
