"""Is a variant of the model as good as the original, and is it to be offered?"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.common.params.tasks import Score
from stages.serving.backends import Predictor
from stages.tasks.bootstrap import scores_of

LEAST_AGREEMENT = 0.999  # of ONNX in full precision: but for rounding it is the same model
DIGITS = 6
GAINS = {"int8": "faster", "bf16": "smaller"}


@dataclass(frozen=True)
class VariantReport:
    """What `reports/export.json` says of a variant; None: not known, for there is no such file."""

    offered: bool  # whether the file is kept
    reason: str  # why, or why not
    bytes: int | None = None  # of the file, or its weights
    score: float | None = None  # the task's main score on the test rows, as are the following
    score_change: float | None = None  # from that of the original
    agreement: float | None = None  # share of rows with the original's prediction
    largest_difference: float | None = None  # between two outputs for one row
    faster: bool | None = None  # than the original for one text; no figure, for a report holds no times


def compare(
    original: Predictor, test: pl.DataFrame, outputs: np.ndarray, other: np.ndarray, main: Score
) -> dict[str, float]:
    """Return how a variant's outputs [n x k] for the test rows differ from those of the original model."""
    task = original.task
    ours, theirs = (pl.DataFrame(task.decide(some, original.decision)) for some in (other, outputs))
    score, before = (scores_of(task.evidence(test, some))[main.name] for some in (ours, theirs))
    return {
        "score": score,
        "score_change": round(score - before, DIGITS),
        "agreement": round(float(task.agreeing(ours, theirs).mean()), DIGITS),
        "largest_difference": float(f"{np.abs(other - outputs).max():.1e}"),
    }


def judge(
    name: str, size: int, scores: dict[str, float], faster: bool, allowed_drop: float, main: Score
) -> VariantReport:
    """Offer ONNX if it answers as the original does, int8 if it is good enough and faster, bf16 if good enough.

    Of a score in units of the labels, `allowed_drop` is a share of what the original has.
    """
    against = []
    if name == "onnx":
        reason = f"{scores['agreement']:.2%} of the test rows get the same prediction as from the original"
        if scores["agreement"] < LEAST_AGREEMENT:
            against.append(f"{reason}, fewer than {LEAST_AGREEMENT:.1%}")
    else:  # of fewer bits
        change = scores["score_change"]
        drop = -change if main.greater_is_better else change  # above 0: it is worse
        moved = f"{main.title} {'falls' if change < 0 else 'rises'} by {abs(change):.4f}"
        if main.unbounded and (original := abs(scores["score"] - change)):
            drop, moved = drop / original, f"{moved} ({abs(change) / original:.1%})"
        reason = f"{moved if change else f'the same {main.title}'}, and it is {GAINS[name]} than the original"
        if drop > allowed_drop:
            against.append(f"{moved}, more than the {allowed_drop:g} of export.allowed_drop")
        if name == "int8" and not faster:
            against.append("it is no faster than the original for one text")
    return VariantReport(not against, "; ".join(against) or reason, size, **scores, faster=faster)
