"""The validation scores of a training, epoch by epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.common.params import Params
from stages.common.params.finetune import GREATER_IS_BETTER

SCORES = ("accuracy", "macro_f1", "loss")


@dataclass(frozen=True)
class Epoch:
    """The validation scores after an epoch."""

    step: int
    epoch: float
    accuracy: float
    macro_f1: float
    loss: float

    @classmethod
    def of(cls, point: Mapping[str, Any]) -> "Epoch":
        """Make it from a row of the validation curve."""
        return cls(int(point["step"]), float(point["epoch"]), *(float(point[f"validation_{name}"]) for name in SCORES))

    def score(self, metric: str) -> float:
        """Return one of the scores."""
        return float(getattr(self, metric))

    def metrics(self) -> dict[str, float]:
        """Return the scores under the names that MLflow gets for the best epoch."""
        return {f"best_validation_{name}": self.score(name) for name in SCORES}


def best_epoch(epochs: list[Epoch], params: Params) -> Epoch:
    """Return the epoch that the stage keeps: the best by `finetune.metric_for_best_model`, the first of several."""
    metric = params.finetune.metric_for_best_model
    sign = 1 if GREATER_IS_BETTER[metric] else -1
    return max(epochs, key=lambda epoch: sign * epoch.score(metric))
