"""What a change did to the model: both revisions' models on the test rows that both have."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from flows.reviewing.findings import ChangedRow, ChangedRows, Effect, Gain, Trend
from flows.reviewing.recorded_scores import curves, figures
from flows.reviewing.revision import Revision
from stages.common.display import Mask, display
from stages.common.params.evaluate import Bootstrap, Slices
from stages.tasks.bootstrap import accuracy_gain, class_gains, class_numbers, compare, confusion, f1_of, scores_of
from stages.tasks.slices import slice_rows

PREDICTIONS = "data/predictions.parquet"
TEST = "data/clean/test.parquet"
COLUMNS = {"id": pl.String, "label": pl.String, "prediction": pl.String, "confidence": pl.Float64}
TEXTS = dict.fromkeys(("id", "text", "text_pair", "extra"), pl.String)
SEED = 13  # where the head's params cannot be read
DIGITS = 6
LEAST_MOVED = 6  # other predictions: of fewer, even the exact sign test tells nothing (2 / 2**5 = 0.06)
TEXT, NAME = 200, 60  # characters shown of a text, of a label


def effect_of(base: Revision, head: Revision, examples: int) -> Effect | None:
    """Compare the models of two revisions by what both predicted for their test rows.

    Labels, slices and settings are the head's. What cannot be compared is a line of `missing`; where no test row is in
    both, there are no scores (`rows` is 0). None if one of the two has no predictions at all.
    """
    if not all((revision.folder / PREDICTIONS).exists() for revision in (base, head)):
        return None
    missing: list[str] = []
    old, new = (_table(revision, PREDICTIONS, COLUMNS, missing) for revision in (base, head))
    test = _table(head, TEST, TEXTS, missing)
    before = old.select("id", label_before="label", before="prediction", before_confidence="confidence")
    after = new.select("id", "label", now="prediction", now_confidence="confidence")
    rows = after.join(before, on="id").sort("id")
    answers, mask = SharedAnswers(rows, head), head.mask
    if not rows.height and not missing:
        missing.append("no test row is in both revisions: the scores cannot be compared")
    texts = rows.join(test.select("id", "text", "text_pair").unique("id", keep="first"), on="id", how="left")
    right, was_right = pl.col("now") == pl.col("label"), pl.col("before") == pl.col("label")
    return Effect(
        rows=rows.height,
        only_base=old.height - rows.height,
        only_head=new.height - rows.height,
        relabelled=rows.filter(pl.col("label") != pl.col("label_before")).height,
        scores=answers.scores(),
        mcnemar_p=answers.mcnemar_p,
        classes=answers.classes(mask),
        slices=answers.slices(test, rows["id"], mask),
        improved=_changed_rows(texts.filter(right & ~was_right), examples, mask),
        regressed=_changed_rows(texts.filter(was_right & ~right), examples, mask),
        moved=rows.filter(~right & ~was_right & (pl.col("now") != pl.col("before"))).height,
        labels=tuple(display(label, NAME, mask) for label in answers.labels),
        confusion_base=answers.counts[0],
        confusion_head=answers.counts[1],
        curves=curves(base, head),
        figures=figures(base, head),
        missing=tuple(missing),
    )


class SharedAnswers:
    """Class numbers of shared rows, [n] int64 each: the labels, and what both models predict."""

    def __init__(self, rows: pl.DataFrame, head: Revision) -> None:
        self.labels = sorted({*rows["label"], *rows["before"], *rows["now"]})
        columns = (rows[name] for name in ("label", "now", "before"))
        self.actual, self.ours, self.theirs = (class_numbers(column, self.labels) for column in columns)
        self.moved = self.ours != self.theirs
        self.counts = [confusion(self.actual, said, len(self.labels)) for said in (self.theirs, self.ours)]
        evaluate = head.params.evaluate if head.params else None
        self.parts = evaluate.slices if evaluate else Slices()
        self.drawing = evaluate.bootstrap if evaluate else Bootstrap(), head.params.seed if head.params else SEED
        sides = (self.actual, self.ours, self.theirs, len(self.labels), *self.drawing)
        self.found = compare(*sides) if len(rows) else {"mcnemar_p": 1.0}
        self.of_classes = class_gains(*sides) if len(rows) else []
        self.mcnemar_p = self.found["mcnemar_p"]

    def scores(self) -> tuple[Gain, ...]:
        """Return the gain in each score."""
        if not len(self.actual):
            return ()
        old, new = ({name: float(score) for name, score in scores_of(counts).items()} for counts in self.counts)
        rows = len(self.moved)
        return tuple(_gain(name, rows, old[name], new[name], self.found, f"{name}_gain", self.moved) for name in new)

    def classes(self, mask: Mask | None) -> tuple[Gain, ...]:
        """Return the gain in each label's F1; its rows are those that have the label."""
        old, new = map(f1_of, self.counts)
        gains = []
        for at, found in enumerate(self.of_classes):
            counted = (self.actual == at) | (self.ours == at) | (self.theirs == at)  # rows that its F1 rests on
            name, rows = display(self.labels[at], NAME, mask), int((self.actual == at).sum())
            gains.append(_gain(name, rows, old[at], new[at], found, "f1_gain", self.moved[counted]))
        return tuple(gains)

    def slices(self, test: pl.DataFrame, ids: pl.Series, mask: Mask | None) -> tuple[Gain, ...]:
        """Return the gain in accuracy on each slice of the head's test split, as far as its rows are shared."""
        if test.is_empty():
            return ()
        parts = slice_rows(test, self.parts.model_copy(update={"min_rows": 1}))
        place = {name: number for number, name in enumerate(ids)}
        at = np.array([place.get(name, -1) for name in test["id"]])  # of each test row among the shared ones
        within = ((name, np.sort(at[part][at[part] >= 0])) for name, part in parts)
        return tuple(
            self._accuracy(display(name, NAME, mask), rows) for name, rows in within if len(rows) >= self.parts.min_rows
        )

    def _accuracy(self, name: str, rows: np.ndarray) -> Gain:
        actual, ours, theirs = self.actual[rows], self.ours[rows], self.theirs[rows]
        found = accuracy_gain(actual, ours, theirs, *self.drawing)
        old, new = ((said == actual).mean() for said in (theirs, ours))
        return _gain(name, len(rows), old, new, found, "accuracy_gain", ours != theirs)


