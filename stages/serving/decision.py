"""What is decided once for a trained model and travels with it: labels, temperature, thresholds.

Nothing of Attune is imported here: the file goes into the registry together with the model, to be served with it.
"""

import json
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

FILE = "decision.json"


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Decision:
    """How probabilities become answers: a ValueError where one is wrong, as it would change answers silently.

    A threshold is the least calibrated probability at which a label is answered; a label without one always is.
    """

    labels: Annotated[list[str], Field(min_length=2)]  # in the order of the model's outputs
    temperature: Annotated[float, Field(gt=0)] = 1.0  # what logits are divided by (Guo et al. 2017)
    thresholds: dict[str, Annotated[float, Field(ge=0)]] = field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> Self:
        if len(set(self.labels)) < len(self.labels) or not set(self.thresholds) <= set(self.labels):
            raise ValueError("labels must be different from each other, and thresholds name some of them")
        return self

    @classmethod
    def read(cls, folder: Path) -> "Decision":
        """Read `decision.json` out of a folder.

        Raises:
            ValueError: if the file says what it should not.
        """
        path = folder / FILE
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            issue = error.errors()[0]
            where = ".".join(map(str, issue["loc"]))
            raise ValueError(f"{path} is not what it should be: {where} {issue['msg']}") from None

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
        """Return whether the likeliest label is below its threshold, [n] bool.

        Args:
            probabilities: calibrated, [n x k].
            threshold: for every label, instead of their own.
        """
        thresholds = np.array([self.thresholds.get(label, 0.0) for label in self.labels])
        needed = thresholds[probabilities.argmax(axis=1)] if threshold is None else threshold
        return np.asarray(probabilities.max(axis=1, initial=0.0) < needed)
