"""What a change did to the model: both models on the test rows that both revisions have, and their reports."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from flows.reporting.reports import spec_of
from flows.reviewing.findings import ChangedRow, ChangedRows, Confused, Effect, Gain, Trend
from flows.reviewing.revision import Revision
from stages.common.display import Mask, display
from stages.common.pages.charts import Chart, Points, chart
from stages.common.params.evaluate import EvaluateParams
from stages.common.params.tasks import TaskSpec
from stages.tasks import FIRST, load_task
from stages.tasks.bootstrap import gains, mcnemar, scores_of
from stages.tasks.evidence import Evidence
from stages.tasks.slices import slice_rows
from stages.tracking.provenance import SCORES
from stages.tracking.runs import flatten

PREDICTIONS, TEST = "data/predictions.parquet", "data/clean/test.parquet"
COLUMNS = {"id": pl.String, "label": pl.String, "prediction": pl.String, "confidence": pl.Float64}
TEXTS = dict.fromkeys(("id", "text", "text_pair", "label", "extra"), pl.String)
SEED = 13  # where the head's params cannot be read
LEAST_MOVED = 6  # other predictions: of fewer, even the exact sign test tells nothing (2 / 2**5 = 0.06)
TEXT, NAME = 200, 60  # characters shown of a text, of a label

CURVES = {  # files of reports/plots/, and their columns of x and y
    "training": ("step", "value"),
    "validation": ("epoch", "value"),
    "reliability": ("confidence", "share"),
}
FIGURES = {  # name, and where it stands in scores.json
    "calibration error": "calibration.ece",
    "log loss": "log_loss",
    "Brier score": "calibration.brier",
    "coverage at the thresholds": "thresholds.coverage",
    "right of what is answered": "thresholds.right",
    "weights": "model.parameters",
    "bytes of the model": "model.bytes",
}


def effect_of(base: Revision, head: Revision, examples: int) -> Effect | None:
    """Compare the models of two revisions by what both predicted for their test rows.

    Labels, slices and settings are the head's. What cannot be compared is a line of `missing`; where no test row is in
    both, there are no scores (`rows` is 0). None if one of the two has no predictions at all.
    """
    if not all((revision.folder / PREDICTIONS).exists() for revision in (base, head)):
        return None
    missing: list[str] = []
    spec = spec_of(head.report(SCORES))
    if (other := str(base.report(SCORES).get("task", FIRST))) != spec.name:
        missing.append(f"the base's task is {display(other, NAME)}, the head's {spec.name}")
    old, new = (_table(revision, PREDICTIONS, COLUMNS, missing) for revision in (base, head))
    test = _table(head, TEST, TEXTS, missing)
    before = old.select("id", label_before="label", before="prediction", before_confidence="confidence")
    after = new.select("id", "label", after="prediction", after_confidence="confidence")
    rows = after.join(before, on="id").sort("id")
    if other != spec.name:
        rows = rows.clear()
    answers, mask = SharedAnswers(rows, head, spec), head.mask
    if not rows.height and not missing:
        missing.append("no test row is in both revisions: the scores cannot be compared")
    texts = rows.join(test.select("id", "text", "text_pair").unique("id", keep="first"), on="id", how="left")
    flat = (flatten(revision.report(SCORES)) for revision in (base, head))
    numbers = [{key: value for key, value in report if isinstance(value, int | float)} for report in flat]
    right, right_before = pl.Series(answers.right), pl.Series(answers.right_before)
    return Effect(
        rows=rows.height,
        only_base=old.height - rows.height,
        only_head=new.height - rows.height,
        relabelled=rows.filter(pl.col("label") != pl.col("label_before")).height,
        scores=tuple(answers.gains(answers.evidence)) if rows.height else (),
        mcnemar_p=mcnemar(answers.right, answers.right_before)["mcnemar_p"],
        parts=tuple(answers.parts()) if rows.height else (),
        slices=tuple(answers.slices(test, rows["id"])),
        improved=_changed_rows(texts.filter(right & ~right_before), examples, mask),
        regressed=_changed_rows(texts.filter(right_before & ~right), examples, mask),
        moved=rows.filter(~right & ~right_before & pl.Series(answers.moved)).height,
        spec=spec,
        confusion=tuple(answers.confusion()) if rows.height else (),
        curves=tuple(_curves(base, head)),
        figures=tuple(
            (name, numbers[0].get(key), numbers[1].get(key))
            for name, key in FIGURES.items()
            if key in {*numbers[0], *numbers[1]}
        ),
        missing=tuple(missing),
    )


class SharedAnswers:
    """What both models predict for shared rows, as the head's task looks at it."""

    def __init__(self, rows: pl.DataFrame, head: Revision, spec: TaskSpec) -> None:
        self.rows, self.spec = rows, spec
        self.task = load_task(spec.name if rows.height else FIRST)  # no rows have no spread, which others ask for
        self.head, self.base = (rows.select("id", prediction=name) for name in ("after", "before"))
        known = head.report(SCORES).get("per_class") or ()  # the model knows more names than these rows may have
        self.names = sorted({*self.task.names_in(rows["label"], rows["after"], rows["before"]), *known})
        self.evidence = [self.task.evidence(rows, side, self.names) for side in (self.base, self.head)]
        self.right, self.right_before = (self.task.is_correct(rows, side) for side in (self.head, self.base))
        self.moved = ~self.task.agreeing(self.head, self.base)
        evaluate = head.params.evaluate if head.params else EvaluateParams()
        self.mask, self.settings = head.mask, evaluate.slices
        self.drawing = evaluate.bootstrap, head.params.seed if head.params else SEED

    def parts(self) -> Iterator[Gain]:
        """Yield the gain in the score of each label; its rows are those that have it."""
        of_parts = [
            Evidence(evidence.statistics, partial(self.task.part_scores, names=self.names))
            for evidence in self.evidence
        ]
        held = [{*self.task.names(label)} for label in self.rows["label"]]
        predicted = ([self.task.names(text) for text in self.rows[side]] for side in ("after", "before"))
        counted = [{*label, *after, *before} for label, after, before in zip(held, *predicted, strict=True)]
        for gain in self.gains(of_parts):
            of_name = np.array([gain.name in names for names in counted])  # the rows that it rests on
            rows, name = sum(gain.name in names for names in held), display(gain.name, NAME, self.mask)
            if of_name.any():
                yield gain._replace(name=name, rows=rows, trend=_trend(gain, self.moved & of_name))

    def slices(self, test: pl.DataFrame, ids: pl.Series) -> Iterator[Gain]:
        """Yield the gain on each slice of the head's test split, as far as its rows are shared."""
        if test.is_empty():
            return
        positions = {name: position for position, name in enumerate(ids)}
        shared = np.array([positions.get(name, -1) for name in test["id"]])  # of each test row among the shared ones
        for name, part in slice_rows(test, self.settings.model_copy(update={"min_rows": 1}), self.task):
            rows = np.sort(shared[part][shared[part] >= 0])
            if len(rows) >= self.settings.min_rows:
                of_slice = [evidence.of_rows(rows, self.spec.of_slices.name) for evidence in self.evidence]
                for gain in self.gains(of_slice, rows):
                    yield gain._replace(name=display(name, NAME, self.mask))

    def confusion(self) -> Iterator[Confused]:
        """Yield what is taken for what more or less often than before, the largest change first."""
        pairs = [self.task.confusion(self.rows, side) for side in (self.base, self.head)]
        base, head = (Counter(side.iter_rows()) if side is not None else Counter() for side in pairs)
        for pair in sorted({*base, *head}, key=lambda pair: (-abs(head[pair] - base[pair]), pair)):
            if head[pair] != base[pair]:
                label, prediction = (display(name, NAME, self.mask) for name in pair)
                yield label, prediction, base[pair], head[pair]

    def gains(self, evidence: Sequence[Evidence], rows: np.ndarray | None = None) -> Iterator[Gain]:
        """Yield the gain of each score that base and head have evidence of; `rows`: the numbers of those it is of."""
        base, head = evidence
        old, new, moved = scores_of(base), scores_of(head), self.moved if rows is None else self.moved[rows]
        gained = gains(head, base, self.spec.scores, *self.drawing)
        for name in new:
            gain, low, high = (gained[f"{name}_gain{end}"] for end in ("", "_low", "_high"))
            found = Gain(name, len(moved), old[name], new[name], gain, low, high, "unclear")
            yield found._replace(trend=_trend(found, moved))


