"""What a change did to the model: both revisions' models on the test rows that both have."""

import numpy as np
import polars as pl

from flows.reviewing.changed.param_changes import typed_params
from flows.reviewing.effects.recorded_scores import calibration, curves, reliability
from flows.reviewing.effects.shared_rows import TEST, SharedRows, shared_rows
from flows.reviewing.findings import Effect, Gain, Trend
from flows.reviewing.revision import Revision
from stages.common.params.evaluate import Bootstrap, Slices
from stages.tasks.comparison import accuracy_gain, class_gains, compare
from stages.tasks.scores import class_numbers, confusion, f1_of, scores_of
from stages.tasks.slices import slice_rows

SEED = 13  # where the head's params cannot be read
DIGITS = 6
LEAST_MOVED = 6  # other predictions: of fewer, even the exact sign test tells nothing (2 / 2**5 = 0.06)


class Answers:
    """Class numbers of shared rows, [n] int64 each: what is right, and what both models say."""

    def __init__(self, shared: SharedRows, bootstrap: Bootstrap, seed: int) -> None:
        self.labels = shared.labels
        columns = (shared.rows[name] for name in ("label", "now", "was"))
        self.actual, self.ours, self.theirs = (class_numbers(column, self.labels) for column in columns)
        self.bootstrap, self.seed = bootstrap, seed
        self.counts = [confusion(self.actual, said, len(self.labels)) for said in (self.theirs, self.ours)]

    def scores(self) -> tuple[tuple[Gain, ...], float]:
        """Return the gain in each score, and the p-value of McNemar's test."""
        found = compare(self.actual, self.ours, self.theirs, len(self.labels), self.bootstrap, self.seed)
        was, now = map(scores_of, self.counts)
        moved = self.ours != self.theirs
        gains = [
            _gain(name, len(moved), float(was[name]), float(now[name]), _of(found, f"{name}_gain"), moved)
            for name in now
        ]
        return tuple(gains), found["mcnemar_p"]

    def classes(self) -> tuple[Gain, ...]:
        """Return the gain in each label's F1; its rows are those that have the label."""
        found = class_gains(self.actual, self.ours, self.theirs, len(self.labels), self.bootstrap, self.seed)
        was, now = map(f1_of, self.counts)
        gains = []
        for at, label in enumerate(self.labels):
            counted = (self.actual == at) | (self.ours == at) | (self.theirs == at)  # rows that its F1 rests on
            moved, rows = (self.ours != self.theirs)[counted], int((self.actual == at).sum())
            gains.append(_gain(label, rows, was[at], now[at], _of(found[at], "f1_gain"), moved))
        return tuple(gains)

    def accuracy(self, name: str, rows: np.ndarray) -> Gain:
        """Return the gain in accuracy on some of the rows, by their numbers [m]."""
        actual, ours, theirs = self.actual[rows], self.ours[rows], self.theirs[rows]
        found = accuracy_gain(actual, ours, theirs, self.bootstrap, self.seed)
        was, now = ((said == actual).mean() for said in (theirs, ours))
        return _gain(name, len(rows), was, now, _of(found, "accuracy_gain"), ours != theirs)


def effect_of(base: Revision, head: Revision, examples: int) -> Effect | None:
    """Hold the models of two revisions against each other, by what both said of their test rows.

    Labels, slices and settings are the head's. What cannot be compared is told in a line of `missing`; where no test
    row is in both, there are no scores (`rows` is 0). Costs are not measured here.

    Args:
        base: the older one.
        head: the newer one.
        examples: rows listed that were fixed, and that were broken.

    Returns:
        None if one of the two has no predictions at all.
    """
    shared = shared_rows(base, head)
    if shared is None:
        return None
    missing = [*shared.missing]
    params = typed_params(head)
    if params is None:
        missing.append(f"params.yaml of {head.name} is not what the code here reads: intervals and slices are default")
    evaluate = params.evaluate if params else None
    answers = Answers(shared, evaluate.bootstrap if evaluate else Bootstrap(), params.seed if params else SEED)
    scores: tuple[Gain, ...] = ()
    classes: tuple[Gain, ...] = ()
    slices: tuple[Gain, ...] = ()
    mcnemar_p = 1.0
    if shared.rows.height:
        scores, mcnemar_p = answers.scores()
        classes = answers.classes()
        slices, more = _slices(head, shared, answers, evaluate.slices if evaluate else Slices())
        missing += more
    fixed, broken, moved = shared.flips(examples)
    drawn, more_drawn = curves(base, head)
    diagram, more_diagram = reliability(base, head)
    figures, more_figures = calibration(base, head)
    if figures and (shared.only_base or shared.only_head or shared.relabelled):
        more_figures.append("calibration is that of each revision on its own test rows, which are not the same")
    return Effect(
        rows=shared.rows.height,
        only_base=shared.only_base,
        only_head=shared.only_head,
        relabelled=shared.relabelled,
        scores=scores,
        mcnemar_p=mcnemar_p,
        classes=classes,
        slices=slices,
        fixed=fixed,
        broken=broken,
        moved=moved,
        labels=tuple(answers.labels),
        confusion_base=answers.counts[0],
        confusion_head=answers.counts[1],
        curves=drawn,
        reliability=diagram,
        calibration=figures,
        missing=(*missing, *more_drawn, *more_diagram, *more_figures),
    )


def _slices(head: Revision, shared: SharedRows, answers: Answers, params: Slices) -> tuple[tuple[Gain, ...], list[str]]:
    """Return the gain in accuracy on each slice of the head's test split, as far as its rows are shared."""
    test = head.table(TEST)
    if test is None:
        return (), [f"{TEST} of {head.name} is not there or not readable: slices cannot be compared"]
    try:
        parts = slice_rows(test, params.model_copy(update={"min_rows": 1}))
        numbers = shared.rows.select("id", number=pl.int_range(pl.len()))
        place = test.select("id").join(numbers, on="id", how="left", maintain_order="left")["number"]
    except pl.exceptions.PolarsError as error:
        return (), [f"slices cannot be compared: {str(error).splitlines()[0]}"]
    at = place.fill_null(-1).to_numpy()
    within = ((name, np.sort(at[rows][at[rows] >= 0])) for name, rows in parts)
    return tuple(answers.accuracy(name, rows) for name, rows in within if len(rows) >= params.min_rows), []


def _of(found: dict[str, float], name: str) -> tuple[float, float, float]:
    return found[name], found[f"{name}_low"], found[f"{name}_high"]


def _gain(name: str, rows: int, base: float, head: float, gain: tuple[float, float, float], moved: np.ndarray) -> Gain:
    middle, low, high = gain
    trend: Trend = "unclear" if moved.any() else "same"
    if np.count_nonzero(moved) >= LEAST_MOVED:
        trend = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return Gain(name, rows, round(float(base), DIGITS), round(float(head), DIGITS), middle, low, high, trend)
