"""A small web server whose answers are told: for tests of what is fetched."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """Files by path, and what went on: `asked` holds method, path and the range of every request."""

    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    """The next answers end after so many bytes each."""
    etag: str | None = '"one"'
    length: bool = True
    ranges: bool = True
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        wanted = request.headers.get("Range")
        self.asked.append((request.command, path, wanted))
        if path in self.answers:
            return self.answers[path](request)
        if path not in self.files:
            return request.send_error(404)
        data, start = self.files[path], 0
        same = self.etag is not None and request.headers.get("If-Range") in (None, self.etag)
        if wanted and same and self.ranges:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            request.send_response(200)
        if self.length:
            request.send_header("Content-Length", str(len(data) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        if request.command == "GET":
            rest = data[start:]
            request.wfile.write(rest[: self.breaks.pop(0)] if self.breaks else rest)
        request.close_connection = True
        return None


@pytest.fixture
def site() -> Iterator[Site]:
    """An empty site on a free port of this machine."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def do_HEAD(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()
