"""Databases: one SELECT's rows as text, from a real PostgreSQL and SQLite; nothing is written, no secret repeated."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import sqlalchemy

from stages.common.errors import AttuneError
from stages.common.params import TextSource
from stages.common.readers import databases, table
from stages.ingest.archives import SizeBudget
from stages.ingest.fetch import read_query

PASSWORD = "hunter2 %/@"  # needs escaping in an address


VARIABLE = "ATTUNE_TEST_DB"
ROWS = 12_000  # more than one chunk


def engine_of(address: str) -> sqlalchemy.Engine:
    url = sqlalchemy.make_url(address.replace("postgresql://", "postgresql+psycopg://"))
    file = unquote(url.database or "") if url.drivername == "sqlite" else url.database
    return sqlalchemy.create_engine(url.set(database=file))


def filled(address: str, key: str) -> str:
    with engine_of(address).begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE reviews (id {key}, body text, stars int)")
        rows = [{"body": f"text {n}", "stars": n % 5} for n in range(1, ROWS + 1)]
        connection.execute(sqlalchemy.text("INSERT INTO reviews (body, stars) VALUES (:body, :stars)"), rows)
    return address


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a server that listens on a Unix socket alone. Skips the test where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian keeps initdb and pg_ctl out of PATH
    initdb = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:  # a socket's path must be short
        folder, who = Path(name), dict[str, Any]()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            users = {user.pw_name: user for user in pwd.getpwall()}
            user = users.get("postgres") or users["nobody"]
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)

        def run(program: str, *arguments: str) -> None:
            command = [str(Path(initdb).with_name(program)), "-D", f"{folder}/data", *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **who)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

        run("initdb", "-U", "owner", "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync",
            "--encoding=UTF8", "--locale=C")  # fmt: skip
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c shared_buffers=16MB"
        run("pg_ctl", "-l", f"{folder}/log", "-o", options, "-w", "start")
        try:
            yield filled(f"postgresql://owner:hunter2%20%25%2F%40@/postgres?host={folder}", "serial")
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = str(tmp_path_factory.mktemp("sqlite") / "with # and ?.db")
    return filled(f"sqlite:///{file.replace('#', '%23').replace('?', '%3F')}", "INTEGER PRIMARY KEY")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either database, its address in the environment."""
    address = str(request.getfixturevalue(request.param))
    monkeypatch.setenv(VARIABLE, address)
    return address


def reading(query: str, megabytes: int = 64) -> Any:
    """Read a query as if params let every one pass: the database has to refuse what writes."""
    source: Any = TextSource.model_construct(sql=VARIABLE, query=query)
    return read_query(source, SizeBudget(megabytes, source.origin))


def fault(query: str = "SELECT 1 AS body", **limits: int) -> str:
    with pytest.raises(AttuneError) as raised:
        reading(query, **limits)
    assert str(raised.value).startswith(f"sql:{VARIABLE}: ")
    assert "hunter2" not in str(raised.value)
    return str(raised.value)


def test_the_rows_of_a_query_come_as_text_whatever_their_order(database: str) -> None:
    table, digest = reading("SELECT body, stars FROM reviews ORDER BY id")
    assert table.height == ROWS
    assert table.filter(table["body"] == "text 7").rows() == [("text 7", "2")]
    again, same = reading("SELECT body, stars FROM reviews ORDER BY id DESC")
    assert again.equals(table) and same == digest
    assert reading("SELECT body, stars FROM reviews WHERE id > 1")[1] != digest
    odd = "SELECT '100% :name %s' AS body, CASE WHEN 'abc' LIKE 'a%' THEN '12:30' END AS stars"
    assert reading(odd)[0].rows() == [("100% :name %s", "12:30")]


def test_what_is_no_number_is_missing(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres)
    query = "SELECT 'NaN'::float8 AS a, 'NaN'::numeric AS b, 1.5::float8 AS c, 'NaN' AS d"
    assert reading(query)[0].rows() == [(None, None, "1.5", "NaN")]


