"""Regression: a number for each text or pair of texts, such as a rating, or how alike two sentences are (STS).

A label is a number as its shortest decimal text. The model learns standardised numbers, and is saved with a head that
answers in the units of the data. How far off an answer may be is measured on validation (split-conformal intervals).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import fsum, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stages.tasks.base import Answer, Task
from stages.tasks.decision import STRICT, Decision
from stages.tasks.evidence import Evidence
from stages.tasks.inference import longest_of
from stages.tasks.targets import canonical_number, deciles, in_deciles, parse_number
from stages.tasks.training import Space

if TYPE_CHECKING:
    from polars import DataFrame, Series

    from stages.common.params import AugmentParams, CleanParams, EvaluateParams, FinetuneParams, IngestParams, Params

DIGITS = 6  # significant ones of an answer; float32 knows seven
HALF = 0.5  # standard deviations that an answer may be off, and still count as right
SAME = 0.05  # standard deviations between answers that count as the same: about a tenth of a usual MAE


@dataclass(frozen=True, config=STRICT, kw_only=True)
class NumberDecision(Decision):
    """How far off numbers may be: half the width of their interval, by where among all answers a number lies.

    Without margins there are no intervals: too few validation rows.
    """

    # rising: where one bin of answers ends, and the next begins
    edges: Annotated[list[float], Field(default_factory=list)]
    margins: Annotated[list[Annotated[float, Field(ge=0)]], Field(default_factory=list)]  # one a bin
    max_width: Annotated[float, Field(gt=0)] | None = None  # of an interval; with a wider one the model abstains

    @model_validator(mode="after")
    def _bins(self) -> Self:
        if sorted(set(self.edges)) != self.edges or len(self.margins) != len(self.edges) + 1 > 1:
            raise ValueError("edges must rise, and there is one margin more than edges")
        return self

    def margins_of(self, values: np.ndarray) -> np.ndarray:
        """Return half the width of the interval around each value [n], infinite where there is none."""
        margins = np.array(self.margins or [np.inf])
        return np.asarray(margins[np.searchsorted(self.edges, values, side="right")])

    def abstains(self, values: np.ndarray, max_width: float | None = None) -> np.ndarray:
        """Return whether the interval around each value [n] is too wide, [n] bool."""
        limit = self.max_width if max_width is None else max_width
        return np.full(len(values), False) if limit is None else 2 * self.margins_of(values) > limit


def rounded(values: np.ndarray) -> np.ndarray:
    """Return numbers [n] with as many digits as answers have."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.tolist()])


