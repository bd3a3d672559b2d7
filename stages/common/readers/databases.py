"""The rows of one SELECT out of a database that is opened for reading alone, chunk by chunk, as text."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import polars as pl

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.readers.streams import LONGEST, LONGEST_MB, ROWS
from stages.common.readers.table import Table, as_text, check_unique, packed
from stages.common.redact import redacted

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine, Row

CONNECT_TIMEOUT = 30  # seconds

# Nothing is ever committed. These servers refuse to write besides: PostgreSQL by an option of the connection
# (`postgresql_readonly` below). Of the others only an account without the right to write makes it sure (docs/data.md).
DRIVER_OPTIONS: dict[str, dict[str, Any]] = {
    "postgresql": {"connect_timeout": CONNECT_TIMEOUT},
    "mysql": {"connect_timeout": CONNECT_TIMEOUT, "init_command": "SET SESSION TRANSACTION READ ONLY"},
}


class QueryTable(Table):
    """The rows of a query, or documents, as chunks of texts."""

    def __init__(self, origin: str, chunks: Iterable[pl.DataFrame]) -> None:
        self.origin, chunks = origin, iter(chunks)
        first = next(chunks)
        self.columns, self._chunks = first.columns, chain([first], chunks)

    def batches(self, names: Sequence[str], size: int = ROWS) -> Iterator[pl.DataFrame]:
        """See Table."""
        for chunk in self._chunks:
            rows = chunk.select(names)
            yield from rows.iter_slices(size) if rows.height else [rows]


def select(variable: str, query: str, origin: str, size: int = 10_000) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query (one SELECT, taken as it stands) in chunks (see `packed`), all columns as text.

    The environment variable holds the database's address; `origin` is what messages call it. An AttuneError if the
    variable is not set, the database cannot be reached, or the query fails, would write, gives two columns of one name,
    bytes that are no text, or too long a cell. No message holds address or password.
    """
    url, engine = _engine(variable, origin)
    with _faults_as_errors(origin, variable, url), engine.connect() as connection:
        # A server-side cursor where the driver has one, from which SQLAlchemy takes 1,000 rows at a time at most. The
        # query is taken as it stands: `:name` and `%` mean nothing.
        streamed = connection.execution_options(stream_results=True, no_parameters=True, postgresql_readonly=True)
        result = streamed.exec_driver_sql(query)
        names = [column[0] for column in result.cursor.description]
        check_unique(names, origin)
        yield from packed(_texts(result, names, origin), names, size)
        connection.rollback()


def _texts(rows: "Iterable[Row[Any]]", names: Sequence[str], origin: str) -> Iterator[list[str | None]]:
    for number, row in enumerate(rows, start=1):
        texts: list[str | None] = []
        for name, value in zip(names, row, strict=True):
            try:
                texts.append(_value_as_text(value))
            except UnicodeDecodeError:
                fault = "bytes that are no UTF-8 text"
            else:
                if len(texts[-1] or "") <= LONGEST:
                    continue
                fault = f"a cell of more than {LONGEST_MB} MiB"
            fix = "leave it out of the query, or convert it there"
            raise AttuneError(f"{origin}: in row {number:,} the column {display(name, 60)!r} holds {fault}", fix)
        yield texts


def _engine(variable: str, origin: str) -> "tuple[URL, Engine]":
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import NullPool

    address = os.environ.get(variable, "")
    try:
        url = make_url(address)
        if url.drivername == "postgresql":  # SQLAlchemy before 2.1 would take psycopg2
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "sqlite":
            file = f"file:{quote(unquote(url.database or ''))}?mode=ro"
            creator = lambda: sqlite3.connect(file, uri=True, timeout=CONNECT_TIMEOUT)  # noqa: E731
            return url, create_engine("sqlite://", creator=creator, poolclass=NullPool)
        options = DRIVER_OPTIONS.get(url.get_backend_name(), {})
        return url, create_engine(url, connect_args=options, poolclass=NullPool, hide_parameters=True)
    except ImportError as error:
        driver = "psycopg[binary]" if error.name == "psycopg" else error.name or "the driver"
        fix = f".venv/bin/pip install '{driver}'"
        raise AttuneError(f"{origin}: the database's driver is not installed", fix) from None
    except (ArgumentError, ValueError, TypeError):
        fault = "holds no address of a database that SQLAlchemy knows" if address else "is not set"
        raise AttuneError(
            f"{origin}: the environment variable {variable} {fault}",
            f"export {variable}='postgresql://user:password@host/database' (or mysql+pymysql://… or "
            "sqlite:////path/to/file.db), special marks of the password as %40 and the like",
        ) from None


def _value_as_text(value: Any) -> str | None:
    """Return the text for a value, as the other formats have it: true, 1.5, 2026-01-31 12:00:00, JSON for lists.

    Moments with a time zone are given in UTC: a server gives them in the zone of its client.
    """
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode() or None
        case Decimal():
            return None if value.is_nan() else format(value, "f")
        case datetime() if value.tzinfo:
            return str(value.astimezone(UTC))
        case None | bool() | float() | list() | dict() | tuple() | str():
            return as_text(value)
    return str(value)


@contextmanager
def _faults_as_errors(origin: str, variable: str, url: "URL") -> Iterator[None]:
    """Raise AttuneError with a database's own words, without the password."""
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, ValueError, TypeError, OSError) as error:
        fault = f"cannot be reached or read ({type(error).__name__})"  # a driver's own words could hold the address
        if isinstance(error, SQLAlchemyError | sqlite3.Error):
            words = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
            line = words.splitlines()[0].replace(url.password or "\0", "***")
            fault = f"says: {display(redacted(line), 200)}"
        raise AttuneError(
            f"{origin}: the database {fault}",
            f"check the query, and the address in {variable}; the database is opened for reading alone",
            passing=isinstance(error, OperationalError) and url.get_backend_name() != "sqlite",
        ) from None
