"""What differs by task: one module per task, behind one small protocol."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from transformers import EvalPrediction, PreTrainedModel


class Task(Protocol):
    """What the stages need to know of a task; a module of this package provides it as functions."""

    def build_model(self, base: Path, labels: list[str], dropout: float | None, seed: int) -> "PreTrainedModel":
        """Return the base model with a new head for these labels, in float32."""

    def validation_metrics(self, prediction: "EvalPrediction") -> dict[str, float]:
        """Return the scores of one pass over the validation split."""

    def probabilities(self, model: Path, rows: "pl.DataFrame", batch_size: int) -> "np.ndarray":
        """Return the probability of each label for each row, [rows x labels] float64."""

    def scores(self, actual: "np.ndarray", predicted: "np.ndarray", classes: int) -> dict[str, float]:
        """Return the scores that gates may name, of class numbers [n]."""


def load_task(name: str) -> Task:
    """Return the task's module; `name` as in params.yaml."""
    return cast(Task, import_module(f"stages.tasks.{name.replace('-', '_')}"))
