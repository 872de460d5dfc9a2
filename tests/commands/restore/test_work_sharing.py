"""How work is split among processes; that they work together is tested with the verb."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.commands.restore.work_sharing import Team, split
from restormer_cli.launcher import local_place


@given(st.lists(st.integers(0, 10**9), max_size=40), st.integers(1, 7))
def test_every_picture_in_one_share_and_shares_about_even(weights, parts):
    shares = split(weights, parts)
    assert len(shares) == parts
    assert sorted(index for share in shares for index in share) == list(range(len(weights)))
    assert all(share == sorted(share) for share in shares)
    loads = [sum(weights[index] for index in share) for share in shares]
    # No split can be better than the mean or the heaviest picture; ours is within a third of the best.
    best = max(sum(weights) / parts, max(weights, default=0))
    if len(weights) > parts:
        heaviest = sorted(weights, reverse=True)
        best = max(best, heaviest[parts - 1] + heaviest[parts])
    assert max(loads) <= best * 4 / 3 + 1


def test_by_pixels_and_not_by_count():
    assert split([100, 1, 1, 1, 1, 96], 2) == [[0], [1, 2, 3, 4, 5]]
    assert split([1, 1, 1, 1, 4], 2) == [[4], [0, 1, 2, 3]]  # the large ones are dealt first


def test_pictures_of_unknown_size_are_spread_too():
    assert [len(share) for share in split([0] * 9, 3)] == [3, 3, 3]


def test_alone_there_is_no_team(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Team.join() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Team.join() is None


@pytest.mark.parametrize(("rank", "processes"), [("0", "2"), ("3", "4")])
def test_the_place_on_this_machine(monkeypatch, rank, processes):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert local_place() == (int(rank), int(processes))
