"""A file over HTTP, whole or not at all: resumed where it broke off, its length checked, its hash returned."""

import errno
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

from restormer_cli import __version__
from restormer_cli.errors import Failed
from restormer_cli.files import sha256_of

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and the bytes of the whole file where the server tells."""

TRIES = 4
"""In a row without a single byte."""
TIMEOUT = 30.0  # seconds without a byte
LIMIT = 2 << 30
"""No weights file is longer: a server must not fill the disk."""
BLOCK = 1 << 20
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO}


def download(
    url: str, target: Path, *, progress: Progress | None = None, pause: Callable[[float], None] = time.sleep
) -> tuple[int, str]:
    """Fetch `url` into `target`, replacing it only when all of it is there -> (bytes, SHA-256 in hex).

    What arrived is kept beside it as `<name>.part`, and a later call goes on from there if the server still has the
    same file. A connection that breaks is taken up again. Raises Failed, saying what is missing and what helps.
    """
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    tries = 0
    while True:
        before = _length(part)
        try:
            total = _receive(url, part, note, progress)
        except OSError as error:
            total = _judged(url, error)
        except IncompleteRead:
            total = None
        except (HTTPException, ValueError) as error:
            raise Failed(f"{url}: no sound answer from the server ({error}): try again later") from None
        length = _length(part)
        if total is not None and (length == total or total < 0):
            break
        if total is not None and length > total:
            part.unlink()
            raise Failed(f"{url}: {length:,} bytes came instead of {total:,}: run it again")
        tries = 0 if length > before else tries + 1
        if tries >= TRIES:
            there = f"{length:,} of {total:,} bytes are there" if total is not None else "nothing could be fetched"
            raise Failed(f"{url}: the connection broke and stays broken; {there}: run it again, it goes on from there")
        pause(min(8.0, 2.0**tries / 2))
    digest = sha256_of(part)
    os.replace(part, target)
    with suppress(OSError):
        note.unlink()
    return length, digest


def _receive(url: str, part: Path, note: Path, progress: Progress | None) -> int:
    """Append to `part` what it lacks -> the length of the whole file, or -1 where the server does not tell.

    A broken connection is an OSError, or simply an end that comes too early.
    """
    have, known = _length(part), _known(note, url)
    if not known.get("validator"):  # without it two versions could be spliced
        have = 0
    headers = {"User-Agent": f"restormer-cli/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
        if have == known.get("total"):
            return have
    with _open(urllib.request.Request(url, headers=headers)) as answer:
        if answer.status == 206:
            if _range_start(answer.headers) != have:
                raise ValueError("a part that was not asked for")
            total = _range_total(answer.headers)
        else:
            have, total = 0, int(answer.headers.get("Content-Length") or -1)
        if total > LIMIT:
            raise Failed(f"{url}: {total:,} bytes are more than any weights need: check the address")
        _remember(note, {"url": url, "total": total, "validator": _validator(answer.headers)})
        with part.open("r+b" if have else "wb") as stream:
            stream.seek(have)
            while block := answer.read(BLOCK):
                stream.write(block)
                have += len(block)
                if have > LIMIT:
                    raise Failed(f"{url}: more than {LIMIT:,} bytes are more than any weights need: check the address")
                if progress is not None:
                    progress(have, total if total >= 0 else None)
    return total


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To the web only, and never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        there, here = urlsplit(newurl).scheme, urlsplit(req.full_url).scheme
        if there not in ("http", "https") or (here == "https" and there == "http"):
            raise Failed(f"{req.full_url}: leads to {newurl}, which is not safe: not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> HTTPResponse:
    if urlsplit(request.full_url).scheme not in ("http", "https"):
        raise Failed(f"{request.full_url}: is no address on the web: it begins with https://")
    return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)


def _judged(url: str, error: OSError) -> int | None:
    """None for what may pass, as a broken connection does; raises Failed for what will not."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (404, 410):
            raise Failed(f"{url}: no such file there (error {error.code}): check the name, or the address")
        if error.code in (401, 403, 451):
            raise Failed(f"{url}: the server refuses it (error {error.code}): it needs a permission, or a proxy")
        if 300 <= error.code < 400:
            raise Failed(f"{url}: leads in a circle or to no address on the web (error {error.code}): check it")
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            return None
        raise Failed(f"{url}: the server answers with error {error.code}: try again later")
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, (TimeoutError, ConnectionError)) and not isinstance(reason, ConnectionRefusedError):
        return None
    if error.errno in DISK:
        raise Failed(f"{url}: cannot be stored: {error.strerror}")
    raise Failed(f"{url}: cannot be reached ({getattr(reason, 'strerror', None) or reason}): check the network")


def _range_start(headers: Message) -> int:
    """First byte of a Content-Range: 100 of "bytes 100-299/300"; -1 for anything else."""
    kind, _, rest = (headers.get("Content-Range") or "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if kind == "bytes" and start.isdecimal() else -1


def _range_total(headers: Message) -> int:
    total = (headers.get("Content-Range") or "").rpartition("/")[2]
    return int(total) if total.isdecimal() else -1


def _validator(headers: Message) -> str | None:
    """Identifier of this version of the file: a strong ETag or a date."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _known(note: Path, url: str) -> dict:
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.get("url") == url else {}


def _remember(note: Path, values: dict) -> None:
    note.write_text(json.dumps(values))


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
