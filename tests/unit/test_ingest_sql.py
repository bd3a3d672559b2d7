"""Databases: one SELECT's rows as text, from a real PostgreSQL and SQLite; nothing is written, no secret told."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from postgres import PASSWORD, running_postgres

from stages.common.errors import AttuneError
from stages.common.params import Source, TextSource
from stages.common.readers import databases
from stages.ingest.expansion import Limits
from stages.ingest.sql import read_query

VARIABLE = "ATTUNE_TEST_DB"


def engine_of(address: str) -> sqlalchemy.Engine:
    url = sqlalchemy.make_url(address.replace("postgresql://", "postgresql+psycopg://"))
    file = unquote(url.database or "") if url.drivername == "sqlite" else url.database
    return sqlalchemy.create_engine(url.set(database=file))


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as address:
        with engine_of(address).begin() as connection:
            connection.exec_driver_sql("CREATE TABLE reviews (id serial, body text, stars int)")
            connection.exec_driver_sql(
                "INSERT INTO reviews (body, stars) SELECT 'text ' || n, mod(n, 5) FROM generate_series(1, 25000) n"
            )
        yield address


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    (tmp_path / "with # and ?").mkdir()
    file = tmp_path / "with # and ?" / "reviews.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER PRIMARY KEY, body TEXT, stars INT)")
        connection.executemany(
            "INSERT INTO reviews (body, stars) VALUES (?, ?)", [(f"text {at}", at % 5) for at in range(1, 25_001)]
        )
    connection.close()
    return f"sqlite:///{str(file).replace('#', '%23').replace('?', '%3F')}"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either database, its address in the environment."""
    address = str(request.getfixturevalue(request.param))
    monkeypatch.setenv(VARIABLE, address)
    return address


def reading(query: str) -> Source:
    return Source(sql=VARIABLE, query=query, columns={"text": "body", "label": "stars"})


def unchecked(query: str) -> Any:
    """A source as it would be if params let every query pass: the second fence has to hold alone."""
    return TextSource.model_construct(sql=VARIABLE, query=query)


def fault(source: Any) -> str:
    with pytest.raises(AttuneError) as raised:
        read_query(source)
    assert str(raised.value).startswith(f"sql:{VARIABLE}: ")
    assert "hunter2" not in str(raised.value)
    return str(raised.value)


def content(address: str) -> list[Any]:
    tables = (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        if address.startswith("postgres")
        else "SELECT name FROM sqlite_master"
    )
    with engine_of(address).connect() as connection:
        run = connection.exec_driver_sql
        return [run(tables).fetchall(), run("SELECT count(*), sum(stars), max(body) FROM reviews").fetchall()]


