"""The hooks of tasks whose models generate texts: what is said, beside what else, and what a server offers.

The file goes into the registry with each model, to be served with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stages.tasks.training import TrainedTask

if TYPE_CHECKING:
    from polars import DataFrame, Series


class GeneratingTask(TrainedTask):
    """Most tasks generate nothing, and keep these."""

    part_rows: ClassVar[int] = 2_048  # of a batch prediction: those that a kill may lose

    def spoken(self, model: Path, rows: "DataFrame", predictions: "DataFrame", decision: Any) -> "DataFrame":
        """Return predictions with what a saved model generates for records; most tasks generate nothing."""
        return predictions

    def side_by_side(self, rows: "DataFrame", baselines: "Mapping[str, Series]") -> "dict[str, DataFrame]":
        """Return tables of what the model (`rows` have its predictions) and baselines say of rows; none by default."""
        return {}

    def comparable(self, first: "DataFrame", second: "DataFrame", metric: str) -> str | None:
        """Return why a score of two predictions of the same rows says nothing of which is better; None: it does."""
        return None

    def text_numbers(self, texts: "DataFrame", base: Path, tuned: Path) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the loss (nats) and bytes of general texts [n x 2] by base and tuned model; None: no such model."""
        return None

    def merge_gap(self, rows: "DataFrame", base: Path, tuned: Path) -> float:
        """Return by how much the main score of one record moved at most when a model's adapter was merged."""
        raise NotImplementedError

    def replies(self, predictor: Any, texts: Sequence[str]) -> dict[str, list[Any]]:
        """Return further columns of the answers to texts, which a Predictor's model generates; none by default."""
        return {}

    def routes(self, network: Any, folder: Path, name: str) -> Any:
        """Return FastAPI's router of what a server of a `load`ed model offers besides `/invocations`; None: nothing."""
        return None