class Regression(Task):
    """See the module."""

    name, problem_type = "regression", "regression"
    Decision = NumberDecision
    signature: ClassVar = {"value": "double?", "low": "double?", "high": "double?", "abstained": "boolean"}

    # ── ingest, clean, augment: targets ──────────────────────────────────────────────────────────────────────────────
    def parse_target(self, cell: str, params: "IngestParams") -> str:
        """Return the number of a cell as its shortest text; Refused if it is none, or outside of `ingest.range`."""
        return parse_number(cell, params.range)

    def names(self, label: str) -> list[str]:
        """Return nothing: a number has no name."""
        return []

    def merged(self, labels: Collection[str], params: "CleanParams") -> str | None:
        """Return the mean of the numbers, if they are within `clean.conflict_above` of each other."""
        numbers = [float(label) for label in labels]
        if max(numbers) - min(numbers) > params.conflict_above * (1 + 1e-9):  # 0.8 - 0.6 is no more than 0.2
            return None
        return canonical_number(float(f"{fsum(numbers) / len(numbers):.9g}"))

    def strata(self, labels: "Series", params: "CleanParams") -> "Series":
        """Return the decile of each number, by `clean.split.deciles`, or else those of the numbers themselves."""
        return in_deciles(labels, params.split.deciles).cast(labels.dtype)

    def counts(self, labels: "Series", params: "CleanParams") -> dict[str, int]:
        """Return how many rows there are of each decile."""
        return dict(in_deciles(labels.drop_nulls(), params.split.deciles).value_counts().sort("decile").iter_rows())

    def settled(self, labels: "Series", params: "CleanParams") -> "CleanParams":
        """Return the params with the deciles of these numbers, unless they have some."""
        edges = params.split.deciles or deciles(numbers_of(labels))
        return params.model_copy(update={"split": params.split.model_copy(update={"deciles": edges})})

    def keeps_target(
        self, made: "DataFrame", train: "DataFrame", params: "AugmentParams", seed: int
    ) -> "Series | None":
        """Return why a quick ridge regression takes the text of a new row for another number than its parent's."""
        from stages.tasks.kept_targets import of_numbers

        return of_numbers(made, train, seed)

    # ── tokenize, finetune ───────────────────────────────────────────────────────────────────────────────────────────
    def label_space(self, labels: "Series") -> dict[str, Any]:
        """Return mean and standard deviation (of these rows: divided by n), the same in any order of the rows."""
        numbers = [float(label) for label in labels]
        mean = fsum(numbers) / len(numbers)
        deviation = sqrt(fsum((number - mean) ** 2 for number in numbers) / len(numbers))
        return {name: float(f"{value:.12g}") for name, value in (("mean", mean), ("deviation", deviation))}

    def targets(self, labels: Sequence[str], space: Space) -> list[float]:
        """Return the numbers in standard deviations from the mean."""
        return [(float(label) - space["mean"]) / space["deviation"] for label in labels]

    def build_model(self, base: Path, space: Space, params: "FinetuneParams", seed: int) -> Any:
        """Return the base model with one output."""
        from stages.common.errors import AttuneError
        from stages.tasks.encoder import output_layer

        model = super().build_model(base, space, params, seed)
        if output_layer(model).bias is None:  # `finished` needs one
            what = f"the head of a {model.config.model_type} has no bias, so that it cannot answer in the data's units"
            raise AttuneError(what, "take an encoder as ingest.base_model")
        return model

    def loss_function(self, params: "FinetuneParams", space: Space, targets: Sequence[Any]) -> Any:
        """Return the squared, Huber's or the absolute error, in standard deviations."""
        from stages.tasks.losses import for_numbers

        return for_numbers(params)

    def validation_scores(self, logits: np.ndarray, targets: np.ndarray, space: Space) -> dict[str, float]:
        """Return all scores, in the units of the data, of standardised outputs [n x 1] against targets [n]."""
        from stages.tasks import errors

        parts = (part.reshape(-1).astype(np.float64) for part in (targets, logits))
        return errors.scores_of(*(part * space["deviation"] + space["mean"] for part in parts))

    def finished(self, model: Any, space: Space, folder: Path) -> None:
        """Fold mean and deviation into the head, so that the saved model answers in the units of the data."""
        import torch

        from stages.tasks.encoder import output_layer

        layer = output_layer(model)
        with torch.no_grad():
            layer.weight.mul_(space["deviation"])
            layer.bias.mul_(space["deviation"]).add_(space["mean"])

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def fit_decision(
        self, params: "EvaluateParams", labels: Sequence[str], outputs: np.ndarray, undecided: NumberDecision
    ) -> tuple[NumberDecision, Any]:
        """Fit the intervals; beside the decision, return the numbers [n] and answers [n] that they were fitted on."""
        from stages.tasks.errors import conformal

        actual, values = numbers_of(labels), rounded(outputs[:, 0])
        edges, margins = conformal(actual, values, params.conformal)
        return replace(undecided, edges=edges, margins=margins, max_width=params.max_width), (actual, values)

    def decide(self, outputs: np.ndarray, decision: NumberDecision, threshold: float | None = None) -> dict[str, Any]:
        """Return the number, no confidence, whether its interval is too wide, and the interval's ends.

        `low` and `high` are null without intervals. `threshold` stands for `evaluate.max_width`.
        """
        import polars as pl

        values, low, high, wide = _answered(outputs, decision, threshold)
        ends = {name: pl.Series(end, dtype=pl.Float64) for name, end in (("low", low), ("high", high))}
        texts = [canonical_number(value) for value in values]
        return {"prediction": texts, "confidence": None, "abstained": np.array(wide, bool), **ends}

    def answers(self, outputs: np.ndarray, decision: Any, threshold: float | None, top_k: int | None) -> list[Answer]:
        """Return `value`, `low`, `high` and `abstained`; the value is null where the model abstains."""
        return [
            {"value": None if wide else value, "low": low, "high": high, "abstained": wide}
            for value, low, high, wide in zip(*_answered(outputs, decision, threshold), strict=True)
        ]

    def table(self, outputs: np.ndarray, decision: NumberDecision, threshold: float | None) -> dict[str, Any]:
        """Return value (null where the model abstains), low, high, abstained."""
        answers = self.answers(outputs, decision, threshold, None)
        return {name: [answer[name] for answer in answers] for name in self.signature}

    def drift_values(self, outputs: np.ndarray, decision: Any) -> dict[str, tuple[np.ndarray, list[str] | None]]:
        """Return the numbers."""
        return {"values": (rounded(outputs[:, 0]), None)}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def evidence(self, rows: "DataFrame", predictions: "DataFrame", names: Sequence[str] | None = None) -> Evidence:
        """Return sums of numbers, squares and errors for MAE, RMSE, R² and Pearson's r, and ranks for Spearman's ρ."""
        from stages.tasks import errors

        return errors.evidence(numbers_of(rows["label"]), numbers_of(predictions["prediction"]))

    def is_correct(self, rows: "DataFrame", predictions: "DataFrame") -> np.ndarray:
        """Return whether each number is off by no more than half the standard deviation of these rows' labels."""
        actual = numbers_of(rows["label"])
        return np.asarray(np.abs(numbers_of(predictions["prediction"]) - actual) <= HALF * actual.std())

    def agreeing(self, first: "DataFrame", second: "DataFrame") -> np.ndarray:
        """Return whether numbers differ by no more than a twentieth of the first ones' standard deviation."""
        return _near(first["prediction"], second["prediction"], SAME)

    def baseline(
        self, name: str, parts: Sequence["DataFrame"], base: Path, tuned: Path, _: Any
    ) -> Sequence[str] | None:
        """Return what mean, median, ridge regression or the base model's cosine of two texts predict."""
        from stages.tasks.baselines import numbers

        values = numbers(name, parts, base, longest_of(tuned))
        return None if values is None else [canonical_number(value) for value in rounded(values).tolist()]

    def label_quality(self, rows: "DataFrame", outputs: np.ndarray, decision: NumberDecision) -> np.ndarray:
        """Return exp(-|ŷ-y| / standard deviation of y): cleanlab's score of residuals, of standardised numbers."""
        actual = numbers_of(rows["label"])
        return np.asarray(np.exp(-np.abs(rounded(outputs[:, 0]) - actual) / (actual.std() or 1.0)))

    def meets(self, kind: str, expected: "Series", predictions: "DataFrame") -> np.ndarray:
        """Return whether numbers are off by no more than half the standard deviation of the expected ones."""
        return _near(expected, predictions["prediction"], HALF)

    def messages(self, entries: Mapping[str, Any]) -> list[str]:
        """Return what the intervals hold, and how many rows are answered."""
        found, answered = entries["calibration"], entries["thresholds"]
        lines = [f"no intervals: {found['problem']}"]
        if not found["problem"]:
            held = f"{found['coverage']:.1%} of the test rows are inside, {found['width']:g} wide on average"
            lines = [f"intervals for {found['nominal']:.0%}: {held}"]
        if answered:
            lines.append(f"{answered['coverage']:.1%} of the test rows have a narrow enough one, and are answered")
        return lines

    def report(
        self, params: "Params", train: "DataFrame", rows: "DataFrame", raw: np.ndarray, decision: Any, fitted: Any
    ) -> "tuple[dict[str, Any], dict[str, DataFrame]]":
        """Return how many numbers lie inside their intervals, and what is answered; tables of numbers and errors."""
        from stages.tasks import errors

        values = rounded(raw[:, 0])
        return errors.report(params, rows["label"], values, decision.margins_of(values), fitted)


def numbers_of(texts: "Collection[str] | Series") -> np.ndarray:
    """Return the numbers of canonical texts, [n] float64."""
    return np.array([float(text) for text in texts], np.float64)


def _answered(outputs: np.ndarray, decision: NumberDecision, max_width: float | None) -> tuple[list[Any], ...]:
    """Return value, low and high (None without intervals) of each row, and whether the model abstains."""
    values = rounded(outputs[:, 0])
    margins, none = decision.margins_of(values), [None] * len(values)
    ends = [rounded(values + sign * margins).tolist() if decision.margins else none for sign in (-1, 1)]
    return values.tolist(), *ends, decision.abstains(values, max_width).tolist()


def _near(first: "Series", second: "Series", deviations: float) -> np.ndarray:
    one, other = numbers_of(first), numbers_of(second)
    return np.isclose(other, one, rtol=10.0 ** (1 - DIGITS), atol=deviations * one.std())  # the last digit is noise


TASK = Regression()
