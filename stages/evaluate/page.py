"""`reports/evaluation.html`: how good the model is, where it errs and why, on one page without scripts or network."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import confusion_matrix

from stages.common.display import Mask, display
from stages.common.pages.charts import Axis, Line, line, wilson
from stages.common.pages.templates import environment, fitted
from stages.common.params import Params
from stages.common.params.tasks import Score
from stages.common.text.pii import mask_text
from stages.tasks.attribution import Attribution

LIMIT = 500_000  # bytes of the page; with fewer examples, until it fits
TEXT = 600  # characters shown of a text whose words are coloured
LISTED = 30  # labels, slices
LINES = 8  # labels with a curve of their own
ENDS = ("_low", "_high")  # of an interval
BINS = 10  # of the histogram of confidence


def render(
    params: Params,
    scores: Mapping[str, Any],  # content of `reports/scores.json`
    reports: Mapping[str, Mapping[str, Any]],  # content of `reports/export.json` and `tokenize.json`, by name
    rows: pl.DataFrame,  # test records with the columns of their predictions
    right: pl.Series,  # whether each prediction counts as right
    behaviour: pl.DataFrame,  # schema BehaviourCases
    attributions: Sequence[Attribution],  # the words that predictions rest on
    tables: Mapping[str, pl.DataFrame],  # of `reports/plots/` by name, and what else the task reports
) -> str:
    """Return the page, the same for the same data in any order of the rows.

    The sections of a task are in the template that is called as the task; one without a template has none.
    """
    mask = partial(mask_text, phone_region=None) if params.evaluate.mask_pii else None
    templates = environment(Path(__file__).parent, mask)
    templates.filters["p"] = lambda p: "< 0.0001" if p < 0.0001 else f"{p:.2g}"
    template = templates.get_template("page.html.j2")
    rows = rows.with_columns(right=right).sort("id")
    wrong = rows.filter(~pl.col("right")).sort("label_quality", "id")
    failing = behaviour.filter(~pl.col("passed")).sort("score", "text")
    models, headline = {"this model": scores, **scores["baselines"]}, params.spec.headline
    most = params.evaluate.examples
    context = {
        "scores": scores,
        "params": params,
        "models": models,
        "headline": headline,
        "axes": {
            score.name: _axis(score, [entry[f"{score.name}{end}"] for entry in models.values() for end in ENDS])
            for score in headline
        },
        "slices": _slices(tables["slices"], scores, params.spec.of_slices),
        "tables": tables,
        "export": reports["export"],
        "tokenized": reports["tokenize"],
        "cells": _cells,
        "cross": _cross,
        "lines": _lines,
        "histogram": partial(_histogram, rows),
        "LISTED": LISTED,
        "failing": {name: failing.filter(test=name).head(most).to_dicts() for name in scores["behaviour"]},
        "explained": _explained(attributions, mask),
        "suspects": wrong.head(most).to_dicts(),
    }
    return fitted(lambda examples: template.render(**context, examples=examples), most, LIMIT)


def _axis(score: Score, bounds: Sequence[float]) -> Axis:
    """Return the axis of intervals of a score, by their ends."""
    if not score.unbounded:
        return Axis.around(bounds, least=0.0 if min(bounds) >= 0 else -1.0)
    return Axis.around(bounds, max(bounds) / 20 or 0.05, -math.inf, math.inf)


def _cross(pairs: pl.DataFrame) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names in a table of actual and predicted, counts [actual x predicted], and shares of the actual."""
    names = sorted({*pairs["actual"], *pairs["predicted"]})
    counts = confusion_matrix(pairs["actual"].to_list(), pairs["predicted"].to_list(), labels=names)
    return names, counts, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _cells(table: pl.DataFrame) -> dict[str, Any]:
    """Return the cells of a scatter of actual and predicted numbers, 64 on either side: their places, and how full.

    `low` and `high` are the ends of both axes, in the middle of the outer cells.
    """
    ends = [*table["actual"], *table["predicted"]]
    low, high = min(ends), max(ends)
    size, most = (high - low) / 63 or 1.0, table["rows"].max()
    cells = [(round((x - low) / size), round((y - low) / size), rows / most) for x, y, rows in table.iter_rows()]
    return {"cells": cells, "low": low, "high": high}


def _slices(slices: pl.DataFrame, scores: Mapping[str, float], score: Score) -> dict[str, Any]:
    """Return the first slices with the places of a score, in the order of the report; of a share with its interval."""
    rows = slices.head(LISTED).to_dicts()
    values = [row[score.name] for row in rows]
    intervals = [
        wilson(value, row["rows"]) if score.share else (value, value) for value, row in zip(values, rows, strict=True)
    ]
    axis = _axis(score, [*(end for interval in intervals for end in interval), scores[score.name]])
    for row, (low, high) in zip(rows, intervals, strict=True):
        row["range"] = axis.range(low, row[score.name], high)
    overall, others = axis.place(scores[score.name]), slices.height - len(rows)
    return {"rows": rows, "score": score, "overall": overall, "marks": axis.marks(), "others": others}


def _lines(table: pl.DataFrame, x: str, y: str, dots: bool = False) -> list[Line]:
    """Return a line per value of the column `label`, in the order of the table."""
    parts = table.partition_by("label", maintain_order=True)[:LINES]
    return [
        line(part["label"][0], f"line{number}", part[x].to_list(), part[y].to_list(), dots)
        for number, part in enumerate(parts)
    ]


def _histogram(rows: pl.DataFrame, least: float) -> list[dict[str, Any]]:
    """Return how many rows are predicted rightly and wrongly, in bins of confidence from the least possible."""
    width = (1 - least) / BINS
    index = ((rows["confidence"] - least) / width).floor().clip(0, BINS - 1).cast(pl.Int64)
    right = rows["right"]
    counts = [(int((right & (index == bin)).sum()), int((~right & (index == bin)).sum())) for bin in range(BINS)]
    return [
        {"from": least + bin * width, "right": hits, "wrong": misses, "rows": hits + misses}
        for bin, (hits, misses) in enumerate(counts)
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
