"""`reports/evaluation.html`: how good the model is, where it errs and why, on one page without scripts or network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

LIMIT = 500_000  # bytes of the page; with fewer examples, until it fits
TEXT = 600  # characters shown of a text whose words are coloured
LISTED = 30  # labels, slices
LINES = 8  # labels with a curve of their own
BINS = 10  # of the histogram of confidence
SCORES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
NOTES = {
    "typos": "Letters swapped, dropped or doubled must not change the prediction.",
    "names": "One given name for another must not change the prediction.",
    "punctuation": "Punctuation added or taken away must not change the prediction.",
    "casing": "Upper and lower case must not change the prediction.",
}
VARIANTS = {"onnx": "ONNX", "int8": "ONNX, 8 bits"}


@dataclass(frozen=True)
class PageData:
    """All that the page tells of.

    Args:
        params: all parameters.
        metrics: content of `reports/metrics.json`.
        export: content of `reports/export.json`.
        records: test rows, schema CleanRecords.
        predictions: of the same rows, schema Predictions.
        confusion: counts [actual x predicted].
        roc: label, fpr, tpr.
        precision_recall: label, recall, precision.
        reliability: label (`as trained`, `calibrated`), confidence, accuracy, rows.
        slices: slice, rows, accuracy, macro_f1.
        behaviour: schema BehaviourCases.
        attributions: the words that predictions rest on.
    """

    params: Params
    metrics: Mapping[str, Any]
    export: Mapping[str, Any]
    records: pl.DataFrame
    predictions: pl.DataFrame
    confusion: np.ndarray
    roc: pl.DataFrame
    precision_recall: pl.DataFrame
    reliability: pl.DataFrame
    slices: pl.DataFrame
    behaviour: pl.DataFrame
    attributions: Sequence[Attribution]


def render(page: PageData) -> str:
    """Return the page, the same for the same data in any order of the rows."""
    evaluate = page.params.evaluate
    mask = partial(mask_text, phone_region=None) if evaluate.mask_pii else None
    templates = environment(Path(__file__).parent, mask)
    templates.filters["p"] = lambda p: "< 0.0001" if p < 0.0001 else f"{p:.2g}"
    template = templates.get_template("page.html.j2")
    rows = page.predictions.join(page.records.select("id", "text", "text_pair"), on="id").sort("id")
    labels = list(page.metrics["per_class"])
    fixed = {
        "metrics": page.metrics,
        "task": page.params,
        "models": _models(page.metrics),
        "confusion": _confusion(page.confusion, labels),
        "labels": labels[:LISTED],
        "slices": _slices(page),
        "reliability": _by_name(page.reliability, "label", "confidence", "accuracy", dots=True),
        "confidence": _confidence(rows),
        "roc": _by_name(page.roc, "label", "fpr", "tpr"),
        "precision_recall": _by_name(page.precision_recall, "label", "recall", "precision"),
        "export": {VARIANTS.get(name, name): found for name, found in page.export.items()},
        "NOTES": NOTES,
        "SCORES": SCORES,
        "LISTED": LISTED,
    }

    def with_examples(examples: int) -> str:
        return template.render(
            **fixed,
            behaviour=_behaviour(page, examples),
            explained=_explained(page.attributions if examples else [], mask),
            suspects=_suspects(rows, examples),
            examples=examples,
            asked=evaluate.examples,
        )

    return fitted(with_examples, evaluate.examples, LIMIT)


def _models(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return this model and the baselines with the places of their intervals, by score."""
    named = {"this model": metrics, **metrics["baselines"]}
    axis = Axis.around(
        [scores[f"{score}_{end}"] for scores in named.values() for score in SCORES for end in ("low", "high")]
    )
    rows = [
        {
            "name": name,
            "scores": scores,
            "ranges": {
                score: axis.range(scores[f"{score}_low"], scores[score], scores[f"{score}_high"]) for score in SCORES
            },
        }
        for name, scores in named.items()
    ]
    return {"rows": rows, "marks": axis.marks()}


