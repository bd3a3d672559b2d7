"""How sure a score is, and what one model gains over another: the same ninety lines for every task.

The bootstrap draws the test rows again with replacement (Efron & Tibshirani 1993, ch. 13). The same seed and number of
rows give the same draws, so that two models are compared on the same rows (paired bootstrap, Koehn 2004). Statistics of
rows add up, so the scores of a draw are those of `weights @ statistics`, with how often each row was drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.tasks.base import DIGITS
from stages.tasks.evidence import Evidence, Scores

if TYPE_CHECKING:
    from stages.common.params.evaluate import Bootstrap
    from stages.common.params.tasks import Score

CHUNK = 1_000_000  # numbers held in memory at once: rows drawn, or statistics of draws

Combine = Callable[..., Scores]  # of the scores of each model


def scores_of(evidence: Evidence, rows: np.ndarray | None = None) -> dict[str, float]:
    """Return each score of all rows, or of those with these numbers [m]."""
    chosen = np.arange(evidence.statistics.shape[0]) if rows is None else rows
    scores = evidence.scores(evidence.statistics[chosen].sum(axis=0)[None, :])
    ranked = evidence.ranked(chosen[None, :]) if evidence.ranked else {}
    return {name: round(float(value[0]), DIGITS) for name, value in {**scores, **ranked}.items()}


def scores_with_intervals(evidence: Evidence, bootstrap: "Bootstrap", seed: int) -> dict[str, float]:
    """Return each score with its bootstrap interval: `accuracy`, `accuracy_low`, `accuracy_high`, …."""
    return with_intervals([evidence], lambda scores: scores, bootstrap, seed)


def gains(
    ours: Evidence, theirs: Evidence, scores: "Sequence[Score]", bootstrap: "Bootstrap", seed: int
) -> dict[str, float]:
    """Return what our predictions gain over theirs, of the same rows: above 0 where ours are better.

    That is `NAME_gain`, `NAME_gain_low`, `NAME_gain_high` (bounds of the interval) of each score; a name that is none
    of `scores`, such as that of a label's F1, is better when it is greater.
    """
    smaller = {score.name for score in scores if not score.greater_is_better}

    def gain(own: Scores, other: Scores) -> Scores:
        signed = {name: -1 if name in smaller else 1 for name in own if name in other}
        return {f"{name}_gain": sign * (own[name] - other[name]) for name, sign in signed.items()}

    return with_intervals([ours, theirs], gain, bootstrap, seed)


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Return `fixed` and `broken`, the rows that only ours or only theirs gets right, and `mcnemar_p` (McNemar 1947).

    Both say of each row whether it is right, [n] bool. The test is the exact one.
    """
    from scipy.stats import binomtest

    fixed, broken = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p_value = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    return {"fixed": fixed, "broken": broken, "mcnemar_p": float(f"{p_value:.3g}")}


def with_intervals(models: Sequence[Evidence], combine: Combine, bootstrap: "Bootstrap", seed: int) -> dict[str, float]:
    """Return what `combine` makes of the models' scores, with percentile intervals: `NAME`, `NAME_low`, `NAME_high`.

    All evidence is of the same rows in the same order.
    """
    rows = models[0].statistics.shape[0]
    width = max(rows, *(model.statistics.shape[1] for model in models))
    draws = [
        combine(*(_drawn(model, drawn, weights) for model in models))
        for drawn, weights in _draws(rows, width, bootstrap.resamples, seed)
    ]
    tail, whole = 50 * (1 - bootstrap.confidence), (np.arange(rows)[None, :], np.ones((1, rows)))
    result: dict[str, float] = {}
    for name, (value,) in combine(*(_drawn(model, *whole) for model in models)).items():
        low, high = np.percentile(np.concatenate([draw[name] for draw in draws]), [tail, 100 - tail])
        for key, number in ((name, value), (f"{name}_low", low), (f"{name}_high", high)):
            result[key] = round(float(number), DIGITS)
    return result


def _draws(rows: int, width: int, resamples: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the numbers of drawn rows [b x n], and how often each row is among them [b x n], as many as fit."""
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // width)
    for start in range(0, resamples, step):
        number = min(step, resamples - start)
        drawn = generator.integers(0, rows, size=(number, rows))
        cells = drawn + np.arange(number)[:, None] * rows
        weights = np.bincount(cells.ravel(), minlength=number * rows).reshape(number, rows)
        yield drawn, weights.astype(np.float64)


def _drawn(model: Evidence, drawn: np.ndarray, weights: np.ndarray) -> Scores:
    scores = model.scores(weights @ model.statistics)
    return {**scores, **model.ranked(drawn)} if model.ranked else scores
