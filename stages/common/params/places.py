"""Where bytes come from: how paths, wheels, addresses, repositories and queries are spelled, checked as text."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from stages.common.params.base import spelled

# Protocols of fsspec that sources may use, with what pip has to install for each. An allow-list: fsspec has others that
# read this machine (file, local), wrap one another (simplecache::file://…) or build an answer (reference).
PROTOCOLS = {"https": "fsspec[http]", "http": "fsspec[http]", "s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
OWNER = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"


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
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("must be a path inside the package, archive or repository, without '..'")
    return member


def _remote(url: str) -> str:
    """Check an address; no message repeats it, because of what a slip may have put into it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no address") from None
    if parts.scheme not in PROTOCOLS:
        protocols = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise ValueError(f"must begin with one of {protocols}; a file of yours goes to data/inbox/, as path:")
    if parts.password is not None or (parts.username is not None and parts.scheme in ("http", "https")):
        raise ValueError("must not hold a user or password: give them through the environment, and change this one")
    if not parts.netloc or " " in url:
        raise ValueError("is no address of a file")
    return url


def _one_select(query: str) -> str:
    """Check that a query is one statement that reads; a second one could end that the database is read-only."""
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
    """Split `data/reviews.zip/day/1.csv` into the archive and the file inside it; (path, None) if there is none."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        if is_archive(parts[end - 1]):
            return "/".join(parts[:end]), "/".join(parts[end:])
    return path, None


def without_secrets(url: str) -> str:
    """Return an address without query string and fragment, which may hold a signature or a token."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
InboxPath = Annotated[str, AfterValidator(_inside_inbox)]
Member = Annotated[str, AfterValidator(_relative)]
Wheel = Annotated[str, spelled(rf"{NAME}==[A-Za-z0-9][A-Za-z0-9._+!-]*", "must be one release, as NAME==VERSION")]
Distribution = Annotated[str, spelled(NAME, "must be the name of an installed package, such as snownlp")]
Url = Annotated[str, AfterValidator(_remote)]
HubRepository = Annotated[
    str, spelled(rf"(?!.*(--|\.\.)){OWNER}(/{OWNER})?", "must be a repository of the Hugging Face Hub, as owner/name")
]
Revision = Annotated[
    str,
    spelled(
        r"(?!(?i:main|master|head)$)(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.+-]*",
        "must be a commit (40 hex digits, on its page under History) or a tag: the bytes of a branch change",
    ),
]
Variable = Annotated[
    str,
    spelled(r"[A-Za-z_][A-Za-z0-9_]*", "must be the name of an environment variable with the database's address"),
]
Select = Annotated[str, Field(max_length=20_000), AfterValidator(_one_select)]
