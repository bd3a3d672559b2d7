"""What validation rows decide once and for all: the temperature, and how sure the model must be of each label."""

import numpy as np

from stages.common.params import EvaluateParams
from stages.common.serving.decision import Decision
from stages.evaluate.calibration import fit_temperature
from stages.evaluate.thresholds import Chosen, choose


def decide(
    params: EvaluateParams, actual: np.ndarray, raw: np.ndarray, labels: list[str]
) -> tuple[Decision, dict[str, Chosen]]:
    """Return the decision, and how the threshold of each label was chosen (empty if none is asked for).

    Args:
        params: whether to calibrate, and what the labels have to reach.
        actual: class numbers [n] of the validation rows.
        raw: their probabilities as the model gives them, [n x k].
        labels: in the order of the probabilities.
    """
    temperature = fit_temperature(actual, raw) if params.calibration.temperature else 1.0
    decision = Decision(labels, temperature)
    if params.thresholds is None:
        return decision, {}
    chosen = choose(params.thresholds, actual, decision.calibrated(raw), labels)
    return Decision(labels, temperature, {label: one.threshold for label, one in chosen.items()}), chosen