def test_a_server_sends_a_chunk_at_a_time(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres)
    query = "SELECT body, pg_sleep(CASE WHEN id > 100 THEN 60 ELSE 0 END)::text AS stars FROM reviews"
    first = next(databases.select(VARIABLE, query, "sql", 10))  # a client-side cursor would wait for all rows
    assert first.height == 10


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE reviews SET stars = 1",
        "SELECT 1; COMMIT; DROP TABLE reviews",
        "WITH gone AS (DELETE FROM reviews RETURNING *) SELECT * FROM gone",
        "SELECT body INTO other FROM reviews",
        "SELECT set_config('transaction_read_only', 'off', false)",
    ],
)
def test_no_query_writes(database: str, query: str) -> None:
    def content() -> list[Any]:
        catalogue = "information_schema.tables" if database.startswith("postgres") else "sqlite_master"
        queries = (f"SELECT count(*) FROM {catalogue}", "SELECT count(*), sum(stars), max(body) FROM reviews")
        with engine_of(database).connect() as connection:
            return [connection.exec_driver_sql(sql).fetchall() for sql in queries]

    before = content()
    fault(query)
    assert content() == before


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
    columns = ", ".join(f"{value} AS c{number}" for number, value in enumerate(values))
    assert reading(f"SELECT {columns}")[0].row(0) == tuple(values.values())
    monkeypatch.setenv(VARIABLE, "sqlite://")
    mixed = "SELECT 1.5 AS a, x'636166c3a9' AS b UNION SELECT 7, '' UNION SELECT NULL, 'a'"
    assert reading(mixed)[0].rows() == [("1.5", "café"), ("7", None), (None, "a")]


def test_rows_that_cannot_be_used_are_an_error(database: str) -> None:
    blob = "x'ff00'" if database.startswith("sqlite") else "'\\xff00'::bytea"
    assert "the column 'stars' holds bytes that are no UTF-8 text" in fault(f"SELECT 'a' AS body, {blob} AS stars")
    assert "the column 'body' is there twice" in fault("SELECT body, stars AS body FROM reviews")
    assert "the query gives no rows" in fault("SELECT body FROM reviews WHERE id < 0")
    assert "more than 1 MiB" in fault("SELECT a.body FROM reviews a, reviews b", megabytes=1)


def test_an_endless_cell_is_an_error_that_names_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "LONGEST", len("text 9"))
    query = "SELECT stars, body FROM reviews ORDER BY id"
    assert "in row 10 the column 'body' holds a cell of more than 64 MiB" in fault(query)


def test_a_chunk_ends_when_it_is_large(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BATCH_BYTES", 30)
    assert next(databases.select(VARIABLE, "SELECT body FROM reviews ORDER BY id", "sql")).height == 5


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", f"→ export {VARIABLE}='postgresql://"),
        ("postgres://reader:hunter2@host/db", "holds no address of a database that SQLAlchemy knows"),
        ("postgresql+psycopg2://reader:hunter2@host/db", "is not installed\n  → .venv/bin/pip install 'psycopg2'"),
        ("postgresql://reader:hunter2@host:notaport/db", "holds no address of a database"),
        ("postgresql://reader:hunter2@a..b/reviews", "cannot be reached"),
        ("postgresql://reader:hunter2@127.0.0.1:1/db", "the database says: "),
        ("sqlite:////tmp/attune-no-such.db", "unable to open database file"),
    ],
)
def test_an_address_that_does_not_work_is_an_error_that_does_not_repeat_it(
    monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setenv(VARIABLE, address)
    assert message in fault()
    assert not Path("/tmp/attune-no-such.db").exists()


def test_a_password_is_in_no_message(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, postgres.replace("owner:hunter2", "owner:hunter2X"))
    assert "the database says: " in fault()
    monkeypatch.setenv(VARIABLE, postgres)
    assert "***" in fault(f"SELECT CAST('{PASSWORD}' AS integer) AS body")
