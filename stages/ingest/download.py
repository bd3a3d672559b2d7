"""Download files of `url` and `hub` sources: pinned, whole or not at all, never larger than allowed.

What comes from the hub is fetched as files at a fixed revision; nothing is loaded, and no code of a repository is run.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import escape
from hashlib import sha256
from http.client import responses
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from tqdm import tqdm

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import FolderSource, TextSource
from stages.common.readers.streams import BLOCK
from stages.ingest.archives import Workspace

PAUSE = 1.0  # seconds before the second try; each further pause is twice as long, and a little by chance
CONNECT_TIMEOUT, SILENCE_TIMEOUT = 30, 60  # seconds; a long download is no fault, a silent one is
TRANSIENT_STATUS = (408, 425, 429)  # besides all from 500 up


def download(source: TextSource, workspace: Workspace) -> tuple[Path, str | None]:
    """Return the file at the source's url, and its ETag if there is one.

    A file that is pinned (by `sha256` or `etag`) is fetched once, any other one each time.

    Raises:
        AttuneError: if it cannot be had, is too large or has another ETag. No message holds the query string.
    """
    # Named by a hash: an address may hold a signature, or what is no name of a file.
    name = sha256(f"{source.url} {source.sha256} {source.etag}".encode()).hexdigest()[:32]
    file = workspace.downloads / "url" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and (source.sha256 or source.etag):
        return file, json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["etag"]
    tries = Retrying(
        stop=stop_after_attempt(5),
        wait=wait_exponential_jitter(initial=PAUSE, max=60 * PAUSE, jitter=PAUSE),
        retry=retry_if_exception(_is_transient),
        before_sleep=lambda state: print(
            f"  {source.origin}: {reason(state.outcome.exception())}; trying again …"  # type: ignore
        ),
        reraise=True,
    )
    try:
        return file, tries(_fetch, source, file, workspace)
    except AttuneError:
        raise
    except Exception as error:
        raise AttuneError(
            f"{source.origin}: could not be downloaded: {reason(error)}",
            "check the address and the network; credentials, and packages to install: docs/data.md",
            passing=not isinstance(error, ImportError | FileNotFoundError | PermissionError),
        ) from None


def _fetch(source: TextSource, file: Path, workspace: Workspace) -> str | None:
    """Fetch the file and return its ETag; another one is under its name until this one is whole."""
    url, part = source.url or "", file.with_suffix(".part")
    stream, size, etag = _open_http(url) if urlsplit(url).scheme in ("http", "https") else _open_other(url)
    received = 0
    with stream:
        actual, expected = ((tag or "none").strip().removeprefix("W/").strip('"') for tag in (etag, source.etag))
        if source.etag and actual != expected:
            raise AttuneError(
                f"{source.origin}: is not what params.yaml expects\n"
                f"  expected ETag {expected}\n  actual   ETag {display(actual, 160, None)}",
                "if the change is wanted, write the actual ETag into params.yaml, or a sha256 where there is no ETag",
            )
        workspace.check_download(size, source.origin)
        print(f"downloading {source.origin} ({size / 2**20:,.1f} MiB) …", flush=True)
        bar = tqdm(total=size or None, unit="B", unit_scale=True, leave=False, disable=None)
        with part.open("wb") as out, bar:
            while block := stream.read(BLOCK):
                received += len(block)
                workspace.check_download(received, source.origin)  # an answer need not say, nor keep to, a size
                out.write(block)
                bar.update(len(block))
    if size and received != size:
        raise ConnectionError(f"it ended after {received:,} of {size:,} bytes")
    file.with_suffix(".json").write_text(json.dumps({"etag": etag}), encoding="utf-8")
    part.replace(file)
    return etag


def _open_http(url: str) -> tuple[IO[bytes], int, str | None]:
    """Return a stream, its bytes (0 where nobody says it) and the ETag.

    It is one GET: fsspec's seekable file asks block by block, and would not see the file change in between.
    """
    from aiohttp import ClientTimeout
    from fsspec.implementations.http import HTTPFileSystem

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE_TIMEOUT)
    system = HTTPFileSystem(
        skip_instance_cache=True,
        encoded=url.isascii(),  # a signature holds for the address as it is spelled
        client_kwargs={"timeout": timeout, "trust_env": True},  # proxies and ~/.netrc
    )
    # The size need not be asked for beforehand, and is that of the file: it comes unpacked.
    stream = system.open(url, block_size=0, size=1, headers={"Accept-Encoding": "identity"})
    headers = stream.r.headers
    packed = headers.get("Content-Encoding", "identity") != "identity"  # all the same
    return stream, 0 if packed else int(headers.get("Content-Length") or 0), headers.get("ETag")


def _open_other(url: str) -> tuple[IO[bytes], int, str | None]:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    system.invalidate_cache()
    info = system.info(path)
    etag = next((str(value) for key, value in info.items() if key.lower() == "etag" and value), None)
    return system.open(path, "rb"), info["size"] or 0, etag


def _is_transient(error: BaseException) -> bool:
    """Return whether another try may help."""
    from aiohttp import ClientError, ClientResponseError

    if isinstance(error, ClientResponseError):
        return error.status >= 500 or error.status in TRANSIENT_STATUS
    return isinstance(error, ClientError | ConnectionError | TimeoutError)


def reason(error: BaseException) -> str:
    """Return what went wrong in a line, without any address: it may hold a signature."""
    if status := getattr(error, "status", None):  # the server's own words could repeat the address
        return f"{status} {responses.get(status, '')}"
    line = re.sub(r"[a-z][a-z0-9+.-]*://\S+", "(address)", str(error).strip(), flags=re.IGNORECASE)
    return f"{type(error).__name__}: {display(line, 300, None)}"


def hub_file(source: TextSource, workspace: Workspace) -> tuple[Path, str]:
    """Return a file of a data set's repository on the Hugging Face Hub, and the commit it is of.

    Raises:
        AttuneError: if it cannot be had or is too large.
    """
    from huggingface_hub import hf_hub_download

    cache = workspace.downloads / "hub"
    fetch = partial(hf_hub_download, repo_type="dataset", revision=source.revision, cache_dir=cache)
    with _hub_errors(source):
        plan = fetch(source.hub, source.stored, dry_run=True)
        workspace.check_download(plan.file_size or 0, source.origin)
        return Path(fetch(source.hub, source.stored)), plan.commit_hash


def hub_folder(source: FolderSource, allowed: Sequence[str], workspace: Workspace) -> tuple[Path, str]:
    """Return a folder with those of its own files that match an allowed pattern, and the commit they are of.

    Raises:
        AttuneError: if they cannot be had or are too large.
    """
    from huggingface_hub import snapshot_download

    folder = (source.member or "").strip("/")
    inside = escape(f"{folder}/") if folder else ""
    fetch = partial(
        snapshot_download,
        revision=source.revision,
        cache_dir=workspace.downloads / "hub",
        allow_patterns=[f"{inside}{pattern}" for pattern in allowed],
        ignore_patterns=[f"{inside}*/*"],  # here * does not stop at a /
    )
    with _hub_errors(source):
        plans = fetch(source.hub, dry_run=True)
        if not plans:
            raise AttuneError(
                f"{source.origin}: holds none of the files that are needed", "check member, and that it is a model"
            )
        workspace.check_download(sum(plan.file_size or 0 for plan in plans), source.origin)
        snapshot = Path(fetch(source.hub))
    return snapshot / folder, snapshot.name


@contextmanager
def _hub_errors(source: TextSource | FolderSource) -> Iterator[None]:
    """Turn the client's errors into messages without addresses, which may be signed."""
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.DryRunError, OSError, ValueError) as error:
        answer = getattr(error, "response", None)
        raise AttuneError(
            f"{source.origin}: the hub could not be read ({reason(error)})",
            "check hub, revision, member and the network; a private repository needs your token in HF_TOKEN, and one "
            "that is gated your consent on its page",
            passing=answer is None or answer.status_code >= 500,
        ) from None
