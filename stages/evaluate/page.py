"""`reports/evaluation.html`: how good the model is, where it errs and why, on one page without scripts or network."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.common.display import Mask, display
from stages.common.pages.charts import Axis, Line, line, wilson
from stages.common.pages.templates import environment, fitted
from stages.common.params import Params
from stages.common.text.pii import mask_text
from stages.tasks.attribution import Attribution
from stages.tasks.bootstrap import class_numbers, confusion

LIMIT = 500_000  # bytes of the page; with fewer examples, until it fits
TEXT = 600  # characters shown of a text whose words are coloured
LISTED = 30  # labels, slices
LINES = 8  # labels with a curve of their own
BINS = 10  # of the histogram of confidence
SCORES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def render(
    params: Params,
    metrics: Mapping[str, Any],  # content of `reports/metrics.json`
    export: Mapping[str, Any],  # content of `reports/export.json`
    records: pl.DataFrame,  # test rows, schema CleanRecords
    predictions: pl.DataFrame,  # of the same rows, schema Predictions
    behaviour: pl.DataFrame,  # schema BehaviourCases
    attributions: Sequence[Attribution],  # the words that predictions rest on
    tables: Mapping[str, pl.DataFrame],  # of `reports/plots/` by name: roc, precision_recall, reliability, slices
) -> str:
    """Return the page, the same for the same data in any order of the rows."""
    mask = partial(mask_text, phone_region=None) if params.evaluate.mask_pii else None
    templates = environment(Path(__file__).parent, mask)
    templates.filters["p"] = lambda p: "< 0.0001" if p < 0.0001 else f"{p:.2g}"
    template = templates.get_template("page.html.j2")
    rows = predictions.join(records.select("id", "text", "text_pair"), on="id").sort("id")
    wrong = rows.filter(pl.col("label") != pl.col("prediction")).sort("label_quality", "id")
    labels = list(metrics["per_class"])
    actual, predicted = (class_numbers(rows[column], labels) for column in ("label", "prediction"))
    counts = confusion(actual, predicted, len(labels))
    models = {"this model": metrics, **metrics["baselines"]}
    bounds = [scores[f"{name}_{end}"] for scores in models.values() for name in SCORES for end in ("low", "high")]
    fixed = {
        "metrics": metrics,
        "params": params,
        "models": models,
        "axis": Axis.around(bounds),
        "counts": counts,
        "shares": counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        "labels": labels[:LISTED],
        "slices": _slices(tables["slices"], metrics["accuracy"]),
        "reliability": _lines(tables["reliability"], "confidence", "accuracy", dots=True),
        "confidence": _histogram(rows),
        "roc": _lines(tables["roc"], "fpr", "tpr"),
        "precision_recall": _lines(tables["precision_recall"], "recall", "precision"),
        "export": export,
        "SCORES": SCORES,
        "LISTED": LISTED,
    }

    def with_examples(examples: int) -> str:
        return template.render(
            **fixed,
            behaviour=_behaviour(behaviour, metrics["behaviour"], examples),
            explained=_explained(attributions if examples else [], mask),
            suspects=wrong.head(examples).to_dicts(),
            examples=examples,
            asked=params.evaluate.examples,
        )

    return fitted(with_examples, params.evaluate.examples, LIMIT)


def _slices(slices: pl.DataFrame, overall: float) -> dict[str, Any]:
    """Return the first slices with the places of their accuracy and its interval, in the order of the report."""
    rows = slices.head(LISTED).to_dicts()
    intervals = [wilson(row["accuracy"], row["rows"]) for row in rows]
    axis = Axis.around([*(end for interval in intervals for end in interval), overall])
    for row, (low, high) in zip(rows, intervals, strict=True):
        row["range"] = axis.range(low, row["accuracy"], high)
    others = slices.height - len(rows)
    return {"rows": rows, "overall": axis.place(overall), "marks": axis.marks(), "others": others}


def _lines(table: pl.DataFrame, x: str, y: str, dots: bool = False) -> list[Line]:
    """Return a line per value of the column `label`, in the order of the table."""
    parts = table.partition_by("label", maintain_order=True)[:LINES]
    return [
        line(part["label"][0], f"line{number}", part[x].to_list(), part[y].to_list(), dots)
        for number, part in enumerate(parts)
    ]


def _histogram(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return how many rows are predicted rightly and wrongly, in bins of confidence from the least possible."""
    least = 1 / max(2, len(rows["probabilities"][0])) if rows.height else 0.0
    width = (1 - least) / BINS
    index = ((rows["confidence"] - least) / width).floor().clip(0, BINS - 1).cast(pl.Int64)
    right = rows["label"] == rows["prediction"]
    counts = [(int((right & (index == bin)).sum()), int((~right & (index == bin)).sum())) for bin in range(BINS)]
    return [
        {"from": least + bin * width, "right": hits, "wrong": misses, "rows": hits + misses}
        for bin, (hits, misses) in enumerate(counts)
    ]


def _behaviour(cases: pl.DataFrame, summary: Mapping[str, Any], examples: int) -> list[dict[str, Any]]:
    """Return the behavioural tests in the order of the params, each with its first failing cases."""
    failing = cases.filter(~pl.col("passed")).sort("probability", "text")
    return [
        {"name": name, **result, "examples": failing.filter(pl.col("test") == name).head(examples).to_dicts()}
        for name, result in summary.items()
    ]


def _explained(attributions: Sequence[Attribution], mask: Mask | None) -> dict[str, list[dict[str, Any]]]:
    """Return the explained rows by kind, each with the pieces of its text that fit and their weights, -1 to 1."""
    explained: dict[str, list[dict[str, Any]]] = {"error": [], "sample": []}
    for row in attributions:
        text = "".join(piece for piece, _ in row.pieces)
        hidden = mask is not None and mask(text) != text  # half of an address must not stay because a word ends there
        largest = max((abs(weight) for _, weight in row.pieces), default=0.0) or 1.0
        pieces, room = [], TEXT
        for piece, weight in row.pieces:
            if room > 0:
                pieces.append((display(piece, room + 1), weight / largest))
            room -= len(piece)
        explained[row.kind].append(
            {
                "row": row,
                "hidden": hidden,
                "pieces": [(display(text, TEXT, mask), 0.0)] if hidden else pieces,
                "cut": row.truncated or len(text) > TEXT,
            }
        )
    return explained
