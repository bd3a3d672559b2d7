"""What the model says of each test row, and which of the rows are explained word by word."""

from pathlib import Path

import numpy as np
import polars as pl

from stages.common.digests import seeded_hash
from stages.common.params.evaluate import Attributions
from stages.serving.decision import Decision
from stages.tasks.attribution import Attribution, Unexplainable, attributions


def predicted_rows(
    test: pl.DataFrame, actual: np.ndarray, probabilities: np.ndarray, decision: Decision
) -> pl.DataFrame:
    """Return schema Predictions.

    `label_quality` is cleanlab's normalized margin: half of what the label's probability is above that of the likeliest
    other one, plus a half. Near 0, another label fits much better, so that the label may be a mistake.

    Args:
        test: records, in the order of the probabilities.
        actual: class numbers [n].
        probabilities: calibrated, [n x k].
        decision: labels and thresholds.
    """
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(actual, probabilities, method="normalized_margin")
    return pl.DataFrame(
        {
            "id": test["id"],
            "label": test["label"],
            "prediction": [decision.labels[at] for at in probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1),
            "abstained": decision.abstains(probabilities),
            "label_quality": quality.clip(0.0, 1.0),
            "probabilities": probabilities.tolist(),
        }
    )


def explained(
    model: Path, rows: pl.DataFrame, labels: list[str], params: Attributions, seed: int
) -> tuple[list[Attribution], str]:
    """Explain the most confident errors, then a sample of the other rows.

    Args:
        model: the trained model's folder.
        rows: test records with `prediction` and `confidence`.
        labels: in the order of the model's outputs.
        params: how many rows, and how exactly.
        seed: of the sample.

    Returns:
        The attributions, and a line to tell how many there are, or why there are none.
    """
    wrong = rows.filter(pl.col("prediction") != pl.col("label"))
    errors = wrong.sort("confidence", "id", descending=[True, False]).head(params.errors)
    others = drawn(rows.join(errors, on="id", how="anti"), f"{seed} explained").head(params.sample)
    chosen = pl.concat([errors.with_columns(kind=pl.lit("error")), others.with_columns(kind=pl.lit("sample"))])
    try:
        found = attributions(model, chosen, labels, params.steps)
    except Unexplainable as reason:
        return [], f"no prediction is explained: {reason}"
    worst = max((abs(one.delta) for one in found), default=0.0)
    return found, f"{len(found)} predictions explained; the integral is off by {worst:.3f} in log-odds at most"


def drawn(rows: pl.DataFrame, seed: str) -> pl.DataFrame:
    """Return the rows in the order of a seeded hash of their `id`: the first n of them are a sample.

    One row more or less moves hardly any other into or out of a sample.
    """
    order = pl.Series("_order", [seeded_hash(seed, name) for name in rows["id"]], pl.UInt64)
    return rows.with_columns(order).sort("_order", "id").drop("_order")
