"""The Hugging Face Hub: its own client against a server with the same routes; files alone, at a fixed revision."""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest

from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource, Source
from stages.ingest.archives import Workspace
from stages.ingest.models import bring_model
from tests.unit.file_server import listening
from tests.unit.small_records import MODEL, received

COMMIT = "c" * 40


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@dataclass
class Hub:
    """Repositories by kind and name (`datasets/owner/name`, `models/owner/name`), with one commit and the tag v1.0."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
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
            elif match := re.fullmatch(r"/api/(models/.+)/(revision|tree)/([^/]+)", path):
                files = hub.files.get(match[1], {}).items()
                tree = [{"type": "file", "path": name, "size": len(data), "oid": sha1(data)} for name, data in files]
                value = tree if match[2] == "tree" else {"id": match[1], "sha": COMMIT}
                if self._known(match[1], match[3]):
                    self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})
            elif match := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
                repository = f"{match[1] or 'models/'}{match[2]}"
                if self._known(repository, match[3]):
                    data = hub.files[repository].get(match[4])
                    if data is None:
                        self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                    else:
                        self._answer(200, data, {"ETag": f'"{sha1(data)}"', "X-Repo-Commit": COMMIT})
            else:
                self._answer(404, b"")

        def _known(self, repository: str, revision: str) -> bool:
            missing = "RepoNotFound" if repository not in hub.files else "RevisionNotFound"
            known = repository in hub.files and revision in (COMMIT, "v1.0")
            if not known:
                self._answer(404, b"", {"X-Error-Code": missing})
            return known

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


ROWS = pl.DataFrame({"text": [f"text {n}" for n in range(12)], "label": ["a", "b"] * 6})
UNWANTED = {"pytorch_model.bin": b"pickle", "modeling.py": b"raise SystemExit", "onnx/model.safetensors": b"x"}
MAPPED = {"columns": {"text": "text", "label": "label"}}


def parquet() -> bytes:
    out = io.BytesIO()
    ROWS.write_parquet(out)
    return out.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, and this process's client pointed at it (HF_ENDPOINT is read once, when the client is imported)."""
    from huggingface_hub import constants

    with serving_hub() as server:
        server.files = {
            "datasets/owner/reviews": {"data/rows.parquet": parquet(), "loader.py": b"exit()"},
            "models/owner/model": {**MODEL, **UNWANTED, "small/config.json": b"{}"},
        }
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def data(member: str = "data/rows.parquet", revision: str = COMMIT, repository: str = "owner/reviews") -> Source:
    return Source(hub=repository, revision=revision, member=member, **MAPPED)


def read(source: Source, folder: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    tables, entry = received(source, folder, max_download_mb=1)
    return tables[0][1].select("text", "label"), entry


def test_a_file_of_a_data_set_is_read_and_nothing_else_and_a_commit_only_once(hub: Hub, tmp_path: Path) -> None:
    path = f"/datasets/owner/reviews/resolve/{COMMIT}/data/rows.parquet"
    for asked in ({path}, set()):
        table, entry = read(data(), tmp_path)
        assert table.equals(ROWS)
        assert entry["origin"] == f"owner/reviews@{COMMIT}:data/rows.parquet"
        assert entry["sha256"] == hashlib.sha256(parquet()).hexdigest()
        assert {line.split(" ")[1] for line in hub.requests if "/resolve/" in line} == asked
        hub.requests.clear()
    assert read(data(revision="v1.0"), tmp_path)[1]["revision"] == COMMIT


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (data("data/other.parquet"), "EntryNotFoundError"),
        (data(revision="v2.0"), "RevisionNotFoundError"),
        (data(repository="owner/none"), "RepositoryNotFoundError"),
    ],
)
def test_what_is_not_there_is_an_error(hub: Hub, tmp_path: Path, source: Source, reason: str) -> None:
    with pytest.raises(AttuneError) as raised:
        read(source, tmp_path)
    assert str(raised.value).startswith(f"{source.origin}: ")
    assert reason in str(raised.value) and not raised.value.passing
    assert "127.0.0.1" not in str(raised.value)
    hub.failing = 501
    with pytest.raises(AttuneError, match="could not be downloaded") as raised:
        read(source, tmp_path)
    assert raised.value.passing


def test_a_file_over_the_limit_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.files["datasets/owner/reviews"]["large.csv"] = bytes(2 << 20)
    hub.files["models/owner/model"]["model.safetensors"] = bytes(2 << 20)
    with pytest.raises(AttuneError, match="is larger than 1 MiB"):
        read(data("large.csv"), tmp_path)
    with pytest.raises(AttuneError, match=r"owner/model@c+: is larger than 1 MiB"):
        bring(tmp_path)
    assert not any(line.startswith("GET") and "/resolve/" in line for line in hub.requests)


def bring(folder: Path, **keys: str) -> dict[str, bytes]:
    source = BaseModelSource(hub="owner/model", **{"revision": COMMIT, **keys})
    assert bring_model(source, folder / "base", Workspace(folder, folder, max_download_mb=1)) == COMMIT
    return {file.name: file.read_bytes() for file in (folder / "base").iterdir()}


def test_only_files_of_known_kinds_are_fetched_of_a_model(hub: Hub, tmp_path: Path) -> None:
    hub.files["models/owner/model"] |= {f"small/{name}": content for name, content in MODEL.items()}
    for keys, folder in (({"revision": "v1.0"}, ""), ({"member": "small"}, "small/")):
        hub.requests.clear()
        assert bring(tmp_path / str(len(folder)), **keys) == MODEL
        fetched = {line.partition(f"/resolve/{COMMIT}/")[2] for line in hub.requests if "/resolve/" in line}
        assert fetched == {f"{folder}{name}" for name in MODEL}
