"""What a change did to the model: both revisions' models on the test rows that both have."""

import numpy as np
import polars as pl

from flows.reviewing.data_differences import mask_of, typed_params
from flows.reviewing.findings import ChangedRow, ChangedRows, Effect, Gain, Trend
from flows.reviewing.recorded_scores import calibration, curves, reliability
from flows.reviewing.revision import Revision
from stages.common.params.evaluate import Bootstrap, Slices
from stages.common.shown import Mask, shown
from stages.tasks.comparison import accuracy_gain, class_gains, compare
from stages.tasks.scores import class_numbers, confusion, f1_of, scores_of
from stages.tasks.slices import slice_rows

PREDICTIONS = "data/predictions.parquet"
TEST = "data/clean/test.parquet"
COLUMNS = {"id": pl.String, "label": pl.String, "prediction": pl.String, "confidence": pl.Float64}
TEXTS = {"id": pl.String, "text": pl.String, "text_pair": pl.String}
SEED = 13  # where the head's params cannot be read
DIGITS = 6
LEAST_MOVED = 6  # other predictions: of fewer, even the exact sign test tells nothing (2 / 2**5 = 0.06)
TEXT, NAME = 200, 60  # characters shown of a text, of a label


class SharedAnswers:
    """Class numbers of shared rows, [n] int64 each: the labels, and what both models predict."""

    def __init__(self, rows: pl.DataFrame, bootstrap: Bootstrap, seed: int) -> None:
        self.labels = sorted({*rows["label"], *rows["before"], *rows["now"]})
        columns = (rows[name] for name in ("label", "now", "before"))
        self.actual, self.ours, self.theirs = (class_numbers(column, self.labels) for column in columns)
        self.bootstrap, self.seed = bootstrap, seed
        self.counts = [confusion(self.actual, said, len(self.labels)) for said in (self.theirs, self.ours)]

    def scores(self) -> tuple[tuple[Gain, ...], float]:
        """Return the gain in each score, and the p-value of McNemar's test."""
        found = compare(self.actual, self.ours, self.theirs, len(self.labels), self.bootstrap, self.seed)
        old, new = map(scores_of, self.counts)
        moved = self.ours != self.theirs
        gains = [
            _gain(name, len(moved), float(old[name]), float(new[name]), found, f"{name}_gain", moved) for name in new
        ]
        return tuple(gains), found["mcnemar_p"]

    def classes(self, mask: Mask | None) -> tuple[Gain, ...]:
        """Return the gain in each label's F1; its rows are those that have the label."""
        found = class_gains(self.actual, self.ours, self.theirs, len(self.labels), self.bootstrap, self.seed)
        old, new = map(f1_of, self.counts)
        gains = []
        for at, label in enumerate(self.labels):
            counted = (self.actual == at) | (self.ours == at) | (self.theirs == at)  # rows that its F1 rests on
            moved, rows = (self.ours != self.theirs)[counted], int((self.actual == at).sum())
            gains.append(_gain(shown(label, NAME, mask), rows, old[at], new[at], found[at], "f1_gain", moved))
        return tuple(gains)

    def accuracy(self, name: str, rows: np.ndarray) -> Gain:
        """Return the gain in accuracy on some of the rows, by their numbers [m]."""
        actual, ours, theirs = self.actual[rows], self.ours[rows], self.theirs[rows]
        found = accuracy_gain(actual, ours, theirs, self.bootstrap, self.seed)
        old, new = ((said == actual).mean() for said in (theirs, ours))
        return _gain(name, len(rows), old, new, found, "accuracy_gain", ours != theirs)


def effect_of(base: Revision, head: Revision, examples: int) -> Effect | None:
    """Compare the models of two revisions by what both predicted for their test rows.

    Labels, slices and settings are the head's. What cannot be compared is a line of `missing`; where no test row is in
    both, there are no scores (`rows` is 0). Costs are not measured here.

    Args:
        base: the older one.
        head: the newer one.
        examples: rows listed that improved, and that regressed.

    Returns:
        None if one of the two has no predictions at all.
    """
    if not all((revision.folder / PREDICTIONS).exists() for revision in (base, head)):
        return None
    missing: list[str] = []
    old, new = (_predictions(revision, missing) for revision in (base, head))
    mask, params = mask_of(head), typed_params(head)
    if params is None:
        missing.append(f"params.yaml of {head.name} is not what the code here reads: intervals and slices are default")
    bootstrap, slices = (params.evaluate.bootstrap, params.evaluate.slices) if params else (Bootstrap(), Slices())
    rows = _side_by_side(old, new, _texts(head, missing))
    answers = SharedAnswers(rows, bootstrap, params.seed if params else SEED)
    scores, mcnemar_p = answers.scores() if rows.height else ((), 1.0)
    relabelled = rows.filter(pl.col("label") != pl.col("label_before")).height
    right, before = pl.col("now") == pl.col("label"), pl.col("before") == pl.col("label")
    only = old.height - rows.height, new.height - rows.height
    if not rows.height and not missing:
        missing.append("no test row is in both revisions: the scores cannot be compared")
    if any(only) or relabelled:
        missing.append("calibration is that of each revision on its own test rows, which are not the same")
    return Effect(
        rows=rows.height,
        only_base=only[0],
        only_head=only[1],
        relabelled=relabelled,
        scores=scores,
        mcnemar_p=mcnemar_p,
        classes=answers.classes(mask) if rows.height else (),
        slices=_slices(head, rows, answers, slices, mask, missing) if rows.height else (),
        improved=_changed_rows(rows.filter(right & ~before), examples, mask),
        regressed=_changed_rows(rows.filter(before & ~right), examples, mask),
        moved=rows.filter(~right & ~before & (pl.col("now") != pl.col("before"))).height,
        labels=tuple(shown(label, NAME, mask) for label in answers.labels),
        confusion_base=answers.counts[0],
        confusion_head=answers.counts[1],
        curves=curves(base, head),
        reliability=reliability(base, head),
        figures=calibration(base, head),
        missing=tuple(missing),
    )


