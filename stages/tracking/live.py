"""MLflow is fed while the work goes on: a run for each training, or many of them under one parent run.

The store may break at any time: that is a warning, and the training goes on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.params import Params
from stages.common.pipeline.stage import LOGS
from stages.tracking import runs
from stages.tracking.provenance import origin_tags
from stages.tracking.store import CATCH_UP, connect, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

LIVE = LOGS / "finetune.jsonl"  # a line per point of both curves, while the stage runs
TRIAL_RUN = "ATTUNE_TRIAL_RUN"  # set by flows.search.trials: the run that a training reports to; empty: to none
KEY_TAG = "attune.nested"  # of a parent, its key; of a child, the parent's key and its own
STATE_TAG, REASON_TAG = "attune.trial_state", "attune.trial_reason"  # complete, pruned or failed; and why
PARENT_TAG = "mlflow.parentRunId"


class Recorder:
    """Records in MLflow until an error there. `client` is None before there is a connection, and after it broke."""

    catch_up = CATCH_UP

    def __init__(self) -> None:
        self.client: MlflowClient | None = None

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Turn any error into a warning and the end of the recording."""
        try:
            yield
        except Exception as error:  # whatever is wrong with MLflow, the training is worth more
            self.client = None
            warn(error, self.catch_up)


class LiveRun(Recorder):
    """The MLflow run of one training, identified by the digest of the training's inputs.

    A training that was cut short goes on in its run; training again from the same inputs adds nothing. A trial of a
    search or a cross-validation is given its run, and leaves its end to the program that gave it.
    """

    def __init__(self, params: Params, inputs: str, tags: dict[str, str]) -> None:
        super().__init__()
        self._params, self._tags = params, {**tags, runs.INPUTS_TAG: inputs}
        self._given = os.environ.get(TRIAL_RUN)
        if self._given == "":
            return
        with self.trying():
            if not self._given:  # before MLflow is asked: it may be away, and this is the time to look
                self._tags = {**origin_tags(), **self._tags}
            self.client = connect()
            run = self._given or runs.find_run(self.client, params, runs.INPUTS_TAG, inputs)
            self._curves = runs.Curves(self.client, run or runs.create_run(self.client, params, self._tags))

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record a point of each curve."""
        if self.client is not None:
            with self.trying():
                self._curves.add([(step, metrics)])

    def finish(self, model: str, curves: list[Path]) -> None:
        """Fill the gaps of the curves, tag the run with the model's digest and end it."""
        runs.keep_training_tags(model, self._tags)
        if self.client is None:
            return
        with self.trying():
            run = self._given or runs.run_of_model(self.client, self._params, model, self._tags)
            runs.record_curves(self.client, run, curves)
            if not self._given:
                results = {runs.INPUTS_TAG: self._tags[runs.INPUTS_TAG], runs.MODEL_TAG: model}
                runs.finish(self.client, run, self._tags, results)


class NestedRuns(Recorder):
    """A parent run with the result of a search or a cross-validation, and a child run for each of its trainings.

    None has a tag by which a model of the pipeline is found, so what they train is never taken for its model. The
    parent is found by its key when the work is resumed; children have params of their own.
    """

    catch_up = "the trainings go on, unrecorded"

    def __init__(self, params: Params, key: str, name: str, tags: dict[str, str]) -> None:
        super().__init__()
        self._key = key
        with self.trying():
            self.client = connect()
            self._parent = self._open(self.client, params, key, name, tags)

    def begin(self, params: Params, key: str, name: str) -> str:
        """Return the id of the child run of a training, a new one or that of the same training; "" without a store."""
        if self.client is not None:
            with self.trying():
                return self._open(self.client, params, f"{self._key}/{key}", name, {PARENT_TAG: self._parent})
        return ""

    def end(self, run_id: str, state: str, reason: str, curve: Path, scores: dict[str, float]) -> None:
        """Record how a training ended: its state, why, its curve (if the file exists) and its scores."""
        if self.client is None or not run_id:
            return
        with self.trying():
            runs.record_curves(self.client, run_id, [curve] if curve.exists() else [])
            runs.record_metrics(self.client, run_id, scores)
            self.client.set_tag(run_id, STATE_TAG, state)
            if reason:
                self.client.set_tag(run_id, REASON_TAG, reason[:5000])
            self.client.set_terminated(run_id, {"complete": "FINISHED", "pruned": "KILLED"}.get(state, "FAILED"))

    def finish(self, scores: dict[str, float]) -> None:
        """Record the result of all, and end the parent run."""
        if self.client is not None:
            with self.trying():
                runs.record_metrics(self.client, self._parent, scores)
                self.client.set_terminated(self._parent)

    @staticmethod
    def _open(client: "MlflowClient", params: Params, key: str, name: str, tags: dict[str, str]) -> str:
        if run_id := runs.find_run(client, params, KEY_TAG, key):
            client.update_run(run_id, status="RUNNING")
            return run_id
        return runs.create_run(client, params, {**origin_tags(), **tags, KEY_TAG: key}, name)
