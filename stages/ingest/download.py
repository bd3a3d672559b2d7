"""Download the file of a `url` source: checked by ETag, resumed where that is safe, never larger than allowed.

Only HTTP downloads are resumed: the libraries of the clouds read block by block and try each block again themselves.
"""

import json
import re
import sys
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC, EROFS
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.params.places import PROTOCOLS
from stages.common.shown import shown
from stages.ingest.expansion import check_download_size

TRIES = 5
BLOCK = 1 << 20
CONNECT_TIMEOUT, SILENCE_TIMEOUT = 30, 60  # seconds; a long download is no fault, a silent one is
TRANSIENT_STATUS = (408, 416, 425, 429)  # besides all from 500 up; after 416 (no such range) a download starts over


class Changed(OSError):
    """The file is not the one of which a part is here: start over."""


@dataclass(frozen=True)
class Remote:
    """A stream of a file's bytes from `offset` on."""

    stream: IO[bytes]
    offset: int
    size: int | None  # of the whole file
    etag: str | None
    version: str | None  # equal for equal content; None where nothing tells


def download(source: TextSource, downloads: Path, max_mb: int, pause: float = 1.0) -> tuple[Path, str | None]:
    """Return the file at the source's url, and its ETag if there is one.

    A file that is pinned (by `sha256` or `etag`) is fetched once, any other one each time.

    Args:
        source: with `url`.
        downloads: folder that keeps downloads from run to run.
        max_mb: largest size in MiB.
        pause: seconds before the second try; each further pause is twice as long, and a little by chance.

    Raises:
        AttuneError: if it cannot be had, is too large or has another ETag. No message holds the query string.
    """
    folder = downloads / "url"
    folder.mkdir(parents=True, exist_ok=True)
    # Named by a hash: an address may hold a signature, or what is no name of a file.
    file = folder / sha256(f"{source.url}\n{source.sha256}\n{source.etag}".encode()).hexdigest()[:32]
    note = _read_note(file)
    if note.get("complete") and (source.sha256 or source.etag):
        return file, note["etag"]
    tries = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential_jitter(initial=pause, max=60 * pause, jitter=pause),
        retry=retry_if_exception(_is_transient),
        before_sleep=lambda state: print(
            f"  {source.origin}: {_reason(state.outcome.exception())}; trying again …"  # type: ignore
        ),
        reraise=True,
    )
    try:
        return file, tries(_fetch, source, file, max_mb)
    except AttuneError as error:
        raise AttuneError(f"{source.origin}: {error.what}", error.fix) from None
    except ImportError as error:
        scheme = urlsplit(source.url or "").scheme
        raise AttuneError(
            f"{source.origin}: {scheme}:// needs a package that is not installed ({str(error).splitlines()[0]})",
            f"pip install '{PROTOCOLS[scheme]}'",
        ) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EROFS):
            raise  # our own disk
        raise AttuneError(
            f"{source.origin}: could not be downloaded: {_reason(error)}",
            "check the address and the network; credentials come from the environment (docs/data.md)",
            passing=True,
        ) from None


def _fetch(source: TextSource, file: Path, max_mb: int) -> str | None:
    """Fetch what is missing and return the ETag; what has come stays for the next try, in this run or another."""
    url, note = source.url or "", _read_note(file)
    version = None if note.get("complete") else note.get("version")
    offset = file.stat().st_size if version else 0
    try:
        http = urlsplit(url).scheme in ("http", "https")
        remote = _open_http(url, offset, version) if http else _open_other(url)
        with remote.stream:
            _check_etag(source.etag, remote.etag)
            if not remote.offset:
                file.unlink(missing_ok=True)  # before the note: a part must not be taken for one of another version
                _write_note(file, remote, complete=False)
            received = _receive(remote, file, source.origin, max_mb)
        if remote.size not in (None, received):
            raise ConnectionError(f"it ended after {received:,} of {remote.size:,} bytes")
    except Exception as error:
        no_such_range = getattr(error, "status", 0) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if no_such_range or isinstance(error, Changed | AttuneError):
            file.unlink(missing_ok=True)
        raise
    _write_note(file, remote, complete=True)
    return remote.etag


