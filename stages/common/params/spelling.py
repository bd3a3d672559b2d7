"""How paths, addresses, queries and the like are spelled in params.yaml: a type for each."""

import re
from codecs import lookup
from pathlib import Path, PurePosixPath
from typing import Annotated
from unicodedata import normalize
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from stages.common.params.section import matching

# Protocols of fsspec that sources may use, with what pip has to install for each. An allow-list: fsspec has others that
# read this machine (file, local), wrap one another (simplecache::file://…) or build an answer (reference).
PROTOCOLS = {"https": "fsspec[http]", "http": "fsspec[http]", "s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
OWNER = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"


def _inside_inbox(path: str) -> str:
    path = normalize("NFC", str(PurePosixPath(path)))  # one spelling, so that no file is there twice
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
    return str(path)


def _remote(url: str) -> str:
    """Check an address; no message quotes it, since it may hold a secret by mistake."""
    parts = urlsplit(url)
    if parts.scheme not in PROTOCOLS:
        protocols = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise ValueError(f"must begin with one of {protocols}; a file of yours goes to data/inbox/, as path:")
    if parts.password is not None or (parts.username is not None and parts.scheme in ("http", "https")):
        raise ValueError("must not hold a user or password: give them through the environment, and change this one")
    if not parts.netloc or " " in url:
        raise ValueError("is no address of a file")
    return url


def _codec(name: str) -> str:
    try:
        "a".encode(name)  # Python also knows rot13, base64 and the like, which are no encodings of text
        return lookup(name).name
    except (LookupError, UnicodeError):
        raise ValueError("is no text encoding Python knows; try utf-8, latin-1, cp1252 or gb18030") from None


def _one_select(query: str) -> str:
    """Check that a query is one statement that reads; a second one could switch off the read-only mode."""
    query = query.strip().removesuffix(";").rstrip()
    if ";" in query:
        raise ValueError("must be one statement: leave out ';' (inside a text it can be written as CHR(59))")
    if not re.match(r"(?:--[^\n]*(?:\n|$)|/\*.*?\*/|\s|\()*(?:select|with)\b", query, re.IGNORECASE | re.DOTALL):
        raise ValueError("must be a SELECT (or WITH … SELECT): the database is read, never written")
    return query


def groups_of(pattern: str) -> list[str]:
    """Return the names of the groups of a regular expression; a ValueError if it is none, or has no named group.

    Its kind is Rust's, which no line can slow down.
    """
    import polars as pl

    try:
        groups = pl.first().str.extract_groups(f"^(?:{pattern})$")
        dtype = pl.LazyFrame(schema={"": pl.String}).select(groups).collect_schema()[""]
    except pl.exceptions.PolarsError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"is no regular expression of Rust's kind: {lines[-1].removeprefix('error: ')}") from None
    assert isinstance(dtype, pl.Struct)
    names = [field.name for field in dtype.fields if not field.name.isdigit()]
    if not names:
        raise ValueError("has no named group: (?P<text>.+) makes a column `text`, say")
    return names


Separator = Annotated[str, matching('[^"\r\n]', "must not be a quote or a line end, which a CSV file uses otherwise")]
Encoding = Annotated[str, AfterValidator(_codec)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
InboxPath = Annotated[str, AfterValidator(_inside_inbox)]
Member = Annotated[str, AfterValidator(_relative)]
Wheel = Annotated[str, matching(rf"{NAME}==[A-Za-z0-9][A-Za-z0-9._+!-]*", "must be one release, as NAME==VERSION")]
Package = Annotated[str, matching(NAME, "must be the name of an installed package, such as snownlp")]
Url = Annotated[str, AfterValidator(_remote)]
HubRepository = Annotated[
    str, matching(rf"(?!.*(--|\.\.)){OWNER}(/{OWNER})?", "must be a repository of the Hugging Face Hub, as owner/name")
]
Revision = Annotated[
    str,
    matching(
        r"(?!(?i:main|master|head)$)(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.+-]*",
        "must be a commit (40 hex digits, on its page under History) or a tag: the bytes of a branch change",
    ),
]
Variable = Annotated[
    str,
    matching(r"[A-Za-z_][A-Za-z0-9_]*", "must be the name of an environment variable with the database's address"),
]
Pattern = Annotated[str, Field(max_length=1_000), AfterValidator(lambda text: text if groups_of(text) else "")]
Select = Annotated[str, Field(max_length=20_000), AfterValidator(_one_select)]