def _table(revision: Revision, path: str, columns: Mapping[str, Any], missing: list[str]) -> pl.DataFrame:
    """Return a table of rows by id; none, and a line in `missing`, if it is not what the pipeline writes."""
    table = revision.table(path)
    if table is not None and all(table.schema.get(name) == kind for name, kind in columns.items()):
        return table
    missing.append(f"{path} of {revision.name} is not there, or not what the code here reads")
    return pl.DataFrame(schema=columns)


def _changed_rows(rows: pl.DataFrame, examples: int, mask: Mask | None) -> ChangedRows:
    """Return the rows of which the head's model is most confident, rightly or wrongly; cut and masked."""
    first = rows.sort("now_confidence", "id", descending=[True, False]).head(examples).select(*ChangedRow._fields)
    widths = {"text": TEXT, "text_pair": TEXT, "label": NAME, "before": NAME, "now": NAME}
    return ChangedRows(
        rows.height,
        tuple(
            ChangedRow(**(row | {name: display(row[name], most, mask) for name, most in widths.items()}))
            for row in first.iter_rows(named=True)
        ),
    )


def _gain(name: str, rows: int, base: float, head: float, found: dict[str, float], key: str, moved: np.ndarray) -> Gain:
    low, high = found[f"{key}_low"], found[f"{key}_high"]
    trend: Trend = "unclear" if moved.any() else "same"
    if np.count_nonzero(moved) >= LEAST_MOVED:
        trend = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return Gain(name, rows, round(float(base), DIGITS), round(float(head), DIGITS), found[key], low, high, trend)