def test_the_rows_of_a_query_come_as_text_whatever_their_order(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, digest = read_query(reading("SELECT body, stars FROM reviews ORDER BY id"))
    assert table.height == 25_000, "more than one chunk"
    assert table.filter(table["body"] == "text 7").rows() == [("text 7", "2")]
    again, same = read_query(reading("SELECT body, stars FROM reviews ORDER BY id DESC"))
    assert again.equals(table)
    assert same == digest
    _, other = read_query(reading("SELECT body, stars FROM reviews WHERE id > 1"))
    assert other != digest


def test_what_a_query_holds_is_taken_as_it_stands(database: str) -> None:
    query = "SELECT '100% :name %s' AS body, CASE WHEN 'abc' LIKE 'a%' THEN '12:30' END AS stars"
    assert read_query(reading(query))[0].rows() == [("100% :name %s", "12:30")]


def test_a_server_sends_a_chunk_at_a_time(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres)
    monkeypatch.setattr(databases, "ROWS_AT_A_TIME", 10)
    fetched: list[int] = []

    def stop(values: list[Any], *_: Any) -> Any:
        fetched.append(len(values))
        raise AttuneError("enough")

    monkeypatch.setattr(databases, "_column", stop)
    query = "SELECT body, pg_sleep(CASE WHEN id > 100 THEN 60 ELSE 0 END)::text AS stars FROM reviews"
    with pytest.raises(AttuneError, match="enough"):  # a client-side cursor would wait for all rows
        read_query(reading(query))
    assert fetched == [10]


# ── nothing is written ──────────────────────────────────────────────────────────────────────────────────────────────

HARM = [
    "DROP TABLE reviews",
    "UPDATE reviews SET stars = 1",
    "CREATE TABLE other (x int)",
    "SELECT 1; COMMIT; DROP TABLE reviews",
    "COMMIT",
    "WITH gone AS (DELETE FROM reviews RETURNING *) SELECT * FROM gone",
]
OF_POSTGRES = [
    "SELECT body INTO other FROM reviews",
    "SELECT nextval('reviews_id_seq')",
    "SELECT set_config('transaction_read_only', 'off', false)",
]
OF_SQLITE = [
    "ATTACH DATABASE 'made.db' AS other",
    "VACUUM INTO 'made.db'",
    "PRAGMA query_only = OFF",
    "SELECT load_extension('evil')",
    "WITH x AS (SELECT 1) INSERT INTO reviews (body) SELECT 'x' FROM x",
]


@pytest.mark.parametrize("query", HARM)
def test_no_query_writes(database: str, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(database)
    fault(unchecked(query))
    assert content(database) == before
    with pytest.raises(ValueError, match=r"must be|needs columns"):  # the first fence
        if query.startswith("WITH"):
            Source(sql=VARIABLE, query=query, columns={})
        reading(query)


@pytest.mark.parametrize("query", OF_POSTGRES)
def test_no_query_writes_to_postgresql(postgres: str, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres)
    before = content(postgres)
    fault(unchecked(query))
    assert content(postgres) == before


@pytest.mark.parametrize("query", OF_SQLITE)
def test_no_query_writes_to_sqlite_or_beside_it(
    sqlite: str, query: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, sqlite)
    monkeypatch.chdir(tmp_path)
    before = content(sqlite)
    fault(unchecked(query))
    assert content(sqlite) == before
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["reviews.db"]


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/none.db")
    assert "unable to open database file" in fault(reading("SELECT 1 AS body, 2 AS stars"))
    assert list(tmp_path.iterdir()) == []


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_values_of_postgresql_become_the_text_that_other_formats_have(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres)
    values = {
        "'naïve 漢字'": "naïve 漢字",
        "''": None,
        "NULL::text": None,
        "true": "true",
        "1.50::numeric": "1.50",
        "1e-7::numeric": "0.0000001",
        "1.5::float8": "1.5",
        "date '2026-01-31'": "2026-01-31",
        "timestamp '2026-01-31 12:00'": "2026-01-31 12:00:00",
        "timestamptz '2026-01-31 12:00+02'": "2026-01-31 10:00:00+00:00",
        "array[1, 2]": "[1, 2]",
        """'{"a": "é"}'::json""": '{"a": "é"}',
        "'\\x636166c3a9'::bytea": "café",
    }
    columns = ", ".join(f"{value} AS c{at}" for at, value in enumerate(values))
    table, _ = read_query(reading(f"SELECT {columns}"))
    assert table.row(0) == tuple(values.values())


def test_bytes_that_are_no_text_are_told_with_row_and_column(database: str) -> None:
    blob = "x'ff00'" if database.startswith("sqlite") else "'\\xff00'::bytea"
    said = fault(reading(f"SELECT 'a' AS body, {blob} AS stars"))
    assert "row 1, column 'stars': bytes that are no UTF-8 text" in said


def test_a_column_that_is_there_twice_is_an_error(database: str) -> None:
    said = fault(reading("SELECT body, stars AS body FROM reviews"))
    assert "the query gives the column 'body' twice" in said


def test_a_query_without_rows_is_an_error(database: str) -> None:
    assert "the query gives no rows" in fault(reading("SELECT body FROM reviews WHERE id < 0"))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
CELL = st.none() | TEXT | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.binary(max_size=3)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=20), st.randoms())
def test_whatever_sqlite_holds_each_row_is_read_or_the_fault_told(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, Any]], rng: random.Random
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for order in (rows, rng.sample(rows, len(rows))):
            file = tmp_path_factory.mktemp("sqlite") / "a.db"
            with sqlite3.connect(file) as connection:
                connection.execute("CREATE TABLE t (body, stars)")
                connection.executemany("INSERT INTO t VALUES (?, ?)", order)
            connection.close()
            patch.setenv(VARIABLE, f"sqlite:///{file}")
            try:
                found.append(read_query(reading("SELECT body, stars FROM t")))
            except AttuneError as error:
                assert "bytes that are no UTF-8 text" in str(error)
                assert any(isinstance(value, bytes) for row in rows for value in row)
                return
    (table, digest), (again, same) = found
    assert table.height == len(rows)
    assert table.equals(again)
    assert digest == same


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_environment_without_the_variable_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert f"→ export {VARIABLE}='postgresql://" in fault(reading("SELECT 1 AS body"))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("hunter2", "holds no database address"),
        ("postgres://reader:hunter2@host/db", "SQLAlchemy knows no database of the kind"),
        ("nonesuch://reader:hunter2@host/db", "SQLAlchemy knows no database of the kind"),
        ("postgresql+psycopg2://reader:hunter2@host/db", "driver is not installed\n  → pip install 'psycopg2'"),
        ("mysql+pymysql://reader:hunter2@host/db", "driver is not installed\n  → pip install 'pymysql'"),
        ("postgresql://reader:hunter2@host:notaport/db", "holds no database address"),
        ("postgresql://reader:hunter2@a..b/reviews", "cannot be reached"),
        ("postgresql+asyncpg://reader:hunter2@localhost/reviews", "asynchronous driver"),
        ("sqlite:////tmp/hunter2\udcff.db", "cannot be reached"),
    ],
)
def test_an_address_that_is_none_is_told_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, address: str, told: str
) -> None:
    monkeypatch.setenv(VARIABLE, address)
    assert told in fault(reading("SELECT 1 AS body"))


@pytest.mark.parametrize("wrong", ["no_such_user", "owner"])
def test_a_refused_password_is_not_in_the_message(postgres: str, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv(VARIABLE, postgres.replace("owner:hunter2", f"{wrong}:hunter2X"))
    said = fault(reading("SELECT 1 AS body"))
    assert "the database says: " in said
    assert PASSWORD not in said


def test_a_password_in_a_databases_own_words_is_taken_out(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres)
    said = fault(reading(f"SELECT CAST('{PASSWORD}' AS integer) AS body"))
    assert "***" in said


def test_a_server_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv(VARIABLE, "postgresql://reader:hunter2@127.0.0.1:1/db")
    assert "the database says: " in fault(reading("SELECT 1 AS body"))


# ── traps ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_query_without_end_ends_at_the_limit(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sqlite)
    with engine_of(sqlite).begin() as connection:
        connection.exec_driver_sql(
            "CREATE VIEW endless AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
        )
    with pytest.raises(AttuneError, match=r"more than 1 MiB\n.*ingest.max_expanded_mb"):
        read_query(reading("SELECT x AS body, 1 AS stars FROM endless"), Limits(max_expanded_mb=1))
