"""What scores are computed from, so that rows can be drawn again without asking the task.

Nothing of Attune is imported here: the file goes into the registry with each model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Scores = dict[str, np.ndarray]  # by name, one value for each sum of statistics [...]


@dataclass(frozen=True)
class Evidence:
    """What scores of predictions are computed from, so that rows can be drawn again without asking the task.

    Sums of `statistics` over any rows, each as often as it was drawn, give `scores`. What cannot be added up (a rank
    correlation) is computed on the rows that were drawn, by `ranked`.
    """

    statistics: Any  # [n x m] float64: an array, or a scipy.sparse one where it is wide
    scores: Callable[[np.ndarray], Scores]  # of sums [... x m]
    ranked: Callable[[np.ndarray], Scores] | None = None  # of numbers of drawn rows [b x n]

    def of_rows(self, rows: np.ndarray, name: str) -> "Evidence":
        """Return the evidence of some rows by their numbers [m], for one score alone."""

        def only(scores: Scores) -> Scores:
            return {name: scores[name]} if name in scores else {}

        ranked = self.ranked
        of_drawn = (lambda drawn: only(ranked(rows[drawn]))) if ranked else None  # type: ignore[misc]
        return Evidence(self.statistics[rows], lambda sums: only(self.scores(sums)), of_drawn)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)