def _confusion(counts: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Return a row per label with its counts and their shares of the row."""
    most = min(len(labels), LISTED)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        {
            "label": labels[row],
            "cells": [(int(counts[row, at]), float(shares[row, at]), row == at) for at in range(most)],
        }
        for row in range(most)
    ]


def _slices(page: PageData) -> dict[str, Any]:
    """Return the largest slices with the places of their accuracy and its interval, in the order of the report."""
    listed = page.slices.head(LISTED).to_dicts()
    found = [{**row, "interval": wilson(row["accuracy"], row["rows"])} for row in listed]
    overall = page.metrics["accuracy"]
    ends = [end for row in found for end in row["interval"]]
    axis = Axis.around([*ends, overall])
    for row in found:
        row["range"] = axis.range(row["interval"][0], row["accuracy"], row["interval"][1])
    others = page.slices.height - len(found)
    return {"rows": found, "overall": axis.place(overall), "marks": axis.marks(), "others": others}


def _by_name(table: pl.DataFrame, name: str, x: str, y: str, dots: bool = False) -> list[Line]:
    """Return a line per value of the column `name`, in the order of the table."""
    parts = table.partition_by(name, maintain_order=True)[:LINES]
    return [
        line(part[name][0], f"line{at}", part[x].to_list(), part[y].to_list(), dots) for at, part in enumerate(parts)
    ]


def _confidence(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return how many rows the model was so sure of, right and wrong, in bins of confidence from the least possible."""
    least = 1 / max(2, len(rows["probabilities"][0])) if rows.height else 0.0
    width = (1 - least) / BINS
    at = ((rows["confidence"] - least) / width).floor().clip(0, BINS - 1).cast(pl.Int64)
    right = rows["label"] == rows["prediction"]
    counts = [(int((right & (at == one)).sum()), int((~right & (at == one)).sum())) for one in range(BINS)]
    most = max(sum(pair) for pair in counts) or 1
    return [
        {
            "from": least + one * width,
            "right": hits,
            "wrong": misses,
            "right_height": hits / most,
            "wrong_height": misses / most,
        }
        for one, (hits, misses) in enumerate(counts)
    ]


def _behaviour(page: PageData, examples: int) -> list[dict[str, Any]]:
    """Return the behavioural tests in the order of the params, each with its first failing cases."""
    failing = page.behaviour.filter(~pl.col("passed"))
    return [
        {
            "name": name,
            **found,
            "examples": failing.filter(pl.col("test") == name)
            .bottom_k(examples, by=["probability", "text"])
            .sort("probability", "text")
            .to_dicts()
            if examples
            else [],
        }
        for name, found in page.metrics["behaviour"].items()
    ]


def _explained(attributions: Sequence[Attribution], mask: Mask | None) -> dict[str, list[dict[str, Any]]]:
    """Return the explained rows by kind; the colour of a piece is its share of the row's largest."""
    found: dict[str, list[dict[str, Any]]] = {"error": [], "sample": []}
    for one in attributions:
        text = "".join(piece for piece, _ in one.pieces)
        hidden = mask is not None and mask(text) != text  # half of an address must not stay because a word ends there
        found[one.kind].append(
            {
                "row": one,
                "hidden": hidden,
                "pieces": [(display(text, TEXT, mask), 0.0)] if hidden else _coloured(one.pieces),
                "cut": one.truncated or len(text) > TEXT,
            }
        )
    return found


def _coloured(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return the pieces that fit, each with its weight between -1 and 1."""
    largest = max((abs(weight) for _, weight in pieces), default=0.0) or 1.0
    kept, room = [], TEXT
    for piece, weight in pieces:
        if room <= 0:
            break
        kept.append((display(piece, room + 1), weight / largest))
        room -= len(piece)
    return kept


def _suspects(rows: pl.DataFrame, examples: int) -> list[dict[str, Any]]:
    """Return the errors whose label fits the least with what the model says: mistakes of the label, perhaps."""
    wrong = rows.filter(pl.col("label") != pl.col("prediction"))
    return wrong.sort("label_quality", "id").head(examples).to_dicts()
