"""Vowel count: how many vowels a text has. A toy, and the least that a task is; a test puts it into `stages/tasks`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.tasks.base import Answer, Refused, Task
from stages.tasks.evidence import Scores


class VowelCount(Task):
    """A label is a whole number as its shortest text."""

    name = "vowel-count"
    signature = {"vowels": "double"}  # noqa: RUF012

    def parse_target(self, cell: str, params: Any) -> str:
        """Read a whole number."""
        if not cell.strip().isdecimal():
            raise Refused("this is no number of vowels")
        return str(int(cell))

    def names(self, label: str) -> list[str]:
        """A number has no name."""
        return []

    def targets(self, labels: Sequence[str], space: Mapping[str, Any]) -> list[float]:
        """Learn tens of vowels."""
        return [int(label) / 10 for label in labels]

    def build_model(self, base: Path, space: Mapping[str, Any], params: Any, seed: int) -> Any:
        """Put a head of one output on the base model."""
        from stages.tasks.encoder import with_head

        return with_head(base, ["vowels"], "regression", params.dropout, seed)

    def loss_function(self, params: Any, space: Mapping[str, Any], targets: Sequence[float]) -> Any:
        """Lower the squared error."""
        return lambda logits, targets: (logits[:, 0] - targets) ** 2

    def validation_scores(self, logits: np.ndarray, targets: np.ndarray, space: Mapping[str, Any]) -> dict[str, float]:
        """Score an epoch."""
        off = np.abs(10 * (logits[:, 0] - targets))
        return {"off_by": float(off.mean()), "exact": float((off < 0.5).mean())}

    def decide(self, outputs: np.ndarray, decision: Any, threshold: float | None = None) -> dict[str, Any]:
        """Answer with a number of two decimals."""
        counts = [f"{max(0.0, value):.2f}" for value in (10 * outputs[:, 0]).tolist()]
        return {"prediction": counts, "confidence": None, "abstained": np.zeros(len(counts), bool)}

    def answers(self, outputs: np.ndarray, decision: Any, threshold: float | None, top_k: int | None) -> list[Answer]:
        """Say it to whoever asks."""
        return [{"vowels": float(count)} for count in self.decide(outputs, decision)["prediction"]]

    def blank_answer(self, answer: Answer) -> Answer:
        """Find none in an empty text."""
        return {"vowels": 0.0}

    def table(self, outputs: np.ndarray, decision: Any, threshold: float | None) -> dict[str, Any]:
        """Write it into a column."""
        decided = self.decide(outputs, decision)
        return {"vowels": list(map(float, decided["prediction"])), "abstained": decided["abstained"]}

    def statistics(self, rows: pl.DataFrame, predictions: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
        """Return the error of each row, whether it is less than a half, and 1."""
        off = np.abs((predictions["prediction"].cast(pl.Float64) - rows["label"].cast(pl.Float64)).to_numpy())
        return np.stack([off, off < 0.5, np.ones(len(off))], axis=1)

    def scores(self, sums: np.ndarray) -> Scores:
        """Return the means of both."""
        return {"off_by": sums[..., 0] / sums[..., 2], "exact": sums[..., 1] / sums[..., 2]}

    def is_correct(self, rows: pl.DataFrame, predictions: pl.DataFrame) -> np.ndarray:
        """Return which rows are off by less than a half."""
        return self.statistics(rows, predictions, [])[:, 1] == 1

    def baseline(self, name: str, parts: Sequence[pl.DataFrame], base: Path, tuned: Path, decision: Any) -> list[str]:
        """Say the same of every text."""
        return [str(parts[0]["label"].cast(pl.Int64).median().__round__())] * parts[2].height

    def label_quality(self, rows: pl.DataFrame, outputs: np.ndarray, decision: Any) -> np.ndarray:
        """Doubt a label that is far from the answer."""
        return np.exp(-np.abs(10 * outputs[:, 0] - rows["label"].cast(pl.Int64).to_numpy()))


TASK = VowelCount()
