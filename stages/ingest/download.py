"""Download the file of a `url` source: pinned, resumed where that is safe, never larger than allowed."""

import json
import os
from errno import EDQUOT, ENOSPC, EROFS
from hashlib import sha256
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.shown import shown as named
from stages.ingest.progress import shown
from stages.ingest.remote import RANGE_NOT_SATISFIABLE, Answer, Changed, ask, is_transient, reason_of, still

TRIES = 5
BLOCK = 1 << 20


def download(source: TextSource, downloads: Path, max_mb: int, pause: float = 1.0) -> tuple[Path, str | None]:
    """Return the file at the source's url, and its ETag if there is one.

    A file that is pinned (by `sha256` or `etag`) is fetched once. Of any other one its server is asked each time, but
    sends it only if it has changed, where that can be told.

    Args:
        source: with `url`.
        downloads: folder that keeps downloads from run to run.
        max_mb: largest size in MiB.
        pause: seconds before the second try; each further pause is twice as long, and a little by chance.

    Raises:
        AttuneError: if it cannot be had, is too large or has another ETag. No message holds the query string.
    """
    url = source.url or ""
    folder = downloads / "url"
    folder.mkdir(parents=True, exist_ok=True)
    # Named by a hash: an address may hold a signature, or what is no name of a file.
    file = folder / sha256(f"{url}\n{source.sha256}\n{source.etag}".encode()).hexdigest()[:32]
    kept = _read_note(file) if file.is_file() else {}
    if kept and (source.sha256 or source.etag):
        return file, kept.get("etag")
    tries = Retrying(
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential_jitter(initial=pause, max=60 * pause, jitter=pause),
        retry=retry_if_exception(is_transient),
        before_sleep=lambda state: print(
            f"  {source.origin}: {reason_of(state.outcome.exception())}; trying again …"  # type: ignore
        ),
        reraise=True,
    )
    try:
        etag: str | None = tries(_try, source, file, max_mb, kept.get("version"))
        return file, etag
    except AttuneError as error:
        raise AttuneError(f"{source.origin}: {error.what}", error.fix) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EROFS):
            raise  # our own disk
        raise AttuneError(
            f"{source.origin}: could not be downloaded: {reason_of(error)}",
            "check the address and the network; credentials come from the environment (docs/data.md)",
            passing=True,
        ) from None


def _try(source: TextSource, file: Path, max_mb: int, kept: str | None) -> str | None:
    """Fetch what is missing; what has come stays in FILE.part for the next try, in this run or another."""
    part = file.with_suffix(".part")
    here = _read_note(part) if part.is_file() else {}
    offset = part.stat().st_size if here.get("version") else 0
    try:
        answer = ask(source.url or "", offset, here.get("version"), kept)
    except Exception as error:
        if isinstance(error, Changed) or getattr(error, "status", 0) == RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        raise
    if answer.stream is None:
        return answer.etag
    with answer.stream:
        _check_etag(source.etag, answer.etag)
        if answer.offset and here.get("size") not in (None, answer.size):
            part.unlink()
            raise Changed("it has another size now")
        if not answer.offset:
            part.unlink(missing_ok=True)  # before the note: a part must not be taken for one of another version
        _write_note(part, answer)
        received = _receive(answer, part, source.origin, max_mb)
    if answer.size is not None and received != answer.size:
        raise ConnectionError(f"it ended after {received:,} of {answer.size:,} bytes")
    if not still(source.url or "", answer.version):
        part.unlink()
        raise Changed("it changed while it was read")
    _note_of(file).unlink(missing_ok=True)  # never a new note beside an old file
    os.replace(part, file)
    os.replace(_note_of(part), _note_of(file))
    return answer.etag


def _receive(answer: Answer, part: Path, origin: str, max_mb: int) -> int:
    """Write the answer to `part` from its offset on; return the bytes that are there then."""
    limit, received = max_mb << 20, answer.offset
    too_large = AttuneError(f"is larger than {max_mb:,} MiB", "if it is what you expect, raise ingest.max_download_mb")
    if answer.size is not None and answer.size > limit:
        raise too_large
    with part.open("r+b" if received else "wb") as out, shown(origin, received, answer.size) as advance:
        out.truncate(received)
        out.seek(received)
        while block := answer.stream.read(BLOCK):  # type: ignore[union-attr]
            received += len(block)
            if received > limit:  # an answer need not say, nor keep to, a size
                out.truncate(0)
                raise too_large
            out.write(block)
            out.flush()  # what has come is there for the next try, even if this process is killed
            advance(len(block))
    return received


def _check_etag(expected: str | None, actual: str | None) -> None:
    if expected is None or (actual is not None and _bare(actual) == _bare(expected)):
        return
    if actual is None:
        raise AttuneError("the server gives it no ETag", "pin it by sha256 instead")
    raise AttuneError(
        "is not what params.yaml expects\n"
        f"  expected ETag {_bare(expected)}\n  actual   ETag {named(_bare(actual), 160)}",
        "if the change is wanted, write the actual ETag into params.yaml",
    )


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _note_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _write_note(file: Path, answer: Answer) -> None:
    note = {"etag": answer.etag, "version": answer.version, "size": answer.size}
    _note_of(file).write_text(json.dumps(note), encoding="utf-8")


def _read_note(file: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note_of(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
