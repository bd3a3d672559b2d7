"""Read the rows of one SELECT out of a database that is opened for reading alone, in chunks."""

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import polars as pl

from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.ingest.expansion import Allowance, Limits

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

ROWS_AT_A_TIME = 10_000
CELL = 16  # bytes that polars needs for a text besides its characters
CONNECT_TIMEOUT = 30  # seconds

# Said to each new connection, before any transaction begins. What is not listed here is opened as it is; nothing is
# ever committed there either, but only an account without the right to write makes it sure (docs/data.md).
READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}
UNLESS_TOLD = Limits()
SQLITE_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


def read_query(source: TextSource, limits: Limits = UNLESS_TOLD) -> tuple[pl.DataFrame, str]:
    """Return the rows of a query, all columns as text, and a SHA-256 of them.

    A database gives rows in any order; here they are sorted, so that the same rows are the same bytes.

    Raises:
        AttuneError: if the variable is not set, the database cannot be reached, or the query fails, would write, gives
            no row, two columns of one name, bytes that are no text, or more than `limits` allow. No message holds the
            address or its password.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    given = os.environ.get(source.sql or "")
    if not given:
        raise AttuneError(
            f"{source.origin}: the environment variable {source.sql} is not set",
            f"export {source.sql}='postgresql://reader:password@host/database' (or sqlite:////path/to/file.db)",
        )
    try:
        url = make_url(given)
        if url.get_dialect().is_async:
            raise AttuneError(
                f"{source.origin}: {source.sql} names an asynchronous driver ({url.drivername})",
                f"name one that waits for its answers, or none: {url.get_backend_name()}://…",
            )
        engine = _engine(url)
    except NoSuchModuleError:
        raise AttuneError(
            f"{source.origin}: SQLAlchemy knows no database of the kind that {source.sql} begins with",
            "write it as postgresql://…, mysql+pymysql://… or sqlite:////…, and install the driver it names",
        ) from None
    except ImportError as error:
        driver = "psycopg[binary]" if error.name == "psycopg" else error.name or "the driver"
        raise AttuneError(
            f"{source.origin}: the database's driver is not installed", f"pip install '{driver}'"
        ) from None
    except (ArgumentError, ValueError, TypeError):
        raise AttuneError(
            f"{source.origin}: {source.sql} holds no database address",
            "write it as dialect://user:password@host/database, special marks of the password as %40 and the like",
        ) from None
    with _told(source, url):
        table = _rows(engine, source, Allowance(limits.max_expanded_mb, source.origin))
    if table.is_empty():
        raise AttuneError(f"{source.origin}: the query gives no rows", "try it with a client of the database")
    table = table.sort(table.columns, nulls_last=True)
    digest = sha256(json.dumps(table.columns, ensure_ascii=False).encode())
    for row in table.iter_rows():
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return table, digest.hexdigest()


def _rows(engine: "Engine", source: TextSource, allowance: Allowance) -> pl.DataFrame:
    """Read chunk by chunk: a server-side cursor where the driver has one, and text packed by polars here."""
    chunks: list[pl.DataFrame] = []
    with engine.connect() as connection:
        streamed = connection.execution_options(stream_results=True, no_parameters=True)
        result = streamed.exec_driver_sql(source.query or "")  # as it stands: `:name` and `%` mean nothing here
        if not result.returns_rows:
            raise AttuneError(f"{source.origin}: the query gives no rows", "write one SELECT")
        names = [column[0] for column in result.cursor.description]
        for name in names:
            if names.count(name) > 1:
                raise AttuneError(
                    f"{source.origin}: the query gives the column {name!r} twice", f"rename one: AS other_{name}"
                )
        read = 0
        for rows in result.yield_per(ROWS_AT_A_TIME).partitions():
            columns = {
                name: _column([row[at] for row in rows], source.origin, name, read) for at, name in enumerate(names)
            }
            texts = sum(len(text.encode()) for column in columns.values() for text in column if text)
            allowance.spend(texts + CELL * len(rows) * len(names))
            chunks.append(pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String)))
            read += len(rows)
        connection.rollback()
    return pl.concat(chunks) if chunks else pl.DataFrame(schema=dict.fromkeys(names, pl.String))


def _column(values: Sequence[Any], origin: str, name: str, before: int) -> list[str | None]:
    texts = []
    for number, value in enumerate(values, start=before + 1):
        try:
            texts.append(_as_text(value))
        except UnicodeDecodeError:
            raise AttuneError(
                f"{origin}: row {number}, column {name!r}: bytes that are no UTF-8 text",
                "leave the column out of the query, or convert it there",
            ) from None
    return texts


def _as_text(value: Any) -> str | None:
    """The text for a value, as the other formats have it: true, 1.5, 2026-01-31 12:00:00, JSON for lists.

    Moments with a time zone are given in UTC: a server tells them in the zone of whoever asks.
    """
    match value:
        case None | "":
            return None
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")  # a driver may pass on half a character
        case bool():
            return "true" if value else "false"
        case datetime():
            return (value.astimezone(UTC) if value.tzinfo else value).isoformat(sep=" ")
        case date() | time():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case list() | dict() | tuple():
            return json.dumps(value, ensure_ascii=False, default=str)
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8") or None
    return str(value)


def _engine(url: "URL") -> "Engine":
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    dialect = url.get_backend_name()
    if dialect == "sqlite":
        return create_engine("sqlite://", creator=lambda: _open_sqlite(url.database or ""), poolclass=NullPool)
    timeout = {"connect_timeout": CONNECT_TIMEOUT} if dialect in ("postgresql", "mysql", "mariadb") else {}
    engine = create_engine(url, connect_args=timeout, poolclass=NullPool, hide_parameters=True)
    if dialect in READ_ONLY:

        @event.listens_for(engine, "connect")
        def read_only(connection: Any, _: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(READ_ONLY[dialect])
            if dialect != "oracle":  # there it holds for the transaction that it begins
                connection.commit()

    return engine


def _open_sqlite(database: str) -> sqlite3.Connection:
    """Open a file so that nothing can be written, there or beside it (ATTACH, VACUUM INTO)."""
    connection = sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True, timeout=CONNECT_TIMEOUT)
    connection.execute("PRAGMA query_only = ON")

    def allow(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        harmless = action in SQLITE_ALLOWED and (second or "").lower() != "load_extension"
        asked_by_sqlalchemy = (action, first, second) == (sqlite3.SQLITE_PRAGMA, "read_uncommitted", None)
        return sqlite3.SQLITE_OK if harmless or asked_by_sqlalchemy else sqlite3.SQLITE_DENY

    connection.set_authorizer(allow)
    return connection


@contextmanager
def _told(source: TextSource, url: "URL") -> Iterator[None]:
    """Tell a database's complaint in its own words, without the password."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        told = str(getattr(error, "orig", None) or error)
        for secret in {url.password or "", quote(url.password or "", safe=""), quote_plus(url.password or "")}:
            told = told.replace(secret, "***") if secret else told
        line = re.sub(r"//[^/\s@]*@", "//***@", (told.strip().splitlines() or [type(error).__name__])[0][:300])
        raise AttuneError(
            f"{source.origin}: the database says: {line}",
            f"check the query, and the address in {source.sql}; the database is opened for reading alone",
        ) from None
    except (ValueError, TypeError, OSError) as error:
        # A driver that an odd address or row trips up; its words could hold the address.
        raise AttuneError(
            f"{source.origin}: the database cannot be reached or read ({type(error).__name__})",
            f"check the address in {source.sql}: its host, its file, its options",
        ) from None
