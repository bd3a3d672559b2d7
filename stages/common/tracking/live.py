"""The live line from a training to MLflow: it may break at any time, and the training does not notice."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.params import Params
from stages.common.stage import LOGS
from stages.common.tracking.provenance import origin_tags
from stages.common.tracking.runs import (
    INPUTS_TAG,
    MODEL_TAG,
    POSITIONS,
    create_run,
    find_run,
    finish,
    keep_training_tags,
    record_curves,
    recorded_steps,
)
from stages.common.tracking.store import connect, quiet, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

LIVE = LOGS / "finetune.jsonl"  # a line per point of both curves, while the stage runs
TRIAL_RUN = "ATTUNE_TRIAL_RUN"  # set by flows.search.trials: the run that a training reports to; empty: to none


class LiveRun:
    """The MLflow run of one training, identified by the digest of the training's inputs.

    A training that was cut short goes on in its run. One that was recorded in full before is only checked: training
    again from the same inputs gives the same model and adds nothing. A trial of a search or a cross-validation is given
    its run, and leaves its end to those who gave it.
    """

    def __init__(self, params: Params, inputs: str, tags: dict[str, str]) -> None:
        self._params, self._tags = params, {**tags, INPUTS_TAG: inputs}
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._steps: dict[str, set[int]] = {}  # of each metric, those the run has: an epoch begun again adds no point
        self._complete = False
        self._given = os.environ.get(TRIAL_RUN)
        if self._given == "":
            return
        try:
            if not self._given:  # before MLflow is asked: it may be away, and this is the time to look
                self._tags = {**origin_tags(params), **self._tags}
            self._client = connect()
            if self._given:
                self._run_id = self._given
                return
            found = find_run(self._client, params, INPUTS_TAG, inputs)
            self._complete = bool(found) and MODEL_TAG in self._client.get_run(found or "").data.tags
            self._run_id = found or create_run(self._client, params, self._tags)
        except Exception as error:  # whatever goes wrong over there, the training is worth more
            self._break_off(error)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record a point of each curve."""
        if self._client is None or self._complete:
            return
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        try:
            scores = {key: value for key, value in metrics.items() if key not in POSITIONS}
            for key in scores.keys() - self._steps.keys():
                self._steps[key] = recorded_steps(self._client, self._run_id, key)
            new = [Metric(key, value, now, step) for key, value in scores.items() if step not in self._steps[key]]
            self._client.log_batch(self._run_id, metrics=new)
            for metric in new:
                self._steps[metric.key].add(step)
        except Exception as error:
            self._break_off(error)

    def finish(self, model: str, curves: list[Path]) -> None:
        """Fill the gaps of the curves, tag the run with the model's digest and end it."""
        keep_training_tags(model, self._tags)
        if self._client is None:
            return
        try:
            with quiet():
                if self._given:
                    record_curves(self._client, self._run_id, curves)
                    return
                self._run_id = self._run_of(self._client, model)
                record_curves(self._client, self._run_id, curves)
                finish(self._client, self._run_id, {**self._tags, MODEL_TAG: model}, {})
        except Exception as error:
            self._break_off(error)

    def _run_of(self, client: "MlflowClient", model: str) -> str:
        """Return the one run that this model is to have."""
        recorded = client.get_run(self._run_id).data.tags.get(MODEL_TAG)
        known = find_run(client, self._params, MODEL_TAG, model)
        if known and known != self._run_id and recorded is None:
            client.delete_run(self._run_id)  # the model was published before, from its files
        if known:
            return known
        if recorded:  # another number of threads, say: another model needs another run
            return create_run(client, self._params, self._tags)
        return self._run_id

    def _break_off(self, error: Exception) -> None:
        self._client = None
        warn(error)
