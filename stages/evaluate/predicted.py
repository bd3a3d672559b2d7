"""The table of predictions: what the model says of each test row, and how well the row's label fits with it."""

import numpy as np
import polars as pl

from stages.common.serving.decision import Decision


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
