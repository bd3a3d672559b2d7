"""The table of predictions, and what a model costs to keep."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from stages.common.schemas import Predictions
from stages.evaluate.predicted import predicted_rows
from stages.serving.decision import Decision
from stages.tasks.size import size_of

LABELS = ["a", "b", "c"]
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.05, 0.9, 0.05], [0.0, 0.0, 1.0]])
ACTUAL = np.array([0, 2, 0, 0])


def table(thresholds: dict[str, float] | None = None) -> pl.DataFrame:
    test = pl.DataFrame({"id": ["1", "2", "3", "4"], "label": [LABELS[at] for at in ACTUAL]})
    return predicted_rows(test, ACTUAL, PROBABILITIES, Decision(LABELS, 1.0, thresholds or {}))


def test_the_table_keeps_its_contract(tmp_path: Path) -> None:
    written = Predictions.write(table(), tmp_path / "predictions.parquet")
    assert written["prediction"].to_list() == ["a", "b", "b", "c"]
    assert written["confidence"].to_list() == [0.7, 0.5, 0.9, 1.0]
    assert written["probabilities"].to_list() == PROBABILITIES.tolist()


def test_label_quality_falls_with_the_distance_to_a_likelier_label() -> None:
    assert table()["label_quality"].to_list() == pytest.approx([0.75, 0.45, 0.075, 0.0])


def test_a_row_below_its_labels_threshold_is_abstained_from() -> None:
    assert table()["abstained"].to_list() == [False] * 4
    assert table({"b": 0.6, "c": 2.0})["abstained"].to_list() == [False, True, False, True]


def test_parameters_and_bytes_are_those_of_the_weights_and_of_an_adapter_beside_them(tmp_path: Path) -> None:
    save_file({"one": np.zeros((3, 4), np.float32), "two": np.zeros(5, np.float16)}, tmp_path / "model.safetensors")
    save_file({"down": np.zeros((2, 2), np.float32)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert size_of(tmp_path) == {"parameters": 3 * 4 + 5 + 2 * 2, "bytes": size}
