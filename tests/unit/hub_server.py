"""The few routes of the Hugging Face Hub that its client asks for files, over real HTTP."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.unit.file_server import listening

COMMIT = "c" * 40


@dataclass
class Hub:
    """Repositories by kind and name (`datasets/owner/name`, `models/owner/name`), each with one commit and one tag."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tag: str = "v1.0"
    failing: int | None = None  # status of every answer
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Run the server on a port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if hub.failing:
                self._answer(hub.failing, b"")
            elif match := re.fullmatch(r"/api/(models/.+)/revision/(.+)", path):
                self._json(match[1], match[2], {"id": match[1], "sha": COMMIT})
            elif match := re.fullmatch(r"/api/(models/.+)/tree/([^/]+)", path):
                files = hub.files.get(match[1], {})
                entries = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                self._json(match[1], match[2], entries)
            elif match := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
                self._file(f"{match[1] or 'models/'}{match[2]}", match[3], match[4])
            else:
                self._answer(404, b"")

        def _file(self, repository: str, revision: str, name: str) -> None:
            if self._known(repository, revision):
                data = hub.files[repository].get(name)
                if data is None:
                    self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                else:
                    self._answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

        def _json(self, repository: str, revision: str, value: Any) -> None:
            if self._known(repository, revision):
                self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _known(self, repository: str, revision: str) -> bool:
            if repository not in hub.files:
                self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in (COMMIT, hub.tag):
                self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                return True
            return False

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with listening(Handler) as hub.url:
        yield hub
