"""What is decided once for a trained model, on validation, and travels with it: `decision.json`.

Nothing of Attune but the tasks is imported here: the file goes into the registry together with the model.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

FILE = "decision.json"
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Decision:
    """How a model's outputs become answers; a task adds its fields. A ValueError where one is wrong: it would change
    answers silently.
    """

    task: str  # as in params

    @classmethod
    def of(cls, content: dict[str, object], where: str) -> Self:
        """Return the decision that JSON holds; a ValueError, which calls it `where`, if it says what it should not."""
        try:
            return TypeAdapter(cls).validate_json(json.dumps(content))  # strictly, a dict is no dataclass in Python
        except ValidationError as error:
            issue = error.errors()[0]
            place = ".".join(map(str, issue["loc"]))
            raise ValueError(f"{where} is not what it should be: {place} {issue['msg']}") from None

    def write(self, folder: Path) -> None:
        """Write `decision.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"  # type: ignore[call-overload]
        (folder / FILE).write_text(text, encoding="utf-8")

    def calibrated(self, outputs: np.ndarray) -> np.ndarray:
        """Return the outputs [n x k] of the activation as they are answered with."""
        return outputs
