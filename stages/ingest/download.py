"""Download files of `url` and `hub` sources: pinned, whole or not at all, never larger than allowed.

What comes from the hub is fetched as files at a fixed revision; nothing is loaded, and no code of a repository is run.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import escape
from hashlib import sha256
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from tqdm import tqdm

from stages.common.digests import sha256_file
from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import FolderSource, TextSource
from stages.common.readers.streams import BLOCK
from stages.ingest.archives import Workspace

PAUSE = 1.0  # seconds before the second try; each further pause is twice as long, and a little by chance
CONNECT_TIMEOUT, SILENCE_TIMEOUT = 30, 60  # seconds; a long download is no fault, a silent one is
TRANSIENT_STATUS = (408, 425, 429)  # besides all from 500 up


def check_pin(origin: str, name: str, expected: str | None, actual: str) -> str:
    """Return a file's hash (or ETag); raise AttuneError unless it is the one that is expected, if there is one."""
    if expected not in (None, actual):
        raise AttuneError(
            f"{origin}: its content is not what params.yaml expects\n"
            f"  expected {name} {expected}\n  actual   {name} {display(actual, 160, None)}",
            f"if the change is wanted, write the actual {name} into params.yaml; if not, restore the file",
        )
    return actual


def download(source: TextSource, workspace: Workspace) -> tuple[Path, str | None]:
    """Return the file at the source's url, and its ETag if there is one.

    A file that is pinned (by `sha256` or `etag`) is fetched once, any other one each time. An AttuneError if it cannot
    be had, is too large or has another ETag. No message holds the query string.
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
    with _named_faults(source):
        return file, tries(_fetch, source, file, workspace)


def _fetch(source: TextSource, file: Path, workspace: Workspace) -> str | None:
    """Fetch the file and return its ETag; another one is under its name until this one is whole."""
    url, part = source.url or "", file.with_suffix(".part")
    stream, size, etag = _open_http(url) if urlsplit(url).scheme in ("http", "https") else _open_other(url)
    received = 0
    with stream:
        actual, expected = ((tag or "none").strip().removeprefix("W/").strip('"') for tag in (etag, source.etag))
        check_pin(source.origin, "ETag", source.etag and expected, actual)
        workspace.check_download(size, source.origin)
        print(f"downloading {source.origin} ({size / 2**20:,.1f} MiB) …", flush=True)
        bar = {"total": size or None, "unit": "B", "unit_scale": True, "leave": False, "disable": None}
        with part.open("wb") as out, tqdm.wrapattr(stream, "read", **bar) as watched:
            while block := watched.read(BLOCK):
                received += len(block)
                workspace.check_download(received, source.origin)  # an answer need not say, nor keep to, a size
                out.write(block)
    if size and received != size:
        raise ConnectionError(f"it ended after {received:,} of {size:,} bytes")
    check_pin(source.origin, "sha256", source.sha256, sha256_file(part))  # it may be an error page
    file.with_suffix(".json").write_text(json.dumps({"etag": etag}), encoding="utf-8")
    part.replace(file)
    return etag


def _open_http(url: str) -> tuple[Any, int, str | None]:
    """Return a stream, its bytes (0 where nobody says it) and the ETag.

    It is one GET: fsspec's seekable file asks block by block, and would not see the file change in between.
    """
    import requests  # type: ignore[import-untyped]

    headers = {"Accept-Encoding": "identity"}  # else the size would be that of a packed stream
    answer = requests.get(url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, SILENCE_TIMEOUT))
    answer.raise_for_status()
    answer.raw.decode_content = True  # some servers pack it all the same
    length = None if "Content-Encoding" in answer.headers else answer.headers.get("Content-Length")
    return answer.raw, int(length or 0), answer.headers.get("ETag")


def _open_other(url: str) -> tuple[Any, int, str | None]:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    system.invalidate_cache()
    info = system.info(path)
    etag = next((str(value) for key, value in info.items() if key.lower() == "etag" and value), None)
    return system.open(path, "rb"), info["size"] or 0, etag


@contextmanager
def _named_faults(source: TextSource | FolderSource) -> Iterator[None]:
    """Turn the libraries' errors into messages without addresses, which may be signed."""
    try:
        yield
    except AttuneError:
        raise
    except Exception as error:  # each library has kinds of its own
        status, lasting = _status(error), isinstance(error, ImportError | PermissionError)
        raise AttuneError(
            f"{source.origin}: could not be downloaded: {reason(error)}",
            "check the source's keys and the network; a private repository of the hub needs your token in HF_TOKEN, "
            "one that is gated your consent on its page; other credentials, and packages to install: docs/data.md",
            passing=status >= 500 if status else not lasting and type(error) is not FileNotFoundError,
        ) from None


def _is_transient(error: BaseException) -> bool:
    """Return whether another try may help."""
    from requests import ConnectionError as NoConnection
    from requests import Timeout
    from urllib3.exceptions import HTTPError  # where the stream breaks

    status = _status(error)
    broken = isinstance(error, NoConnection | Timeout | HTTPError | ConnectionError | TimeoutError)
    return status >= 500 or status in TRANSIENT_STATUS if status else broken


def _status(error: BaseException) -> int:
    """Return the status of a server's answer, or 0."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def reason(error: BaseException) -> str:
    """Return what went wrong in a line, without any address: it may hold a signature."""
    line = re.sub(r"\S*(?:://|\?)\S+", "(address)", str(error).strip())
    if status := _status(error):  # the server's own words could repeat the address
        line = f"{status} {responses.get(status, '')}"
    return f"{type(error).__name__}: {display(line, 300, None)}"


def hub_file(source: TextSource, workspace: Workspace) -> tuple[Path, str]:
    """Return a file of a data set on the Hugging Face Hub, and its commit; an AttuneError if it is not to be had."""
    from huggingface_hub import hf_hub_download

    cache = workspace.downloads / "hub"
    fetch = partial(hf_hub_download, repo_type="dataset", revision=source.revision, cache_dir=cache)
    with _named_faults(source):
        plan = fetch(source.hub, source.stored, dry_run=True)
        workspace.check_download(plan.file_size or 0, source.origin)
        return Path(fetch(source.hub, source.stored)), plan.commit_hash


def hub_folder(source: FolderSource, allowed: Sequence[str], workspace: Workspace) -> tuple[Path, str]:
    """Return a folder with its own files of allowed names, and their commit; an AttuneError if it is not to be had."""
    from huggingface_hub import snapshot_download

    folder = (source.member or "").strip("/")
    inside = escape(f"{folder}/") if folder else ""
    fetch = partial(
        snapshot_download,
        revision=source.revision,
        cache_dir=workspace.downloads / "hub",
        allow_patterns=[escape(folder)] if folder.endswith(".gguf") else [f"{inside}{name}" for name in allowed],
        ignore_patterns=[f"{inside}*/*"],  # here * does not stop at a /
    )
    with _named_faults(source):
        plans = fetch(source.hub, dry_run=True)
        if not plans:
            what = f"{source.origin}: holds none of the files that are needed"
            raise AttuneError(what, "check member, and that it is a model")
        workspace.check_download(sum(plan.file_size or 0 for plan in plans), source.origin)
        snapshot = Path(fetch(source.hub))
    return snapshot / folder, snapshot.name
