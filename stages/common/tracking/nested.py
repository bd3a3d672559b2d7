"""MLflow runs of many trainings that belong together: a parent with the result, and a child for each training.

The trainings themselves are known to nobody else: they carry none of the tags by which a model of the pipeline is
found, so what a search or a cross-validation trains is never taken for the pipeline's own model.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stages.common.params import Params
from stages.common.tracking.provenance import origin_tags
from stages.common.tracking.runs import create_run, find_run, record_curves, record_metrics
from stages.common.tracking.store import connect, quiet, tracking_uri, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY_TAG = "attune.nested"  # of a parent, its key; of a child, the parent's key and its own
STATE_TAG = "attune.trial_state"  # complete, pruned or failed
PARENT_TAG = "mlflow.parentRunId"
CATCH_UP = "the trainings go on, unrecorded"


class NestedRuns:
    """A parent run and its children. The store may break at any time, and the work does not notice.

    Args:
        params: what params.yaml says; children have params of their own.
        key: what the parent is found by when the work is taken up again.
        name: of the parent run.
        tags: further tags of the parent run.
    """

    def __init__(self, params: Params, key: str, name: str, tags: dict[str, str]) -> None:
        self._key = key
        self._client: MlflowClient | None = None
        self._parent = ""
        try:
            self._client = connect()
            self._parent = self._open(params, key, name, tags)
        except Exception as error:
            self._break_off(error)

    def begin(self, params: Params, key: str, name: str) -> str:
        """Return the id of the child run of a training, a new one or that of the same training; "" without a store."""
        if self._client is None:
            return ""
        try:
            return self._open(params, f"{self._key}/{key}", name, {PARENT_TAG: self._parent})
        except Exception as error:
            self._break_off(error)
            return ""

    def end(self, run_id: str, state: str, reason: str, curve: Path, scores: dict[str, float]) -> None:
        """Record how a training ended: its state, why, its curve (if the file is there) and its scores."""
        if self._client is None or not run_id:
            return
        try:
            with quiet():
                record_curves(self._client, run_id, [curve] if curve.exists() else [])
                record_metrics(self._client, run_id, scores)
                for key, value in {STATE_TAG: state, "attune.trial_reason": reason}.items():
                    if value:
                        self._client.set_tag(run_id, key, value[:5000])
                status = {"complete": "FINISHED", "pruned": "KILLED"}.get(state, "FAILED")
                self._client.set_terminated(run_id, status)
        except Exception as error:
            self._break_off(error)

    def finish(self, scores: dict[str, float]) -> None:
        """Record the result of all, and end the parent run."""
        if self._client is None:
            return
        try:
            with quiet():
                record_metrics(self._client, self._parent, scores)
                self._client.set_terminated(self._parent)
        except Exception as error:
            self._break_off(error)

    def _open(self, params: Params, key: str, name: str, tags: dict[str, str]) -> str:
        assert self._client is not None
        found = find_run(self._client, params, KEY_TAG, key)
        if found:
            with quiet():
                self._client.update_run(found, status="RUNNING")
            return found
        named = params.model_copy(update={"tracking": params.tracking.model_copy(update={"run_name": name})})
        return create_run(self._client, named, {**origin_tags(params), **tags, KEY_TAG: key})

    def _break_off(self, error: Exception) -> None:
        self._client = None
        warn(error, CATCH_UP)


def absolute_uri() -> str:
    """Return the tracking store's address as it holds in any folder: a relative path is this folder's."""
    uri = tracking_uri()
    if relative := re.fullmatch(r"sqlite:///([^/:].*)", uri):
        return f"sqlite:///{Path(relative[1]).resolve()}"
    return uri if urlsplit(uri).scheme else str(Path(uri).resolve())
