"""Where bytes come from: how paths, wheels, addresses, repositories and queries are spelled, checked as text."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

# Protocols of fsspec that sources may use, with what pip has to install for each. An allow-list: fsspec has others that
# read this machine (file, local), wrap one another (simplecache::file://…) or build an answer (reference).
PROTOCOLS = {"https": "fsspec[http]", "http": "fsspec[http]", "s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BRANCHES = ("main", "master", "head")


def _inside_inbox(path: str) -> str:
    parts = PurePosixPath(path).parts
    if parts[:2] != ("data", "inbox") or len(parts) < 3 or ".." in parts:
        raise ValueError("must be a file or folder below data/inbox/, where DVC sees it change: copy it there")
    for depth in range(3, len(parts)):
        if Path(*parts[:depth]).is_symlink():
            raise ValueError(f"{'/'.join(parts[:depth])} is a link, and DVC looks into no linked folder: copy it there")
    return path


def _relative(member: str) -> str:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or not path.parts or not member.isprintable():
        raise ValueError("must be a path inside the package, archive or repository, without '..'")
    return member


def _pinned(requirement: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*", requirement):
        raise ValueError("must be pinned to one release, as NAME==VERSION")
    return requirement


def _distribution(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("must be the name of an installed package, such as snownlp")
    return name


def _remote(url: str) -> str:
    """Check an address; no message repeats it, because of what a slip may have put into it."""
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or (parts.scheme in ("http", "https") and parts.username is not None)
        host = parts.hostname or parts.netloc
    except ValueError:
        raise ValueError("is no address") from None
    if parts.scheme in ("file", "local") or not parts.scheme:
        raise ValueError("must be an address such as https://…; a file of yours goes to data/inbox/, as path:")
    if parts.scheme not in PROTOCOLS or "://" not in url:
        protocols = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise ValueError(f"must begin with one of {protocols}; from elsewhere, download the file to data/inbox/ first")
    if secret:
        raise ValueError(
            "must not hold a user or password: this file is committed; give them through the environment "
            "(docs/data.md says how) and change the password that stood here"
        )
    chained = "::" in url and parts.scheme not in ("http", "https")  # fsspec would open one protocol inside another
    if not host or chained or not url.isprintable() or " " in url:
        raise ValueError("is no address of a file")
    return url


def _repository(name: str) -> str:
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
    if not re.fullmatch(rf"{part}(?:/{part})?", name) or "--" in name or ".." in name:
        raise ValueError("must be a repository of the Hugging Face Hub, as owner/name")
    return name


def _fixed(revision: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", revision) or ".." in revision:
        raise ValueError("must be a commit (40 hex digits) or a tag")
    if revision.lower() in BRANCHES:
        raise ValueError(
            f"{revision} is a branch, which moves, and a rebuild must get the same bytes: name a commit "
            "(40 hex digits, on the repository's page under History) or a tag"
        )
    return revision


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            "must be the name of an environment variable that holds the database's address, such as REVIEWS_DB; "
            "an address with a password has no place in this file"
        )
    return name


def _one_select(query: str) -> str:
    """Check that a query is one statement that begins as a reading one does.

    This is the first of two fences: the database is opened read-only besides. It keeps a second statement out, which
    could undo the second fence (`SELECT 1; COMMIT; SET …`).
    """
    query = query.strip().removesuffix(";").rstrip()
    if ";" in query:
        raise ValueError("must be one statement: leave out ';' (inside a text it can be written as CHR(59))")
    if not re.match(r"(?:--[^\n]*(?:\n|$)|/\*.*?\*/|\s|\()*(?:select|with)\b", query, re.IGNORECASE | re.DOTALL):
        raise ValueError("must be a SELECT (or WITH … SELECT): the database is read, never written")
    return query


def is_archive(name: str) -> bool:
    """Tell whether a file with this name holds further files."""
    return name.lower().endswith(ARCHIVES)


def split_at_archive(path: str) -> tuple[str, str | None]:
    """Part `data/reviews.zip/day/1.csv` into the archive and the file inside it; (path, None) if there is none."""
    parts = path.split("/")
    for at, part in enumerate(parts[:-1], start=1):
        if is_archive(part):
            return "/".join(parts[:at]), "/".join(parts[at:])
    return path, None


def without_secrets(url: str) -> str:
    """Return an address without query string and fragment, which may hold a signature or a token."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
InboxPath = Annotated[str, AfterValidator(_inside_inbox)]
Member = Annotated[str, AfterValidator(_relative)]
Wheel = Annotated[str, AfterValidator(_pinned)]
Distribution = Annotated[str, AfterValidator(_distribution)]
Url = Annotated[str, AfterValidator(_remote)]
HubRepository = Annotated[str, AfterValidator(_repository)]
Revision = Annotated[str, AfterValidator(_fixed)]
Variable = Annotated[str, AfterValidator(_variable)]
Select = Annotated[str, Field(max_length=20_000), AfterValidator(_one_select)]
