"""The user's folders."""

from pathlib import Path

import pytest

from restormer_cli import files


def test_the_cache_is_where_each_system_keeps_such_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path))
    assert files.cache_folder() == tmp_path
    monkeypatch.delenv("RESTORMER_CACHE")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for platform, wanted in (("linux", "/home/me/.cache/restormer"), ("darwin", "/home/me/Library/Caches/restormer")):
        monkeypatch.setattr(files.sys, "platform", platform)
        assert files.cache_folder().as_posix() == wanted
    monkeypatch.setattr(files.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    assert files.cache_folder() == Path("/big/cache/restormer")
