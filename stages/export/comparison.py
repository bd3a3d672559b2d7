"""Is a variant of the model as good as the original, and is it to be offered?"""

from dataclasses import dataclass

import numpy as np

LEAST_AGREEMENT = 0.999  # of ONNX in full precision: but for rounding it is the same model
DIGITS = 6


@dataclass(frozen=True)
class VariantReport:
    """What `reports/export.json` says of a variant; None: not known, for there is no such file."""

    offered: bool  # whether the file is kept
    reason: str  # why, or why not
    bytes: int | None = None  # of the file
    accuracy: float | None = None  # on the test rows, as are the following
    accuracy_change: float | None = None  # from that of the original
    agreement: float | None = None  # share of rows with the original's label
    largest_difference: float | None = None  # between two probabilities of one label for one row
    faster: bool | None = None  # than the original for one text; no figure, for a report holds no times


def compare(original: np.ndarray, other: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Return how a variant's probabilities [n x k] differ from the original's; `actual` is the class numbers [n]."""
    ours, theirs = other.argmax(axis=1), original.argmax(axis=1)
    accuracy, before = float((ours == actual).mean()), float((theirs == actual).mean())
    return {
        "accuracy": round(accuracy, DIGITS),
        "accuracy_change": round(accuracy - before, DIGITS),
        "agreement": round(float((ours == theirs).mean()), DIGITS),
        "largest_difference": float(f"{np.abs(other - original).max():.1e}"),
    }


def judge(name: str, size: int, scores: dict[str, float], faster: bool, allowed_drop: float) -> VariantReport:
    """Offer ONNX if it answers as the original does, and int8 if it is good enough and faster."""
    against = []
    if name == "onnx":
        reason = f"{scores['agreement']:.2%} of the test rows get the same label as from the original"
        if scores["agreement"] < LEAST_AGREEMENT:
            against.append(f"{reason}, fewer than {LEAST_AGREEMENT:.1%}")
    else:
        drop = -scores["accuracy_change"]
        change = f"accuracy {'falls' if drop > 0 else 'rises'} by {abs(drop):.4f}" if drop else "the same accuracy"
        reason = f"{change}, and it is faster than the original"
        if drop > allowed_drop:
            against.append(f"accuracy falls by {drop:.4f}, more than the {allowed_drop:g} of export.allowed_drop")
        if not faster:
            against.append("it is no faster than the original for one text")
    return VariantReport(not against, "; ".join(against) or reason, size, **scores, faster=faster)
