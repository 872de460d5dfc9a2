"""Downloads against a real server on this machine: broken, resumed, changed, refused, redirected, too long."""

import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from restormer_cli.errors import Failed
from restormer_cli.model import download as room
from restormer_cli.model.download import download

DATA = os.urandom(300_000)


@pytest.fixture
def fetch(site, tmp_path):
    """`fetch()` gets the site's /file into tmp_path/file, without waiting between tries."""
    site.files["/file"] = DATA

    def fetch(path: str = "/file", **more) -> tuple[int, str]:
        return download(site.url + path, tmp_path / "file", pause=lambda seconds: None, **more)

    return fetch


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_with_its_hash_and_progress(fetch, tmp_path):
    seen = []
    assert fetch(progress=lambda done, total: seen.append((done, total))) == (300_000, hashlib.sha256(DATA).hexdigest())
    assert (tmp_path / "file").read_bytes() == DATA
    assert names(tmp_path) == ["file"]
    assert seen[-1] == (300_000, 300_000)


@pytest.mark.parametrize("length", [True, False], ids=["length told", "length untold"])
def test_an_empty_file_and_one_of_unknown_length(site, fetch, tmp_path, length):
    site.length = length
    assert fetch()[0] == 300_000
    site.files["/file"] = b""
    assert fetch()[0] == 0


def test_a_connection_that_breaks_is_taken_up_where_it_broke(site, fetch, tmp_path):
    site.breaks = [100_000, 50_000]
    assert fetch()[1] == hashlib.sha256(DATA).hexdigest()
    assert [wanted for _, _, wanted in site.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_killed_download_goes_on_in_the_next_call(site, fetch, tmp_path):
    def killed(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    site.breaks = [120_000]
    with pytest.raises(KeyboardInterrupt):
        fetch(progress=killed)
    assert names(tmp_path) == ["file.part", "file.part.json"]
    assert fetch()[1] == hashlib.sha256(DATA).hexdigest()
    assert site.asked[-1][2] is not None
    assert names(tmp_path) == ["file"]


def test_what_is_there_is_not_spliced_with_another_version(site, fetch, tmp_path):
    site.breaks = [100_000] + [0] * room.TRIES
    with pytest.raises(Failed, match=r"100,000 of 300,000 bytes are there: run it again, it goes on from there"):
        fetch()
    assert names(tmp_path) == ["file.part", "file.part.json"]
    site.files["/file"], site.etag = bytes(reversed(DATA)), '"two"'
    assert fetch()[1] == hashlib.sha256(bytes(reversed(DATA))).hexdigest()


def test_a_server_without_versions_or_ranges_starts_again(site, fetch):
    site.breaks, site.etag = [100_000], None
    assert fetch()[1] == hashlib.sha256(DATA).hexdigest()
    assert [wanted for _, _, wanted in site.asked] == [None, None]
    site.breaks, site.etag, site.ranges = [100_000], '"one"', False
    assert fetch()[1] == hashlib.sha256(DATA).hexdigest()


def test_a_damaged_note_or_another_address_starts_again(site, fetch, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    for note in ("{", "[]", json.dumps({"url": "http://elsewhere", "validator": '"one"'})):
        (tmp_path / "file.part.json").write_text(note)
        assert fetch()[1] == hashlib.sha256(DATA).hexdigest()


def test_a_range_that_was_not_asked_for_is_not_taken(site, fetch):
    def shifted(request):
        request.send_response(206)
        request.send_header("Content-Range", "bytes 7-299999/300000")
        request.send_header("Content-Length", "299993")
        request.end_headers()
        request.wfile.write(DATA[7:])

    site.answers["/file"] = shifted
    with pytest.raises(Failed, match="a part that was not asked for"):
        fetch()


@pytest.mark.parametrize(
    ("code", "words"),
    [(404, "no such file there"), (403, "refuses"), (418, "error 418"), (503, "nothing could be fetched")],
)
def test_an_error_of_the_server_is_told_and_leaves_nothing(site, fetch, tmp_path, code, words):
    site.answers["/file"] = lambda request: request.send_error(code)
    with pytest.raises(Failed, match=words):
        fetch()
    assert names(tmp_path) == []
    assert len(site.asked) == (room.TRIES if code == 503 else 1)


def test_a_server_that_recovers_is_asked_again(site, fetch):
    def busy(request):
        del site.answers["/file"]
        request.send_error(503)

    site.answers["/file"] = busy
    assert fetch()[0] == 300_000


def test_without_a_network_it_says_so(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
        with pytest.raises(Failed, match=r"cannot be reached \(.*refused.*\): check the network"):
            download(url, tmp_path / "file")
    with pytest.raises(Failed, match=r"cannot be reached"):
        download("http://nowhere.invalid/file", tmp_path / "file")
    assert names(tmp_path) == []


def test_redirects_are_followed_on_the_web_only(site, fetch, tmp_path, monkeypatch):
    def to(address: str):
        def answer(request):
            request.send_response(302)
            request.send_header("Location", address)
            request.send_header("Content-Length", "0")
            request.end_headers()

        return answer

    site.answers["/moved"] = to(site.url + "/file")
    assert fetch("/moved")[0] == 300_000
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/file"):
        site.answers["/moved"] = to(address)
        with pytest.raises(Failed, match=r"not safe|no address on the web"):
            fetch("/moved")
    site.answers["/moved"] = to(site.url + "/moved")
    with pytest.raises(Failed, match="leads in a circle"):
        fetch("/moved")
    request = room.urllib.request.Request("https://a.test/x")
    with pytest.raises(Failed, match="not safe"):
        room._Redirects().redirect_request(request, None, 302, "", {}, "http://a.test/x")  # pyright: ignore
    with pytest.raises(Failed, match="no address on the web"):
        download("file:///etc/passwd", tmp_path / "file")


@pytest.mark.parametrize("length", [True, False], ids=["length told", "length untold"])
def test_a_file_longer_than_any_weights_is_refused(site, fetch, tmp_path, monkeypatch, length):
    monkeypatch.setattr(room, "LIMIT", 100_000)
    site.length = length
    with pytest.raises(Failed, match="more than any weights need"):
        fetch()
    assert not (tmp_path / "file").exists()


def test_a_full_disk_is_told(site, fetch, monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def seek(self, position):
            pass

        def write(self, block):
            raise OSError(28, "No space left on device")

    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full() if self.suffix == ".part" else plain(self, *a, **k))
    with pytest.raises(Failed, match="cannot be stored: No space left on device"):
        fetch()
