"""How work is split among processes; that they work together is tested with the verb."""

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli import launcher
from restormer_cli.commands.restore import run, work_sharing
from restormer_cli.commands.restore.jobs import Job
from restormer_cli.commands.restore.types import Restored
from restormer_cli.commands.restore.work_sharing import Team, split
from restormer_cli.errors import Failed, UserError
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


@pytest.fixture
def port(monkeypatch) -> int:
    """This process is the first of two, and where they would meet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return port


def test_a_number_of_processes_alone_is_no_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="RANK, MASTER_ADDR, MASTER_PORT not set: start processes by torchrun"):
        Team.join()


def test_a_first_process_that_is_not_there_is_told(monkeypatch, port):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match=rf"the first process cannot be reached at 127.0.0.1:{port}"):
        launcher.wait_for_first(seconds=0)


def test_signals_are_heard_while_waiting_for_the_first(monkeypatch, port):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(launcher.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Team.join()


def test_what_a_dead_process_leaves_is_told_as_missing(monkeypatch, port, tmp_path):
    team = Team.join()
    assert team is not None
    jobs = [Job(tmp_path / name, tmp_path / "out" / name) for name in ("ours", "theirs", "lost")]
    team.store.set("message/1/0", json.dumps(Restored(jobs[1].source, jobs[1].target, seconds=1.0).to_json()))
    monkeypatch.setattr(launcher, "JOINING", 0.0)  # it never gave a sign of life
    ours = (Restored(job.source, job.target, seconds=1.0) for job in jobs[:1])
    events = run._gathered(ours, team, jobs)
    told = {event.source.name: event.error for event in events if isinstance(event, Restored)}
    assert told["ours"] is told["theirs"] is None
    assert str(told["lost"]).endswith("lost: missing: process 1 died before it was done; go on with --skip-existing")


def test_without_the_first_the_others_end(monkeypatch, port):
    first = Team.join()
    assert first is not None
    monkeypatch.setenv("RANK", "1")
    other = Team.join()
    assert other is not None
    monkeypatch.setattr(work_sharing, "DEAD", -1.0)
    monkeypatch.setattr(launcher, "JOINING", -1.0)
    first._live = lambda: None  # pyright: ignore
    with pytest.raises(Failed, match="the first process is gone"):
        other.share()
