"""Whether the held-out splits look like train: labels, lengths and words, each with a test and the size of the effect.

Rows of one group are not independent, so p values of grouped data are too small: the size of the effect decides.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from stages.common.texts import WORD

ALPHA = 0.01
SAMPLE = 5_000  # rows of each split that the classifier sees at most
CV_FOLDS = 4
FEATURES = 2**16
RARE = 5  # expected rows under which a label is counted together with others (Cochran 1954)
CHARACTERS = 2_000  # of a text that the classifier reads


@dataclass(frozen=True)
class Test:
    """One comparison: `effect` is 0 where the splits are alike, 1 where nothing is shared; see `verdict`."""

    split: str
    what: str
    method: str
    statistic: float
    effect: float
    p_value: float
    p_adjusted: float = 1.0
    verdict: str = ""


NOTABLE = 0.1  # from this effect on a difference is more than slight


def drift_report(splits: dict[str, pl.DataFrame], seed: int) -> list[dict[str, Any]]:
    """Hold validation and test against train; p values are corrected for the number of tests (Holm 1979).

    The same in any order of the rows. Splits without rows are left out.

    Returns:
        One entry a test with split, what, method, statistic, effect, p_value, p_adjusted and a verdict in words.
    """
    from threadpoolctl import threadpool_limits

    train = splits["train"].sort("id")
    tests: list[Test | None] = []
    with threadpool_limits(1):  # sums of many threads differ in their last digits, and so small ones only wait
        for name in ("validation", "test"):
            if splits[name].height and train.height:
                other = splits[name].sort("id")
                tests.append(_labels(name, train["label"], other["label"]))
                tests.append(_lengths(name, train["text"], other["text"]))
                tests.append(_words(name, train, other, seed))
    return [asdict(test) for test in _judged([test for test in tests if test is not None])]


def _labels(name: str, train: pl.Series, other: pl.Series) -> Test | None:
    """Chi-square test of homogeneity; the effect is the total variation distance of the label shares."""
    from scipy.stats import chi2_contingency

    both = train.value_counts(name="train").join(
        other.value_counts(name="other"), on="label", how="full", coalesce=True
    )
    table = both.fill_null(0).sort("label").select("train", "other").to_numpy().T.astype(np.int64)
    expected = table.sum(axis=0) * table.sum(axis=1).min() / table.sum()
    rare = expected < RARE
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)]) if rare.any() else table
    if table.shape[1] < 2:
        return None
    found = chi2_contingency(table, correction=False)
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return Test(name, "labels", "chi-square test", float(found.statistic), distance, float(found.pvalue))


def _lengths(name: str, train: pl.Series, other: pl.Series) -> Test:
    """Two-sample Kolmogorov–Smirnov test of the lengths in characters; the effect is D, the widest gap."""
    from scipy.stats import ks_2samp

    found = ks_2samp(train.str.len_chars().to_numpy(), other.str.len_chars().to_numpy(), method="asymp")
    gap = float(found.statistic)
    return Test(name, "lengths", "Kolmogorov–Smirnov test", gap, gap, float(found.pvalue))


def _words(name: str, train: pl.DataFrame, other: pl.DataFrame, seed: int) -> Test | None:
    """Classifier two-sample test (Lopez-Paz & Oquab 2017): can the words tell which split a row is from?

    A linear classifier learns on some groups and is scored on others: a film that stands in one split alone, as every
    group does, must not count as drift. The statistic is the AUC over balanced samples, its p value that of the
    Mann–Whitney U test, summed over the folds; the effect is 2 AUC - 1.
    """
    from scipy.stats import norm
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    size = min(train.height, other.height, SAMPLE)
    parts = [rows[np.sort(rng.choice(rows.height, size, replace=False))] for rows in (train, other)]
    sample = pl.concat([part.select("id", "group", pl.col("text").str.head(CHARACTERS)) for part in parts])
    actual = np.repeat([0, 1], size)
    fold = _folds(sample, rng)
    counted = HashingVectorizer(n_features=FEATURES, alternate_sign=False, norm=None, token_pattern=WORD).transform(
        sample["text"].to_list()
    )
    words = TfidfTransformer(sublinear_tf=True).fit_transform(counted)
    wins = mean = variance = 0.0
    for number in range(CV_FOLDS):
        held = fold == number
        new, old = int(actual[held].sum()), int((1 - actual[held]).sum())
        if not new or not old or len(set(actual[~held])) < 2:
            continue
        model = LogisticRegression(C=1.0, solver="liblinear").fit(words[~held], actual[~held])
        auc = float(roc_auc_score(actual[held], model.decision_function(words[held])))
        wins += auc * new * old
        mean += new * old / 2
        variance += new * old * (new + old + 1) / 12
    if not variance:
        return None
    auc = wins / (2 * mean)
    # The models of the folds share most of their training rows, so their scores vary together (Nadeau & Bengio 2003).
    variance *= 1 + CV_FOLDS / (CV_FOLDS - 1)
    p_value = float(norm.sf((wins - mean) / np.sqrt(variance)))
    return Test(name, "words", "classifier two-sample test", auc, max(0.0, 2 * auc - 1), p_value)


def _folds(sample: pl.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Deal groups (a row without one is its own) out to the folds."""
    unit = sample.select(pl.coalesce(pl.lit("group ") + pl.col("group"), pl.lit("row ") + pl.col("id")).alias("unit"))
    number = unit["unit"].rank("dense").to_numpy().astype(np.int64) - 1
    return (rng.permutation(number.max() + 1) % CV_FOLDS)[number]


def _judged(tests: list[Test]) -> list[Test]:
    """Correct the p values (Holm 1979) and say in words what they mean."""
    adjusted, highest = {}, 0.0
    for place, at in enumerate(sorted(range(len(tests)), key=lambda at: (tests[at].p_value, at))):
        highest = max(highest, min(1.0, tests[at].p_value * (len(tests) - place)))
        adjusted[at] = highest
    return [_told(test, adjusted[at]) for at, test in enumerate(tests)]


def _told(test: Test, p_adjusted: float) -> Test:
    verdict = "no sign of drift"
    if p_adjusted < ALPHA:
        size = f"AUC {test.statistic:.2f}" if test.what == "words" else f"distance {test.effect:.2f}"
        verdict = f"the {test.what} differ{'' if test.effect >= NOTABLE else ' slightly'}: {size}"
    return replace(
        test,
        statistic=round(test.statistic, 4),
        effect=round(test.effect, 4),
        p_value=float(f"{test.p_value:.3g}"),
        p_adjusted=float(f"{p_adjusted:.3g}"),
        verdict=verdict,
    )