def _predictions(revision: Revision, missing: list[str]) -> pl.DataFrame:
    """Return a row per id; none, and a line in `missing`, if the table is not what `evaluate` writes."""
    table = revision.table(PREDICTIONS)
    if table is not None and all(table.schema.get(name) == kind for name, kind in COLUMNS.items()):
        table = table.select(*COLUMNS)
        if table["id"].is_unique().all() and not sum(table.null_count().row(0)):
            return table
    missing.append(f"no rows can be compared: {PREDICTIONS} of {revision.name} is not what `evaluate` writes")
    return pl.DataFrame(schema=COLUMNS)


def _texts(head: Revision, missing: list[str]) -> pl.DataFrame:
    table = head.table(TEST)
    if table is None or any(table.schema.get(name) != pl.String for name in ("id", "text")):
        missing.append(
            f"{TEST} of {head.name} is not there or not readable: rows have no texts, and there are no slices"
        )
        return pl.DataFrame(schema=TEXTS)
    pair = pl.col("text_pair").cast(pl.String) if "text_pair" in table.columns else pl.lit(None, pl.String)
    return table.select("id", "text", pair.alias("text_pair")).unique("id", keep="first")


def _side_by_side(old: pl.DataFrame, new: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    before = old.select("id", label_before="label", before="prediction", before_confidence="confidence")
    after = new.select("id", "label", now="prediction", now_confidence="confidence")
    return after.join(before, on="id").join(texts, on="id", how="left").sort("id")


def _slices(
    head: Revision, rows: pl.DataFrame, answers: SharedAnswers, params: Slices, mask: Mask | None, missing: list[str]
) -> tuple[Gain, ...]:
    """Return the gain in accuracy on each slice of the head's test split, as far as its rows are shared."""
    test = head.table(TEST)
    if test is None:
        return ()
    try:
        parts = slice_rows(test, params.model_copy(update={"min_rows": 1}))
        numbers = rows.select("id", number=pl.int_range(pl.len()))
        place = test.select("id").join(numbers, on="id", how="left", maintain_order="left")["number"]
    except pl.exceptions.PolarsError as error:
        missing.append(f"slices cannot be compared: {str(error).splitlines()[0]}")
        return ()
    at = place.fill_null(-1).to_numpy()
    within = ((name, np.sort(at[part][at[part] >= 0])) for name, part in parts)
    return tuple(
        answers.accuracy(shown(name, NAME, mask), part) for name, part in within if len(part) >= params.min_rows
    )


def _changed_rows(rows: pl.DataFrame, examples: int, mask: Mask | None) -> ChangedRows:
    """Return the rows of which the head's model is most confident, rightly or wrongly; cut and masked."""
    first = rows.sort("now_confidence", "id", descending=[True, False]).head(examples).select(*ChangedRow._fields)
    widths = {"text": TEXT, "text_pair": TEXT, "label": NAME, "before": NAME, "now": NAME}
    return ChangedRows(
        rows.height,
        tuple(
            ChangedRow(**(row | {name: shown(row[name], most, mask) for name, most in widths.items()}))
            for row in first.iter_rows(named=True)
        ),
    )


def _gain(name: str, rows: int, base: float, head: float, found: dict[str, float], key: str, moved: np.ndarray) -> Gain:
    low, high = found[f"{key}_low"], found[f"{key}_high"]
    trend: Trend = "unclear" if moved.any() else "same"
    if np.count_nonzero(moved) >= LEAST_MOVED:
        trend = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return Gain(name, rows, round(float(base), DIGITS), round(float(head), DIGITS), found[key], low, high, trend)
