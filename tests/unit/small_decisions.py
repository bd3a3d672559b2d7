"""Decisions of text classification, and the probabilities of a model without one, in few words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from stages.serving.backends import Package, Predictor
from stages.tasks.inference import texts_and_pairs
from stages.tasks.text_classification import TASK, LabelDecision


def label_decision(
    labels: Sequence[str], temperature: float = 1.0, thresholds: Mapping[str, float] | None = None
) -> LabelDecision:
    """A decision on these labels."""
    return LabelDecision(task=TASK.name, labels=[*labels], temperature=temperature, thresholds=dict(thresholds or {}))


def probabilities(model: Path, rows: pl.DataFrame, batch_size: int = 64) -> np.ndarray:
    """What the model in a folder says of rows, [n x k], uncalibrated."""
    return Predictor(Package(model), "torch").outputs(*texts_and_pairs(rows), batch_size)
