"""Rows whose label looks wrong: confident learning over out-of-fold probabilities of a quick classifier.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (cleanlab): a row is
suspect if its probability of another label is above what rows of that label have on average. The classifier is TF-IDF
with logistic regression; where it is weak, many of its doubts are its own, hence `min_confidence`.
"""

from typing import Any

import numpy as np
import polars as pl

from stages.common.schemas import SPLITS
from stages.common.text.columns import is_unspaced, tfidf
from stages.tasks.targets import canonical_set, set_of

WEIGHTS = 500_000  # labels × features of the classifier at most: its time and memory go with them
MOST_LABELS = 500  # with more, few rows are left for each, and probabilities of all labels for all rows fill the memory
MANY = 1000  # rows from which words that are there once are left out: four in five words, and no help


def of_classes(rows: pl.DataFrame, min_confidence: float) -> pl.DataFrame:
    """Return rows of which the one label is doubted, with `suggested` and `confidence`; none with too many labels.

    The rows are CleanRecords of all splits, with `split` and `fold` (see `Task.label_issues`); another label has at
    least the probability `min_confidence`.
    """
    labels = rows.filter(split="train")["label"].unique().sort()
    rows = rows.filter(pl.col("label").is_in(labels.to_list()))
    features = _features(rows, len(labels), least=2)
    if features is None:
        return _judged(rows.clear(), [], np.zeros(0))
    given = np.searchsorted(labels.to_numpy(), rows["label"].to_numpy())
    probabilities = _probabilities(rows, features, given, len(labels))
    suggested, own = probabilities.argmax(axis=1), probabilities[np.arange(rows.height), given]
    # A label that the row's classifier has not seen has the probability 0: there it has no opinion.
    issue = _confident_learning(rows["split"], given, probabilities) & (own > 0) & (suggested != given)
    issues = _judged(rows, labels.gather(suggested), probabilities.max(axis=1))
    return issues.filter(pl.Series(issue), pl.col("confidence") >= min_confidence)


def of_sets(rows: pl.DataFrame, min_confidence: float) -> pl.DataFrame:
    """Return rows with a set of labels of which one is doubted; each is judged for itself: is it there, or not?

    The rows are as `of_classes` takes them, with canonical sets as labels; `suggested` is the set with the most
    doubtful label put in or taken out, `confidence` the probability of that, at least `min_confidence`.
    """
    sets, train = [set(set_of(label)) for label in rows["label"]], rows["split"] == "train"
    names = sorted({name for held, known in zip(sets, train, strict=True) if known for name in held})
    features = _features(rows, len(names), least=1)
    if features is None:
        return _judged(rows.clear(), [], np.zeros(0))
    best, suggested = np.zeros(rows.height), rows["label"].to_list()
    for name in names:
        given = np.array([name in held for held in sets], dtype=np.int64)
        if given[train.to_numpy()].all():  # every text has it: no classifier can learn from that when it is wrong
            continue
        probabilities = _probabilities(rows, features, given, 2)
        other = probabilities[np.arange(rows.height), 1 - given]
        doubted = _confident_learning(rows["split"], given, probabilities)
        doubted &= (other < 1) & (other > np.maximum(best, 0.5))
        best[doubted] = other[doubted]
        for row in np.flatnonzero(doubted):
            suggested[row] = canonical_set(sets[row] ^ {name})
    issues = _judged(rows, suggested, best)
    return issues.filter(pl.col("suggested") != pl.col("label"), pl.col("confidence") >= min_confidence)


def _judged(rows: pl.DataFrame, suggested: "pl.Series | list[str]", confidence: np.ndarray) -> pl.DataFrame:
    return rows.with_columns(
        suggested=pl.Series(suggested, dtype=pl.String), confidence=pl.Series(confidence, dtype=pl.Float64).round(4)
    )


def _features(rows: pl.DataFrame, labels: int, least: int) -> Any:
    """Return TF-IDF [n x m] of words and word pairs, or of characters, by train's vocabulary; None: no use.

    That is the case with fewer labels than `least`, with too many, which is said, and where there are no words.
    """
    if labels > MOST_LABELS:
        print(f"  no label is checked (clean.label_issues): train has {labels:,} labels, more than {MOST_LABELS}")
    if not least <= labels <= MOST_LABELS:
        return None
    texts = rows.select(pl.concat_str("text", "text_pair", separator=" ", ignore_nulls=True)).to_series()
    known = texts.filter(rows["split"] == "train")
    limits = {"min_df": 2 if len(known) >= MANY else 1, "max_features": min(200_000, WEIGHTS // labels)}
    vectorizer = tfidf(not is_unspaced(known), **limits)
    try:
        vectorizer.fit(known.to_list())
    except ValueError:  # no words: marks alone
        return None
    return vectorizer.transform(texts.to_list())


def _probabilities(rows: pl.DataFrame, features: Any, given: np.ndarray, labels: int) -> np.ndarray:
    """Return float [n x labels]: what a classifier says that was trained on train without the row's fold."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    train, fold = (rows["split"] == "train").to_numpy(), rows["fold"].to_numpy()
    probabilities = np.zeros((rows.height, labels))
    for number in np.unique(fold):
        judged, others = fold == number, train & (fold != number)
        present = np.unique(given[others])
        if len(present) == 1:
            probabilities[judged, present] = 1.0
            continue
        with threadpool_limits(1):  # sums of several threads differ in their last digits
            model = LogisticRegression(C=4.0, max_iter=1000).fit(features[others], given[others])
            probabilities[np.ix_(judged, present)] = model.predict_proba(features[judged])
    return probabilities


def _confident_learning(split: pl.Series, given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return which labels confident learning doubts, bool [n].

    Held-out rows are compared with what train's rows have, since their split may be small; never the other way.
    """
    from cleanlab import filter as cleanlab

    issue = np.zeros(len(given), dtype=bool)
    for name in SPLITS:
        own = (split == name).to_numpy()
        rows = own | (split == "train").to_numpy()
        issues = cleanlab.find_label_issues(given[rows], probabilities[rows], filter_by="confident_learning", n_jobs=1)
        issue[own] = np.asarray(issues)[own[rows]]
    return issue
