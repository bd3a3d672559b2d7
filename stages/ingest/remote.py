"""What a file at an address is asked for: its bytes from a place on, its size, and what tells its versions apart."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import urlsplit

from stages.common.errors import AttuneError
from stages.common.params.places import PROTOCOLS
from stages.common.shown import shown

PARTIAL_CONTENT, NOT_MODIFIED, RANGE_NOT_SATISFIABLE = 206, 304, 416
CONNECT_TIMEOUT, SILENCE_TIMEOUT = 30, 60  # seconds; a long download is no fault, a silent one is
TRANSIENT_STATUS = (408, 425, 429)  # besides all from 500 up


class Changed(OSError):
    """The file is not the one of which a part is here: start over."""


@dataclass(frozen=True)
class Answer:
    """What came back: a stream of the bytes from `offset` on; None if the copy here is still what it was."""

    stream: IO[bytes] | None
    offset: int
    size: int | None  # of the whole file
    etag: str | None
    version: str | None  # equal for equal content; None where nothing tells


def ask(url: str, offset: int, version: str | None, kept: str | None) -> Answer:
    """Ask for a file's bytes from `offset` on.

    Args:
        url: the address.
        offset: how many bytes of `version` are here; the answer may begin at 0 all the same.
        version: of the part that is here.
        kept: version of a whole copy that is here; if the file still is that one, there is no stream.

    Raises:
        Changed: if the file has changed meanwhile.
        AttuneError: if a package is missing, or an encrypted address leads to one that is not.
        Exception: whatever the protocol's library raises.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme in ("http", "https"):
            return _ask_http(url, offset, version, kept)
        return _ask_other(url, offset, version, kept)
    except ImportError as error:
        raise AttuneError(
            f"{scheme}:// needs a package that is not installed ({str(error).splitlines()[0]})",
            f"pip install '{PROTOCOLS[scheme]}'",
        ) from None


def _ask_http(url: str, offset: int, version: str | None, kept: str | None) -> Answer:
    """One streamed GET: fsspec's seekable file asks block by block, and would not see the file change in between."""
    from aiohttp import ClientTimeout
    from fsspec.implementations.http import HTTPFileSystem

    headers = {"Accept-Encoding": "identity"}  # else sizes and offsets would be those of a packed stream
    if offset and version:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    if kept:
        headers |= {"If-None-Match": kept} if kept.startswith('"') else {"If-Modified-Since": kept}
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
    etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
    tag = etag if etag and etag.startswith('"') else modified  # a weak ETag (W/"…") says nothing of bytes
    if answer.status == NOT_MODIFIED:
        stream.close()
        return Answer(None, 0, None, etag, kept)
    length = answer.headers.get("Content-Length", "")
    packed = answer.headers.get("Content-Encoding", "identity") != "identity"
    size = int(length) if length.isdecimal() and not packed else None
    if answer.status != PARTIAL_CONTENT:
        return Answer(stream, 0, size, etag, None if packed else tag)
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    other = tag != version and (tag or str(version).startswith('"'))  # the date may be left out here, an ETag may not
    if packed or not match or int(match[1]) != offset or other:
        stream.close()
        raise Changed("the server sent another part than was asked for")
    return Answer(stream, offset, int(match[2]) if match[2] != "*" else None, etag, version)


def _ask_other(url: str, offset: int, version: str | None, kept: str | None) -> Answer:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    found, etag = _state(system, path)
    if kept is not None and found == kept:
        return Answer(None, 0, None, etag, kept)
    begin = offset if version is not None and found == version else 0
    stream = system.open(path, "rb")
    stream.seek(begin)
    size = getattr(stream, "size", None)
    return Answer(stream, begin, size if isinstance(size, int) else None, etag, found)


def still(url: str, version: str | None) -> bool:
    """Tell whether a file is still of this version, where it can be told after it was read.

    Over http one answer is one version; elsewhere a file is read block by block.
    """
    if urlsplit(url).scheme in ("http", "https"):
        return True
    from fsspec.core import url_to_fs

    return _state(*url_to_fs(url))[0] == version


def _state(system: Any, path: str) -> tuple[str, str | None]:
    system.invalidate_cache()
    info = system.info(path)
    etag = next((str(value) for key, value in info.items() if key.lower() == "etag" and value), None)
    return str(system.ukey(path)), etag


def is_transient(error: BaseException) -> bool:
    """Tell whether another try may help."""
    if isinstance(error, AttuneError | FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    import aiohttp

    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.InvalidURL():
            return False
        case aiohttp.ClientResponseError():
            return error.status >= 500 or error.status in (*TRANSIENT_STATUS, RANGE_NOT_SATISFIABLE)
        case aiohttp.ClientError():
            return True
    return isinstance(error, Changed | ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno is None
    )


def reason_of(error: BaseException) -> str:
    """Return what went wrong in a line, without any address: it may hold a signature."""
    import aiohttp

    match error:
        case FileNotFoundError():
            return "there is no such file"
        case aiohttp.TooManyRedirects():
            return "it leads on and on"
        case aiohttp.NonHttpUrlClientError() | aiohttp.RedirectClientError():
            return "it leads on to something that is no web address"
        case aiohttp.ClientResponseError():
            return _status(error.status)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "the connection broke off"  # their own texts can hold what the server sent
        case TimeoutError():
            return "no answer in time"
    told = (str(error).splitlines() or [""])[0]
    told = re.sub(r"[a-z][a-z0-9+.-]*://\S+", "(address)", told, flags=re.IGNORECASE)
    return f"{type(error).__name__}: {shown(told, 200)}" if told else type(error).__name__


def _status(status: int) -> str:
    """Return a status and its usual words: the server's own could repeat the address, with its signature."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"status {status}"
