"""Files that appear whole or not at all, whatever their name and whatever happens meanwhile."""

import errno
import os
from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from restormer_cli import files
from restormer_cli.errors import AlreadyThere, Failed, NoRoom, UserError
from restormer_cli.files import cache_folder, sweep, write_atomically

fcntl = pytest.importorskip("fcntl", reason="no file locks here")


@pytest.mark.parametrize("length", [240, 241, 255])
def test_names_as_long_as_names_can_be(tmp_path, length):
    path = tmp_path / ("x" * (length - 4) + ".png")
    write_atomically(path, lambda stream: stream.write(b"whole"))
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_told_apart_from_other_failures(tmp_path, number):
    def fail(_):
        raise OSError(number, os.strerror(number))

    with pytest.raises(NoRoom, match="cannot be written: "):
        write_atomically(tmp_path / "a", fail)
    assert list(tmp_path.iterdir()) == []


def test_permission_denied_is_no_full_disk(tmp_path):
    def fail(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(Failed, match="a: cannot be written: Permission denied") as caught:
        write_atomically(tmp_path / "a", fail)
    assert not isinstance(caught.value, NoRoom)


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path):
    left = [".restormer-0123456789ab.part", ".restormer-ba9876543210.part"]
    kept = [".restormer-0123.part", "restormer-0123456789ab.part", ".restormer-0123456789ab.part.png", "a.png"]
    for name in left + kept:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".restormer-00000000000a.part").mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, ".restormer-00000000000a.part"])


def test_a_file_being_written_is_not_swept_away(tmp_path):
    def write(stream):
        stream.write(b"first")
        sweep(tmp_path)
        stream.write(b"second")

    write_atomically(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"firstsecond"


def test_a_folder_that_is_none_is_nothing_to_sweep(tmp_path):
    sweep(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    sweep(Path(tmp_path / "file"))


def test_a_file_that_is_opened_at_the_moment_of_a_sweep_is_written_all_the_same(tmp_path, monkeypatch):
    flock, swept = files.fcntl.flock, []

    def slow(stream, how):
        if not swept:  # between opening and locking
            swept.append(True)
            sweep(tmp_path)
            assert not list(tmp_path.iterdir())
        return flock(stream, how)

    monkeypatch.setattr(files.fcntl, "flock", slow)
    files.write_atomically(tmp_path / "a", lambda stream: stream.write(b"whole"))
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_must_be_new_never_replaces_one(tmp_path):
    def write(stream):
        stream.write(b"ours")
        (tmp_path / "a").write_bytes(b"theirs")

    with pytest.raises(AlreadyThere, match="appeared while this ran"):
        files.write_atomically(tmp_path / "a", write, new=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"theirs"


def test_a_lock_tells_its_holder_and_goes_with_it(tmp_path):
    with files.locked(tmp_path / "lock", UserError):
        with (
            pytest.raises(UserError, match=rf"^process {os.getpid()} on ."),
            files.locked(tmp_path / "lock", UserError),
        ):
            pass
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


def test_the_cache_is_where_each_system_keeps_such_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("RESTORMER_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for system, wanted in ((Unix, "/home/me/.cache/restormer"), (MacOS, "/home/me/Library/Caches/restormer")):
        monkeypatch.setattr(platformdirs, "PlatformDirs", system)
        assert cache_folder().as_posix() == wanted
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    assert cache_folder() == Path("/big/cache/restormer")
