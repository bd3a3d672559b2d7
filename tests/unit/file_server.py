"""A real HTTP server of one file that can be as difficult as servers are."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


@dataclass
class Manners:
    """What the server does; a test changes it while it runs."""

    content: bytes = b""
    etag: str | None = None
    reason: str | None = None  # in place of the status's usual words
    failures: list[int] = field(default_factory=list)  # statuses of the next answers
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    claims: int | None = None  # Content-Length, if not the truth
    endless: bool = False
    redirect: str | None = None
    change: tuple[int, bytes, str] | None = None  # after so many requests: other content and ETag
    requests: list[dict[str, str]] = field(default_factory=list)


class FileServer(NamedTuple):
    """The server while it runs."""

    manners: Manners
    url: str


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server on a port of this machine; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(**manners: Any) -> Iterator[FileServer]:
    """Run the server on a port of this machine."""
    how = Manners(**manners)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            how.requests.append({key.lower(): value for key, value in self.headers.items()})
            if how.change and len(how.requests) > how.change[0]:
                how.content, how.etag = how.change[1:]
            if how.failures:
                self._head(how.failures.pop(0), {"Content-Length": "0"})
            elif how.redirect:
                self._head(302, {"Location": how.redirect, "Content-Length": "0"})
            elif how.endless:
                self._head(200, {"Transfer-Encoding": "chunked"})
                block = b"10000\r\n" + bytes(0x10000) + b"\r\n"
                for _ in range(1000):
                    self.wfile.write(block)
            else:
                self._content()

        def _content(self) -> None:
            headers = {"ETag": how.etag} if how.etag else {}
            headers["Content-Length"] = str(len(how.content) if how.claims is None else how.claims)
            self._head(200, headers)
            cut = how.cuts.pop(0) if how.cuts else None
            self.wfile.write(how.content[:cut])
            self.close_connection |= cut is not None or how.claims is not None

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status, how.reason)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with listening(Handler) as address:
        yield FileServer(how, f"{address}/folder/rows.csv")
