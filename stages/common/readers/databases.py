"""The rows of one SELECT out of a database that is opened for reading alone, chunk by chunk, as text."""

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote

import polars as pl

from stages.common.errors import AttuneError
from stages.common.readers.table import ROWS, Table
from stages.common.readers.values import as_text, columns_of

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

ROWS_AT_A_TIME = 10_000
CONNECT_TIMEOUT = 30  # seconds

# Said to each new connection, before any transaction begins. What is not listed here is opened as it is; nothing is
# ever committed there either, but only an account without the right to write makes it sure (docs/data.md).
READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}
SQLITE_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


def select(variable: str, query: str, origin: str, size: int | None = None) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query in chunks, all columns as text; without rows, one chunk that has none.

    Args:
        variable: environment variable that holds the database's address.
        query: one SELECT, taken as it stands.
        origin: what messages call it.
        size: rows of a chunk; None: 10,000.

    Raises:
        AttuneError: if the variable is not set, the database cannot be reached, or the query fails, would write, gives
            two columns of one name or bytes that are no text. No message holds the address or its password.
    """
    url, engine = _opened(variable, origin)
    with _told(origin, variable, url):
        yield from _chunks(engine, query, origin, size or ROWS_AT_A_TIME)


class QueryRows(Table):
    """The rows of a query as they come, `size` at a time; see `select`."""

    def __init__(self, variable: str, query: str, origin: str, size: int) -> None:
        self._chunks = select(variable, query, origin, size)
        self._first = next(self._chunks)
        super().__init__(origin, self._first.columns)

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table; the batches are as large as the chunks."""
        for chunk in chain([self._first], self._chunks):
            yield columns_of(chunk, names)


def _opened(variable: str, origin: str) -> "tuple[URL, Engine]":
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    given = os.environ.get(variable)
    if not given:
        raise AttuneError(
            f"{origin}: the environment variable {variable} is not set",
            f"export {variable}='postgresql://reader:password@host/database' (or sqlite:////path/to/file.db)",
        )
    try:
        url = make_url(given)
        if url.drivername == "postgresql":  # SQLAlchemy before 2.1 would take psycopg2
            url = url.set(drivername="postgresql+psycopg")
        if url.get_dialect().is_async:
            raise AttuneError(
                f"{origin}: {variable} names an asynchronous driver ({url.drivername})",
                f"name one that waits for its answers, or none: {url.get_backend_name()}://…",
            )
        return url, _engine(url)
    except NoSuchModuleError:
        raise AttuneError(
            f"{origin}: SQLAlchemy knows no database of the kind that {variable} begins with",
            "write it as postgresql://…, mysql+pymysql://… or sqlite:////…, and install the driver it names",
        ) from None
    except ImportError as error:
        driver = "psycopg[binary]" if error.name == "psycopg" else error.name or "the driver"
        raise AttuneError(f"{origin}: the database's driver is not installed", f"pip install '{driver}'") from None
    except (ArgumentError, ValueError, TypeError):
        raise AttuneError(
            f"{origin}: {variable} holds no database address",
            "write it as dialect://user:password@host/database, special marks of the password as %40 and the like",
        ) from None


def _chunks(engine: "Engine", query: str, origin: str, size: int) -> Iterator[pl.DataFrame]:
    """Read with a server-side cursor where the driver has one, and let polars pack the texts here."""
    with engine.connect() as connection:
        streamed = connection.execution_options(stream_results=True, no_parameters=True)
        result = streamed.exec_driver_sql(query)  # as it stands: `:name` and `%` mean nothing here
        if not result.returns_rows:
            raise AttuneError(f"{origin}: the query gives no rows", "write one SELECT")
        names = [column[0] for column in result.cursor.description]
        for name in names:
            if names.count(name) > 1:
                raise AttuneError(
                    f"{origin}: the query gives the column {name!r} twice", f"rename one: AS other_{name}"
                )
        read = 0
        for rows in result.yield_per(size).partitions():
            columns = {name: _column([row[at] for row in rows], origin, name, read) for at, name in enumerate(names)}
            yield pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))
            read += len(rows)
        connection.rollback()
    if not read:
        yield pl.DataFrame(schema=dict.fromkeys(names, pl.String))


def _column(values: Sequence[Any], origin: str, name: str, before: int) -> list[str | None]:
    texts = []
    for number, value in enumerate(values, start=before + 1):
        try:
            texts.append(_value_as_text(value))
        except UnicodeDecodeError:
            raise AttuneError(
                f"{origin}: row {number}, column {name!r}: bytes that are no UTF-8 text",
                "leave the column out of the query, or convert it there",
            ) from None
    return texts


def _value_as_text(value: Any) -> str | None:
    """Return the text for a value, as the other formats have it: true, 1.5, 2026-01-31 12:00:00, JSON for lists.

    Moments with a time zone are given in UTC: a server tells them in the zone of whoever asks.
    """
    match value:
        case None | "":
            return None
        case bool():
            return "true" if value else "false"
        case datetime():
            return (value.astimezone(UTC) if value.tzinfo else value).isoformat(sep=" ")
        case date() | time():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case list() | dict() | tuple() | str():
            return as_text(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8") or None
    return str(value)


def _engine(url: "URL") -> "Engine":
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    dialect = url.get_backend_name()
    if dialect == "sqlite":
        return create_engine("sqlite://", creator=lambda: _open_sqlite(unquote(url.database or "")), poolclass=NullPool)
    timeout = {"connect_timeout": CONNECT_TIMEOUT} if dialect in READ_ONLY else {}
    engine = create_engine(url, connect_args=timeout, poolclass=NullPool, hide_parameters=True)
    if dialect in READ_ONLY:

        @event.listens_for(engine, "connect")
        def read_only(connection: Any, _: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(READ_ONLY[dialect])
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
def _told(origin: str, variable: str, url: "URL") -> Iterator[None]:
    """Tell a database's complaint in its own words, without the password."""
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        told = str(getattr(error, "orig", None) or error)
        for secret in {url.password or "", quote(url.password or "", safe=""), quote_plus(url.password or "")}:
            told = told.replace(secret, "***") if secret else told
        line = re.sub(r"//[^/\s@]*@", "//***@", (told.strip().splitlines() or [type(error).__name__])[0][:300])
        raise AttuneError(
            f"{origin}: the database says: {line}",
            f"check the query, and the address in {variable}; the database is opened for reading alone",
            passing=isinstance(error, OperationalError) and url.get_backend_name() != "sqlite",
        ) from None
    except (ValueError, TypeError, OSError) as error:
        # A driver that an odd address or row trips up; its words could hold the address.
        raise AttuneError(
            f"{origin}: the database cannot be reached or read ({type(error).__name__})",
            f"check the address in {variable}: its host, its file, its options",
        ) from None
