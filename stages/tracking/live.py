"""The live line from a training to MLflow: it may break at any time, and the training does not notice."""

import os
from pathlib import Path

from stages.common.params import Params
from stages.common.pipeline.stage import LOGS
from stages.tracking.provenance import origin_tags
from stages.tracking.runs import (
    INPUTS_TAG,
    MODEL_TAG,
    Curves,
    create_run,
    find_run,
    finish,
    keep_training_tags,
    record_curves,
    run_of_model,
)
from stages.tracking.store import Recorder, connect

LIVE = LOGS / "finetune.jsonl"  # a line per point of both curves, while the stage runs
TRIAL_RUN = "ATTUNE_TRIAL_RUN"  # set by flows.search.trials: the run that a training reports to; empty: to none


class LiveRun(Recorder):
    """The MLflow run of one training, identified by the digest of the training's inputs.

    A training that was cut short goes on in its run; training again from the same inputs adds nothing. A trial of a
    search or a cross-validation is given its run, and leaves its end to those who gave it.
    """

    def __init__(self, params: Params, inputs: str, tags: dict[str, str]) -> None:
        super().__init__()
        self._params, self._tags = params, {**tags, INPUTS_TAG: inputs}
        self._given = os.environ.get(TRIAL_RUN)
        if self._given == "":
            return
        with self.trying():
            if not self._given:  # before MLflow is asked: it may be away, and this is the time to look
                self._tags = {**origin_tags(), **self._tags}
            self.client = connect()
            run = self._given or find_run(self.client, params, INPUTS_TAG, inputs)
            self._curves = Curves(self.client, run or create_run(self.client, params, self._tags))

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record a point of each curve."""
        if self.client is not None:
            with self.trying():
                self._curves.add([(step, metrics)])

    def finish(self, model: str, curves: list[Path]) -> None:
        """Fill the gaps of the curves, tag the run with the model's digest and end it."""
        keep_training_tags(model, self._tags)
        if self.client is None:
            return
        with self.trying():
            run = self._given or run_of_model(self.client, self._params, model, self._tags)
            record_curves(self.client, run, curves)
            if not self._given:
                finish(self.client, run, self._tags, {INPUTS_TAG: self._tags[INPUTS_TAG], MODEL_TAG: model})
