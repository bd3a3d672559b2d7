"""Where MLflow keeps its runs, and whether it can be reached."""

import logging
import os
import re
import sqlite3
import sys
import warnings
from contextlib import AbstractContextManager, closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import urlopen

from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.locks import in_turn
from stages.common.redact import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

REACH_SECONDS = 3.0
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # what MLflow's UI opens the experiment as
CATCH_UP = "the files have it all: once it is back, `make publish` catches up"
VERSION = "alembic_version"
LOCATIONS = {"runs": "artifact_uri", "model_versions": "storage_location"}  # of artifacts: table and column
LOCATIONS |= dict.fromkeys(("experiments", "logged_models"), "artifact_location")
TABLES = {"experiments", "runs", "registered_models", "model_versions", "model_version_tags"}  # of a store since 2019


class Unreachable(Exception):
    """The tracking store does not answer."""


def tracking_uri(root: Path | None = None) -> str:
    """Return MLFLOW_TRACKING_URI, or a SQLite file in the project's folder; a path in it is relative to that folder."""
    root, uri = (root or Path.cwd()).resolve(), os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if relative := re.fullmatch(r"(sqlite:///)([^/:].*)", uri):
        return f"{relative[1]}{root / relative[2]}"
    return uri if urlsplit(uri).scheme else str(root / uri)


def connect() -> "MlflowClient":
    """Return a client of the tracking store, and make that the store of this process; errors as of `client_of`."""
    client = client_of(tracking_uri())
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)
    return client


def client_of(uri: str) -> "MlflowClient":
    """Return a client of a store, which need not be the one that the rest of this process works with.

    Raises:
        Unreachable: if it is a server and does not answer within seconds.
        AttuneError: if it is a SQLite file and no whole store.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        try:  # whatever it answers; MLflow's own client would try for minutes
            with suppress(HTTPError):
                urlopen(f"{bare.rstrip('/')}/health", timeout=REACH_SECONDS).close()  # noqa: S310, http and https alone
        except (OSError, ValueError, HTTPException) as error:
            reason = error if isinstance(error, OSError) else "not an address that can be asked"
            raise Unreachable(f"{redacted(uri)} ({reason})") from None
        if parts.password is not None:  # which MLflow would put into its messages
            os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
            os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
            uri = bare
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.pop("MLFLOW_RUN_ID", None)  # it would send this project's runs into somebody else's
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what they say of routine helps nobody
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # errors that it raises, with a traceback
    file = sqlite_file(uri)
    with quiet():
        import mlflow

        if file and not has_database(file):
            _make_database(file)
        try:
            return mlflow.MlflowClient(tracking_uri=uri)  # it brings older tables up to date
        except Exception as error:
            words = "already exists|duplicate column|no such (table|column): [^ ]+"
            if file and (unfinished := re.search(words, str(error))):
                raise _broken(file, f"a migration of its tables was not finished: {unfinished[0]}") from None
            raise


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a store that is a SQLite database."""
    name = uri.partition("sqlite:///")[2].partition("?")[0]
    return None if not name or name.startswith((":", "file:")) else Path(name)


def has_database(file: Path) -> bool:
    """Return whether there is a SQLite store; an AttuneError if it is no whole one, as after a kill or on a full disk.

    One that cannot be opened now, such as a locked one, MLflow judges.
    """
    if not file.exists() or not file.stat().st_size:
        return False
    try:  # not read-only: after a kill, SQLite has a journal to undo what was begun
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)) as database:
            tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = database.execute("SELECT * FROM alembic_version").fetchall() if VERSION in tables else []
            if versions and tables >= TABLES:
                _follow(file, database)
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError as error:
        raise _broken(file, str(error)) from None
    if not versions or not tables >= TABLES:
        raise _broken(file, "it lacks tables of MLflow, as if it was not made to its end")
    return True


def _follow(file: Path, database: sqlite3.Connection) -> None:
    """Have MLflow look for artifacts beside its database after the folder of both was moved: it keeps full paths."""
    here = file.resolve().with_name("mlruns")
    asked = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%/mlruns'"
    for (there,) in database.execute(asked).fetchall():
        if here.is_dir() and not Path(unquote(urlsplit(there).path)).exists():
            with database:
                for table, name in LOCATIONS.items():
                    moved = f"UPDATE {table} SET {name} = ? || substr({name}, ?) WHERE substr({name}, 1, ?) = ?"  # noqa: S608
                    database.execute(moved, (here.as_uri(), len(there) + 1, len(there), there))


def _broken(file: Path, why: str) -> AttuneError:
    name = file.name if file.resolve().parent == Path.cwd() else file
    what = f"{name} is no whole database of MLflow: {display(why, 160)}"
    move = f"mkdir -p broken && mv {name}* broken"  # with its journal, which SQLite would take for that of the new file
    return AttuneError(what, f"{move}; make publish (from the files; older champions are in it alone)")


def _make_database(file: Path) -> None:
    """Make a store of MLflow beside its place, and put it there when it is complete, whatever ends this process."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    file.parent.mkdir(parents=True, exist_ok=True)
    lock, new = (file.with_name(f"{file.name}.{what}") for what in ("lock", "new"))
    with in_turn(lock):
        try:
            if not has_database(file):
                for left in (".new", ".new-journal", "-journal", "-wal", "-shm"):
                    Path(f"{file}{left}").unlink(missing_ok=True)  # a journal would be applied to the new one
                engine = create_sqlalchemy_engine(f"sqlite:///{new}")
                _initialize_tables(engine)
                engine.dispose()
                os.replace(new, file)
        finally:
            for path in (new, Path(f"{new}-journal"), lock):
                path.unlink(missing_ok=True)


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Return the id of an experiment, made if it is new (artifacts beside mlflow.db where that is the store)."""
    if experiment := client.get_experiment_by_name(name):
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)
    database = tracking_uri().partition("sqlite:///")[2]
    artifacts = (Path(database).resolve().parent / "mlruns").as_uri() if database else None
    return str(client.create_experiment(name, artifact_location=artifacts, tags=MODEL_TRAINING))


def quiet() -> AbstractContextManager[None]:
    """Keep MLflow's warnings of routine away from the terminal."""
    return warnings.catch_warnings(action="ignore")


def reason_of(error: Exception) -> str:
    """Return the first line of an error of MLflow's or of what it uses, without the password of an address."""
    return display(redacted(str(error).strip().partition("\n")[0]) or type(error).__name__, 300)


def warn(error: Exception, catch_up: str = CATCH_UP) -> None:
    """Say on the terminal that something went wrong with MLflow, and what to do about it."""
    reason = reason_of(error)
    what = "cannot be reached" if isinstance(error, Unreachable) else "failed"
    if isinstance(error, AttuneError):
        reason, catch_up = error.what, error.fix or catch_up
    print(f"  warning: MLflow {what}: {reason}; {catch_up}", file=sys.stderr, flush=True)
