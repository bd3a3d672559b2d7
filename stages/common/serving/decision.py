"""What is decided once for a trained model and travels with it: labels, temperature, thresholds.

Nothing of Attune is imported here: the file goes into the registry together with the model, to be served with it.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

FILE = "decision.json"


@dataclass(frozen=True)
class Decision:
    """How probabilities become answers.

    Args:
        labels: in the order of the model's outputs.
        temperature: what logits are divided by (Guo et al. 2017); 1: they stand as they are.
        thresholds: least probability, calibrated, for the label of that name to be answered; without one, any.
    """

    labels: list[str]
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what would turn answers round without a word.

        Raises:
            ValueError: if labels, temperature or thresholds are not what they have to be.
        """
        labels = self.labels if isinstance(self.labels, list) else []
        if len(labels) < 2 or not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
            raise ValueError("labels must be a list of two or more different names")
        if not _is_number(self.temperature) or self.temperature <= 0:
            raise ValueError(f"temperature must be a number over 0, not {self.temperature!r:.80}")
        if not isinstance(self.thresholds, dict) or not set(self.thresholds) <= set(labels):
            raise ValueError("thresholds must be an object with a number for labels that there are")
        if not all(_is_number(value) and value >= 0 for value in self.thresholds.values()):
            raise ValueError("thresholds must be numbers from 0 on")

    @classmethod
    def read(cls, folder: Path) -> "Decision":
        """Read `decision.json` out of a folder.

        Raises:
            ValueError: if the file says what it should not.
        """
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / FILE} is not what it should be: {error}") from None

    def write(self, folder: Path) -> None:
        """Write `decision.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")

    def calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        """Return probabilities [n x k] as if their logits had been divided by the temperature."""
        if self.temperature == 1.0:
            return probabilities
        logits = np.log(np.clip(probabilities, 1e-300, None)) / self.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def abstains(self, probabilities: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """Return whether the model is less sure of its likeliest label than it has to be, [n] bool.

        Args:
            probabilities: calibrated, [n x k].
            threshold: for every label, instead of their own.
        """
        least = np.array([self.thresholds.get(label, 0.0) for label in self.labels])
        chosen = probabilities.argmax(axis=1)
        needed = least[chosen] if threshold is None else threshold
        return np.asarray(probabilities[np.arange(len(chosen)), chosen] < needed)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
