"""Where MLflow keeps its runs, and whether it can be reached."""

import logging
import os
import re
import sys
import warnings
from contextlib import AbstractContextManager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

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


class Unreachable(Exception):
    """The tracking store does not answer."""


def tracking_uri(root: Path | None = None) -> str:
    """Return MLFLOW_TRACKING_URI, or a SQLite file in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root or Path.cwd()).resolve() / 'mlflow.db'}"


def absolute_uri() -> str:
    """Return the store's address as it holds in any folder: a relative path is relative to this one."""
    uri = tracking_uri()
    if relative := re.fullmatch(r"sqlite:///([^/:].*)", uri):
        return f"sqlite:///{Path(relative[1]).resolve()}"
    return uri if urlsplit(uri).scheme else str(Path(uri).resolve())


def connect() -> "MlflowClient":
    """Return a client of the tracking store, and make that the store of this process and of those it starts.

    Raises:
        Unreachable: if a server is asked for and does not answer within seconds.
    """
    client = client_of(tracking_uri())
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)
    return client


def client_of(uri: str) -> "MlflowClient":
    """Return a client of a store, which need not be the one that the rest of this process works with.

    Raises:
        Unreachable: if it is a server and does not answer within seconds.
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
    with quiet():
        import mlflow

        return mlflow.MlflowClient(tracking_uri=uri)


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


def warn(error: Exception, catch_up: str = CATCH_UP) -> None:
    """Say on the terminal that something went wrong with MLflow, and what to do about it."""
    reason = redacted(str(error).splitlines()[0])[:200] if str(error) else type(error).__name__
    what = "cannot be reached" if isinstance(error, Unreachable) else "failed"
    print(f"  warning: MLflow {what}: {reason}; {catch_up}", file=sys.stderr, flush=True)
