"""Downloads from a real server: whole or not at all, and no secret in a message."""

import hashlib
import socket
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.params.spelling import PROTOCOLS
from stages.ingest import download as module
from stages.ingest.archives import Workspace
from stages.ingest.download import download
from tests.unit.file_server import serving

CONTENT = b"text,label\n" + b"".join(b"line %d,%d\n" % (n, n % 2) for n in range(30_000))
OTHER = CONTENT.replace(b"line", b"LINE")
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FIRST, SECOND = '"first"', '"second"'


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.001)


def source(url: str, **pins: Any) -> Source:
    return Source(url=url, columns={"text": "text", "label": "label"}, **pins)


def fetch(url: str, folder: Path, **pins: Any) -> bytes:
    file, _ = download(source(url, **pins), Workspace(folder, folder, max_download_mb=1))
    return file.read_bytes()


def fault(url: str, folder: Path, **pins: Any) -> str:
    with pytest.raises(AttuneError) as raised:
        fetch(url, folder, **pins)
    assert str(raised.value).startswith(source(url, **pins).origin)
    return str(raised.value)


@pytest.mark.parametrize("pin", [{"sha256": SHA256}, {"etag": FIRST}, {"etag": "first"}])
def test_a_pinned_file_is_asked_for_once(tmp_path: Path, pin: dict[str, str]) -> None:
    with serving(content=CONTENT, etag=FIRST) as server:
        for _ in range(2):
            file, etag = download(source(server.url, **pin), Workspace(tmp_path, tmp_path))
            assert (file.read_bytes(), etag) == (CONTENT, FIRST)
        assert len(server.manners.requests) == 1


def test_a_file_without_a_pin_is_fetched_each_time(tmp_path: Path) -> None:
    with serving(content=CONTENT, etag=FIRST) as server:
        assert fetch(server.url, tmp_path) == CONTENT
        server.manners.content, server.manners.etag = OTHER, SECOND
        assert fetch(server.url, tmp_path) == OTHER
    assert "could not be downloaded" in fault(server.url, tmp_path), "an old copy must not pass for a new one"
    with serving(content=CONTENT) as target, serving(redirect=target.url) as server:
        assert fetch(server.url, tmp_path) == CONTENT


def test_a_server_that_fails_for_a_while_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(content=CONTENT, failures=[503, 429, 503, 429]) as server:
        assert fetch(server.url, tmp_path) == CONTENT
    assert capsys.readouterr().out.count("trying again") == 4
    with serving(content=CONTENT, failures=[503] * 5) as server:
        assert "could not be downloaded: HTTPError: 503" in fault(server.url, tmp_path)


def test_another_etag_than_the_pinned_one_is_an_error_that_shows_both(tmp_path: Path) -> None:
    with serving(content=CONTENT, etag=SECOND) as server:
        assert "expected ETag first\n  actual   ETag second" in fault(server.url, tmp_path, etag="first")
        assert len(server.manners.requests) == 1, "another try would not help"


@pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (403, "403 Forbidden"), (499, "499")])
def test_a_refusal_is_not_asked_again_and_the_servers_own_words_are_not_repeated(
    tmp_path: Path, status: int, reason: str
) -> None:
    with serving(failures=[status], reason="No /rows.csv?sig=hunter2") as server:
        message = fault(server.url, tmp_path)
        assert reason in message and "hunter2" not in message
        assert len(server.manners.requests) == 1


@pytest.mark.parametrize("manners", [{"etag": FIRST}, {"change": (1, OTHER, SECOND)}])
def test_a_connection_that_breaks_starts_over_and_no_file_is_half_old_and_half_new(
    tmp_path: Path, manners: dict[str, Any]
) -> None:
    with serving(content=CONTENT, cuts=[100_000], **manners) as server:
        assert fetch(server.url, tmp_path) == manners.get("change", (1, CONTENT))[1]
        server.manners.cuts += [1000] * 5
        assert "IncompleteRead" in fault(server.url, tmp_path)
        assert fetch(server.url, tmp_path) == manners.get("change", (1, CONTENT))[1], "in another run too"


def test_a_file_over_the_limit_or_short_of_its_length_is_not_taken(tmp_path: Path) -> None:
    with serving(content=b"", claims=5 << 20) as server:
        assert "is larger than 1 MiB" in fault(server.url, tmp_path)
        assert len(server.manners.requests) == 1
    with serving(endless=True) as server:
        assert "is larger than 1 MiB" in fault(server.url, tmp_path)
    with serving(content=CONTENT, claims=len(CONTENT) + 10) as server:
        assert "could not be downloaded" in fault(server.url, tmp_path), "it ends before its length"


def test_no_message_and_no_file_holds_what_a_query_string_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "?a=1&X-Amz-Signature=hunter2#hunter2"
    with serving(content=CONTENT, failures=[500, 404]) as server:
        message = fault(server.url + query, tmp_path)
        server.manners.redirect = "file:///x?signature=hunter2"
        message += fault(server.url + query, tmp_path)
        server.manners.redirect = None
        assert fetch(server.url + query, tmp_path) == CONTENT
        asked = len(server.manners.requests)
        for version in ("?version=1", "?version=2"):  # these are two files
            fetch(server.url + version, tmp_path, sha256=SHA256)
        assert len(server.manners.requests) == asked + 2
    message += fault(server.url + query, tmp_path) + "".join(capsys.readouterr())
    message += module.reason(ValueError("GET HTTPS://host/a?signature=hunter2 failed for s3://b/a?token=hunter2"))
    assert "hunter2" not in message
    for path in tmp_path.rglob("*"):
        assert "hunter2" not in path.name
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


def test_file_systems_of_fsspec_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "memory", "fsspec")  # stands in for those of the clouds
    memory = fsspec.filesystem("memory")
    for content in (CONTENT, OTHER):
        memory.pipe_file("/bucket/rows.csv", content)
        assert fetch("memory://bucket/rows.csv", tmp_path) == content
    assert "FileNotFoundError" in fault("memory://bucket/none.csv", tmp_path)
    assert "actual   ETag none" in fault("memory://bucket/rows.csv", tmp_path, etag="x")
    memory.store.clear()
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    assert "Install s3fs" in fault("s3://b/a.csv", tmp_path)


def test_a_silent_server_is_not_waited_for_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_TIMEOUT", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        assert "Timeout" in fault(f"http://127.0.0.1:{silent.getsockname()[1]}/a.csv", tmp_path)