def _table(revision: Revision, path: str, columns: Mapping[str, Any], missing: list[str]) -> pl.DataFrame:
    """Return a table of rows by id; none, and a line in `missing`, if it is not what the pipeline writes."""
    table = revision.table(path)
    if table is not None and all(table.schema.get(name) == kind for name, kind in columns.items()):
        return table
    missing.append(f"{path} of {revision.name} is not there, or not what the code here reads")
    return pl.DataFrame(schema=columns)


def _curves(base: Revision, head: Revision) -> Iterator[Chart]:
    """Yield a chart of each curve that one of both has, in the order of the files."""
    for file, (x, y) in CURVES.items():
        sides = {side: _points(of, file, x, y) for side, of in (("base", base), ("head", head))}
        for name in dict.fromkeys(name for curves in sides.values() for name in curves):
            lines = {side: curves.get(name, ()) for side, curves in sides.items()}
            yield chart(x, f"{file} {display(name, NAME, head.mask)}", lines)


def _points(revision: Revision, file: str, x: str, y: str) -> dict[str, Points]:
    """Return the points of each curve in order of x, without those that are no numbers; reliability as calibrated."""
    table = revision.table(f"reports/plots/{file}.csv")
    if table is not None and "label" in table.columns:
        table = table.filter(label="calibrated").with_columns(name=pl.lit(y))
    if table is None or not {"name", x, y} <= {*table.columns}:
        return {}
    numbers = table.select("name", pl.col(x, y).cast(pl.Float64, strict=False)).drop_nulls()
    curves = numbers.filter(pl.all_horizontal(pl.col(x, y).is_finite())).partition_by("name", as_dict=True)
    return {name: sorted(curve.select(x, y).iter_rows()) for (name,), curve in curves.items()}


def _changed_rows(rows: pl.DataFrame, examples: int, mask: Mask | None) -> ChangedRows:
    """Return the rows of which the head's model is most confident, rightly or wrongly; cut and masked."""
    first = rows.sort("after_confidence", "id", descending=[True, False]).head(examples).select(*ChangedRow._fields)
    widths = {"text": TEXT, "text_pair": TEXT, "label": NAME, "before": NAME, "after": NAME}
    cut = (row | {name: display(row[name], most, mask) for name, most in widths.items()} for row in first.to_dicts())
    return ChangedRows(rows.height, tuple(ChangedRow(**row) for row in cut))


def _trend(gain: Gain, moved: np.ndarray) -> Trend:
    """Return where a gain points; `moved` says of each row that it rests on whether its prediction differs."""
    if np.count_nonzero(moved) >= LEAST_MOVED:
        return "better" if gain.low > 0 else "worse" if gain.high < 0 else "unclear"
    return "unclear" if moved.any() else "same"