def _open_http(url: str, offset: int, version: str | None) -> Remote:
    """One streamed GET: fsspec's seekable file asks block by block, and would not see the file change in between."""
    from aiohttp import ClientTimeout
    from fsspec.implementations.http import HTTPFileSystem

    headers = {"Accept-Encoding": "identity"}  # else sizes and offsets would be those of a packed stream
    if offset and version:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE_TIMEOUT)
    system = HTTPFileSystem(
        skip_instance_cache=True,
        encoded=url.isascii(),  # a signature holds for the address as it is spelled
        client_kwargs={"timeout": timeout, "trust_env": True},  # proxies and ~/.netrc
    )
    stream = system.open(url, block_size=0, size=1, headers=headers)  # size: it need not ask for it beforehand
    answer = stream.r
    if urlsplit(url).scheme == "https" and any(hop.url.scheme != "https" for hop in [*answer.history, answer]):
        stream.close()
        raise AttuneError("the address leads on to one that is not encrypted (http://)", "name the final address")
    etag, length = answer.headers.get("ETag"), answer.headers.get("Content-Length", "")
    # A weak ETag (W/"…") says nothing of bytes.
    tag = etag if etag and etag.startswith('"') else answer.headers.get("Last-Modified")
    if answer.headers.get("Content-Encoding", "identity") != "identity":  # packed all the same
        length, tag = "", None
    begin = offset if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
    sent = answer.headers.get("Content-Range", "")
    if begin and (tag != version or not sent.startswith(f"bytes {begin}-")):
        stream.close()
        raise Changed("the server sent another part than was asked for")
    return Remote(stream, begin, begin + int(length) if length.isdecimal() else None, etag, tag)


def _open_other(url: str) -> Remote:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    system.invalidate_cache()
    info = system.info(path)
    etag = next((str(value) for key, value in info.items() if key.lower() == "etag" and value), None)
    return Remote(system.open(path, "rb"), 0, info["size"], etag, None)


def _receive(remote: Remote, file: Path, origin: str, max_mb: int) -> int:
    """Write what comes to `file` from its offset on; return the bytes that are there then."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    terminal, received = sys.stderr.isatty(), remote.offset
    check_download_size(remote.size or 0, max_mb)
    if not terminal:
        size = "" if remote.size is None else f" ({remote.size / 2**20:,.1f} MiB)"
        here = f", {received / 2**20:,.1f} MiB are here already" if received else ""
        print(f"downloading {origin}{size}{here} …", flush=True)
    columns = (TextColumn(f"downloading {escape(origin)}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not terminal)
    with bar, file.open("ab") as out:
        task = bar.add_task("", total=remote.size, completed=received)
        while block := remote.stream.read(BLOCK):
            received += len(block)
            check_download_size(received, max_mb)  # an answer need not say, nor keep to, a size
            out.write(block)
            out.flush()  # what has come is there for the next try, even if this process is killed
            bar.advance(task, len(block))
    return received


def _is_transient(error: BaseException) -> bool:
    """Tell whether another try may help."""
    import aiohttp

    match error:
        case FileNotFoundError() | PermissionError() | aiohttp.ClientConnectorCertificateError() | aiohttp.InvalidURL():
            return False
        case aiohttp.ClientResponseError():
            return error.status >= 500 or error.status in TRANSIENT_STATUS
        case aiohttp.ClientError() | ConnectionError() | TimeoutError():
            return True
    return isinstance(error, OSError) and error.errno is None


def _reason(error: BaseException) -> str:
    """Return what went wrong in a line, without any address: it may hold a signature."""
    import aiohttp

    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientResponseError):  # its message could repeat the address
        known = error.status in set(HTTPStatus)
        name = type(error).__name__
        return f"{error.status} {HTTPStatus(error.status).phrase}" if known else f"{name}, status {error.status}"
    line = (str(error).splitlines() or [""])[0]
    line = re.sub(r"[a-z][a-z0-9+.-]*://\S+", "(address)", line, flags=re.IGNORECASE)
    return f"{type(error).__name__}: {shown(line, 200)}" if line else type(error).__name__


def _check_etag(expected: str | None, actual: str | None) -> None:
    if expected is None or (actual is not None and _bare(actual) == _bare(expected)):
        return
    if actual is None:
        raise AttuneError("the server gives it no ETag", "pin it by sha256 instead")
    raise AttuneError(
        "is not what params.yaml expects\n"
        f"  expected ETag {_bare(expected)}\n  actual   ETag {shown(_bare(actual), 160)}",
        "if the change is wanted, write the actual ETag into params.yaml",
    )


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _note_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _write_note(file: Path, remote: Remote, *, complete: bool) -> None:
    """Note beside a file which version it is and whether all of it is here."""
    note = {"etag": remote.etag, "version": remote.version, "complete": complete}
    _note_of(file).write_text(json.dumps(note), encoding="utf-8")


def _read_note(file: Path) -> dict[str, Any]:
    """Return the note beside a file; nothing where either is missing or unreadable."""
    try:
        note = json.loads(_note_of(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and file.is_file() else {}
