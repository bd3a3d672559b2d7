"""The live line from a training to MLflow: it may break at any time, and the training does not notice."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.params import Params
from stages.common.tracking.runs import INPUTS_TAG, MODEL_TAG, create_run, find_run, finish, record_curves
from stages.common.tracking.store import connect, quiet, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient


class LiveRun:
    """The MLflow run of one training, identified by the digest of the training's inputs.

    A training that was cut short goes on in its run. One that was recorded in full before is only checked: training
    again from the same inputs gives the same model and adds nothing.
    """

    def __init__(self, params: Params, inputs: str, tags: dict[str, str]) -> None:
        self._params, self._inputs, self._tags = params, inputs, tags
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._complete = False
        try:
            self._client = connect()
            found = find_run(self._client, params, INPUTS_TAG, inputs)
            self._complete = bool(found) and MODEL_TAG in self._client.get_run(found or "").data.tags
            self._run_id = found or create_run(self._client, params, {**tags, INPUTS_TAG: inputs})
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
            self._client.log_batch(
                self._run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()]
            )
        except Exception as error:
            self._break_off(error)

    def finish(self, model: str, curves: list[Path]) -> None:
        """Fill the gaps of the curves, tag the run with the model's digest and end it."""
        if self._client is None:
            return
        try:
            with quiet():
                recorded = self._client.get_run(self._run_id).data.tags.get(MODEL_TAG)
                if recorded not in (None, model):  # another number of threads, say: another model needs another run
                    self._run_id = create_run(self._client, self._params, {**self._tags, INPUTS_TAG: self._inputs})
                record_curves(self._client, self._run_id, curves)
                finish(self._client, self._run_id, {MODEL_TAG: model})
        except Exception as error:
            self._break_off(error)

    def _break_off(self, error: Exception) -> None:
        self._client = None
        warn(error)
