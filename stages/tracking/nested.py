"""MLflow runs of many trainings that belong together: a parent with the result, and a child for each training.

The trainings themselves are known to nobody else: they carry none of the tags by which a model of the pipeline is
found, so what a search or a cross-validation trains is never taken for the pipeline's own model.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from stages.common.params import Params
from stages.tracking.provenance import origin_tags
from stages.tracking.runs import create_run, find_run, record_curves, record_metrics
from stages.tracking.store import Recorder, connect, tracking_uri

KEY_TAG = "attune.nested"  # of a parent, its key; of a child, the parent's key and its own
STATE_TAG = "attune.trial_state"  # complete, pruned or failed
PARENT_TAG = "mlflow.parentRunId"


class NestedRuns(Recorder):
    """A parent run and its children. The store may break at any time, and the work does not notice.

    Args:
        params: what params.yaml says; children have params of their own.
        key: what the parent is found by when the work is taken up again.
        name: of the parent run.
        tags: further tags of the parent run.
    """

    catch_up = "the trainings go on, unrecorded"

    def __init__(self, params: Params, key: str, name: str, tags: dict[str, str]) -> None:
        super().__init__()
        self._key = key
        with self.trying():
            self.client = connect()
            self._parent = self._open(params, key, name, tags)

    def begin(self, params: Params, key: str, name: str) -> str:
        """Return the id of the child run of a training, a new one or that of the same training; "" without a store."""
        if self.client is not None:
            with self.trying():
                return self._open(params, f"{self._key}/{key}", name, {PARENT_TAG: self._parent})
        return ""

    def end(self, run_id: str, state: str, reason: str, curve: Path, scores: dict[str, float]) -> None:
        """Record how a training ended: its state, why, its curve (if the file is there) and its scores."""
        if self.client is None or not run_id:
            return
        with self.trying():
            record_curves(self.client, run_id, [curve] if curve.exists() else [])
            record_metrics(self.client, run_id, scores)
            for key, value in {STATE_TAG: state, "attune.trial_reason": reason}.items():
                if value:
                    self.client.set_tag(run_id, key, value[:5000])
            self.client.set_terminated(run_id, {"complete": "FINISHED", "pruned": "KILLED"}.get(state, "FAILED"))

    def finish(self, scores: dict[str, float]) -> None:
        """Record the result of all, and end the parent run."""
        if self.client is not None:
            with self.trying():
                record_metrics(self.client, self._parent, scores)
                self.client.set_terminated(self._parent)

    def _open(self, params: Params, key: str, name: str, tags: dict[str, str]) -> str:
        assert self.client is not None
        if found := find_run(self.client, params, KEY_TAG, key):
            self.client.update_run(found, status="RUNNING")
            return found
        named = params.model_copy(update={"tracking": params.tracking.model_copy(update={"run_name": name})})
        return create_run(self.client, named, {**origin_tags(), **tags, KEY_TAG: key})


def absolute_uri() -> str:
    """Return the tracking store's address as it holds in any folder: a relative path is this folder's."""
    uri = tracking_uri()
    if relative := re.fullmatch(r"sqlite:///([^/:].*)", uri):
        return f"sqlite:///{Path(relative[1]).resolve()}"
    return uri if urlsplit(uri).scheme else str(Path(uri).resolve())
