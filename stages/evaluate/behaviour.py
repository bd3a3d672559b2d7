"""Behavioural tests (CheckList, Ribeiro et al. 2020): what a model must do whatever its average score.

Invariance: a change that says nothing new leaves the prediction as it is. Minimum: texts that any usable model gets
right. Direction: a change such as a negation moves the probability of a label one way.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import polars as pl

from stages.common.params.evaluate import Behaviour
from stages.common.schemas import BehaviourCases
from stages.common.text.columns import whole_text
from stages.evaluate.perturbations import CHANGES
from stages.evaluate.predicted import drawn

DIGITS = 6
PLAN = {
    "test": pl.String,
    "kind": pl.String,
    "text": pl.String,
    "text_pair": pl.String,
    "before": pl.String,
    "before_pair": pl.String,
    "expected": pl.String,
    "probability_before": pl.Float64,
}


def plan(params: Behaviour, rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return the texts to ask the model about, in the order of the params.

    Args:
        params: the tests.
        rows: test records with the model's `prediction` and `confidence`.
        seed: of the rows that are drawn, and of what is done to them.

    Returns:
        A row a case with the columns of `PLAN`; `probability_before` is null where the model is still to be asked.
    """
    cases: list[dict[str, Any]] = []
    for name in params.invariance:
        cases += _invariance(name, params.rows, rows, f"{seed} {name}")
    for minimum in params.minimum:
        cases += [
            {"test": minimum.name, "kind": "minimum", "text": text, "expected": minimum.label} for text in minimum.cases
        ]
    for direction in params.direction:
        cases += [
            {"test": direction.name, "kind": "direction", "text": changed, "before": text, "expected": direction.label}
            for text, changed in direction.cases
        ]
    return pl.DataFrame([{**dict.fromkeys(PLAN), **case} for case in cases], schema=PLAN)


def _invariance(name: Any, number: int, rows: pl.DataFrame, seed: str) -> list[dict[str, Any]]:
    """Return up to `number` cases, out of the first rows drawn that the change can change."""
    cases: list[dict[str, Any]] = []
    for row in drawn(rows, seed).iter_rows(named=True):
        if len(cases) == number:
            break
        changed = CHANGES[name](row["text"], Random(f"{seed} {row['id']}"))
        if changed is None or changed == row["text"] or not changed.strip():
            continue
        cases.append(
            {
                "test": name,
                "kind": "invariance",
                "text": changed,
                "text_pair": row["text_pair"],
                "before": row["text"],
                "before_pair": row["text_pair"],
                "expected": row["prediction"],
                "probability_before": row["confidence"],
            }
        )
    return cases


def judge(
    params: Behaviour, planned: pl.DataFrame, labels: list[str], ask: Callable[[pl.DataFrame], np.ndarray]
) -> pl.DataFrame:
    """Ask the model about the planned cases, all at once, and return them with what came of it.

    Args:
        params: the tests.
        planned: from `plan`.
        labels: in the order of the probabilities.
        ask: from records with `text` and `text_pair` to calibrated probabilities [n x k].

    Returns:
        schema BehaviourCases.
    """
    if planned.is_empty():
        return BehaviourCases.empty()
    unasked = planned.filter(pl.col("before").is_not_null(), pl.col("probability_before").is_null())
    earlier_texts = unasked.select(text="before", text_pair="before_pair")
    answers = ask(pl.concat([planned.select("text", "text_pair"), earlier_texts]))
    after, earlier = answers[: planned.height], answers[planned.height :]
    expected = np.array([labels.index(label) for label in planned["expected"]])
    probability = after[np.arange(planned.height), expected]
    before = planned["probability_before"].to_numpy().copy()
    at = (planned["before"].is_not_null() & planned["probability_before"].is_null()).arg_true().to_numpy()
    before[at] = earlier[np.arange(len(at)), expected[at]]
    predicted = after.argmax(axis=1)
    passed = predicted == expected
    for test in params.direction:
        moved = (probability - before) * (1 if test.moves == "up" else -1)
        here = ((planned["kind"] == "direction") & (planned["test"] == test.name)).to_numpy()
        passed[here] = ((moved > 0) & (moved >= test.margin))[here]
    befores = planned.select(text="before", text_pair="before_pair")
    return planned.with_columns(
        text=whole_text(planned),
        before=pl.when(pl.col("before").is_not_null()).then(whole_text(befores)),
        prediction=pl.Series([labels[number] for number in predicted]),
        probability=pl.Series(np.round(probability, DIGITS)),
        probability_before=pl.Series(np.round(before, DIGITS)).fill_nan(None),
        passed=pl.Series(passed),
    ).select(BehaviourCases.columns())


def summary(params: Behaviour, cases: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return kind, cases, passed and pass rate of each test; the rate of a test without cases is None."""
    kinds: dict[str, str] = dict.fromkeys(params.invariance, "invariance")
    kinds |= {test.name: "minimum" for test in params.minimum}
    kinds |= {test.name: "direction" for test in params.direction}
    result = {}
    for name in params.names:
        passed = cases.filter(pl.col("test") == name)["passed"]
        rate = round(int(passed.sum()) / len(passed), DIGITS) if len(passed) else None
        result[name] = {"kind": kinds[name], "cases": len(passed), "passed": int(passed.sum()), "pass_rate": rate}
    return result
