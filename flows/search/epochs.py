"""The validation scores of a training, epoch by epoch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.common.params import Params
from stages.common.params.finetune import GREATER_IS_BETTER


@dataclass(frozen=True)
class Epoch:
    """The validation scores after an epoch."""

    step: int
    epoch: float
    loss: float
    accuracy: float
    macro_f1: float

    @classmethod
    def of(cls, point: Mapping[str, Any]) -> "Epoch":
        """Make it from a row of the validation curve."""
        scores = (float(point[f"validation_{name}"]) for name in ("loss", "accuracy", "macro_f1"))
        return cls(int(point["step"]), float(point["epoch"]), *scores)

    def score(self, metric: str) -> float:
        """Return one of the scores."""
        return float(getattr(self, metric))

    def scores(self) -> dict[str, float]:
        """Return all of them under the names of the validation curve."""
        return {f"validation_{name}": self.score(name) for name in ("loss", "accuracy", "macro_f1")}

    def as_report(self) -> dict[str, float]:
        """Return it as plain values."""
        return asdict(self)


def best_epoch(epochs: list[Epoch], params: Params) -> Epoch:
    """Return the epoch that the stage keeps: the best by `finetune.metric_for_best_model`, the first of several."""
    metric = params.finetune.metric_for_best_model
    sign = 1 if GREATER_IS_BETTER[metric] else -1
    return max(epochs, key=lambda epoch: sign * epoch.score(metric))
