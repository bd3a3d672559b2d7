"""Rows whose label looks wrong: confident learning over out-of-fold probabilities of a quick classifier.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (cleanlab): a row is
suspect if its probability of another label is above what rows of that label have on average. The classifier is TF-IDF
with logistic regression; where it is weak, many of its doubts are its own, hence `min_confidence`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stages.clean.folds import assign_folds
from stages.clean.units import lot
from stages.common.errors import AttuneError
from stages.common.params.clean import LabelIssues
from stages.common.schemas import SPLITS, Suspects
from stages.common.texts import is_unspaced

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MARK = r'"suspect":(?:null|"(?:[^"\\]|\\.)*")'
WEIGHTS = 500_000  # labels × features of the classifier at most: its time and memory go with them
MOST_LABELS = 500  # with more, few rows are left for each, and probabilities of all labels for all rows fill the memory
MANY = 1000  # rows from which words that are there once are left out: four in five words, and no help


def find_suspects(splits: dict[str, pl.DataFrame], params: LabelIssues, seed: int) -> pl.DataFrame:
    """List the rows whose label looks wrong, in all splits, the surest first; none where there are too many labels.

    A row of train is judged by a classifier that saw no row of its fold (folds keep groups together); rows of
    validation and test by one that saw train. Nothing of validation or test reaches what is said of train.

    Args:
        splits: train, validation and test, schema CleanRecords.
        params: folds, how sure it has to be, and how many rows of a split are looked at.
        seed: of the folds and the sample.

    Returns:
        schema Suspects, the same for any order of the rows.
    """
    if params.action == "off":
        return Suspects.empty()
    from threadpoolctl import threadpool_limits

    rows = pl.concat([_sample(splits[name], params.max_rows, seed).with_columns(split=pl.lit(name)) for name in SPLITS])
    labels = rows.filter(split="train")["label"].unique().sort()
    if len(labels) < 2:
        return Suspects.empty()
    if len(labels) > MOST_LABELS:
        print(f"  no label is checked (clean.label_issues): train has {len(labels):,} labels, more than {MOST_LABELS}")
        return Suspects.empty()
    rows = rows.filter(pl.col("label").is_in(labels.to_list()))
    given = np.searchsorted(labels.to_numpy(), rows["label"].to_numpy())
    train = (rows["split"] == "train").to_numpy()
    fold = _folds(rows.filter(train), params.folds, seed)
    features = _features(_texts(rows), train, len(labels))
    if fold is None or features is None:
        return Suspects.empty()
    chances = np.zeros((rows.height, len(labels)))
    with threadpool_limits(1):  # sums of several threads differ in their last digits
        chances[train] = _out_of_fold(features[train], given[train], fold, len(labels))
        chances[~train] = _probabilities(features[train], given[train], features[~train], len(labels))
    doubted = np.zeros(rows.height, dtype=bool)
    for name in SPLITS:
        # Held-out rows are held against what train's rows have, since their split may be small; never the other way.
        own = (rows["split"] == name).to_numpy()
        doubted[own] = _doubted(given[own | train], chances[own | train])[own[own | train]]
    found = rows.with_columns(
        suggested=labels.gather(chances.argmax(axis=1)), confidence=pl.Series(chances.max(axis=1).round(4))
    ).filter(pl.Series(doubted), pl.col("confidence") >= params.min_confidence)
    return found.select(Suspects.columns()).sort("confidence", "id", descending=[True, False])


def act(
    splits: dict[str, pl.DataFrame], suspects: pl.DataFrame, action: str
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Do with the suspects what `clean.label_issues.action` says.

    Args:
        splits: train, validation and test.
        suspects: schema Suspects.
        action: flag: write `"suspect": "yes"` or `"no"` into the JSON of `extra`; reject: take suspects out of train,
            unless no row of their label would be left; anything else: nothing.

    Returns:
        The splits, and the rows of train that are out, with a `reason`.
    """
    none = splits["train"].clear().with_columns(reason=pl.lit(None, dtype=pl.String))
    if action == "flag":
        return {name: _flagged(rows, suspects["id"]) for name, rows in splits.items()}, none
    if action != "reject":
        return splits, none
    reason = pl.format("the label looks wrong: {} has the probability {}", "suggested", pl.col("confidence"))
    doubts = suspects.filter(split="train").select("id", reason=reason)
    train = splits["train"].join(doubts, on="id", how="left", maintain_order="left")
    spared = pl.col("reason").is_not_null().all().over("label")
    kept = pl.col("reason").is_null() | spared
    return {**splits, "train": train.filter(kept).drop("reason")}, train.filter(~kept)


def _flagged(rows: pl.DataFrame, suspects: pl.Series) -> pl.DataFrame:
    """Put the mark behind the other keys of `extra`; an older mark gives way."""
    # Inside a JSON text a quotation mark has a backslash before it, so that what is found here can only be a key.
    others = pl.col("extra").str.replace(f",{MARK}", "").str.replace(f"^\\{{{MARK},?", "{").str.strip_suffix("}")
    # An object without other keys is `{` by now, and no object at all is null.
    start = pl.when(others.str.len_bytes() > 1).then(others + ",").otherwise(pl.lit("{"))
    mark = pl.when(pl.col("id").is_in(suspects.to_list())).then(pl.lit("yes")).otherwise(pl.lit("no"))
    return rows.with_columns(extra=start + pl.lit('"suspect":"') + mark + pl.lit('"}'))


def _sample(rows: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """Return all rows, or as many as are looked at, drawn by a seeded hash of the id; in the order of the id."""
    if rows.height > most:
        drawn = rows.select("id", lot=lot("id", f"{seed} suspects")).sort("lot", "id").head(most)
        rows = rows.join(drawn, on="id", how="semi")
    return rows.sort("id")


def _texts(rows: pl.DataFrame) -> pl.Series:
    return rows.select(pl.concat_str("text", "text_pair", separator=" ", ignore_nulls=True)).to_series()


def _folds(train: pl.DataFrame, folds: int, seed: int) -> np.ndarray | None:
    """Return the fold of each row, int [n]: fewer folds where there are fewer groups, None where there is but one."""
    for count in range(folds, 1, -1):
        try:
            return assign_folds(train, count, seed).to_numpy()
        except AttuneError:
            continue
    return None


def _features(texts: pl.Series, train: np.ndarray, labels: int) -> csr_matrix | None:
    """Return TF-IDF of words and word pairs, or of characters; the vocabulary is train's. None if that has no word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = texts.filter(train)
    kind = (
        {"analyzer": "char", "ngram_range": (1, 3)}
        if is_unspaced(known)
        else {"token_pattern": r"\w+", "ngram_range": (1, 2)}
    )
    least = 2 if len(known) >= MANY else 1
    most = min(200_000, WEIGHTS // labels)
    vectorizer = TfidfVectorizer(**kind, sublinear_tf=True, min_df=least, max_features=most)
    try:
        vectorizer.fit(known.to_list())
    except ValueError:  # no words: marks alone
        return None
    return vectorizer.transform(texts.to_list())


def _out_of_fold(features: csr_matrix, given: np.ndarray, fold: np.ndarray, labels: int) -> np.ndarray:
    """Return the probabilities, float [n, labels], that a classifier trained on the other folds gives each row."""
    chances = np.zeros((len(given), labels))
    for number in np.unique(fold):
        out = fold == number
        chances[out] = _probabilities(features[~out], given[~out], features[out], labels)
    return chances


def _probabilities(known: csr_matrix, given: np.ndarray, new: csr_matrix, labels: int) -> np.ndarray:
    """Return the probabilities of new rows, float [n, labels]; 0 for labels that no known row has."""
    from sklearn.linear_model import LogisticRegression

    chances = np.zeros((new.shape[0], labels))
    present = np.unique(given)
    if len(present) == 1:
        chances[:, present] = 1.0
    elif new.shape[0]:
        chances[:, present] = LogisticRegression(C=4.0, max_iter=1000).fit(known, given).predict_proba(new)
    return chances


def _doubted(given: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Return which labels confident learning doubts, bool [n]; none that the row's classifier had not seen."""
    from cleanlab.filter import find_label_issues

    issues = find_label_issues(given, chances, filter_by="confident_learning", n_jobs=1)
    judged = chances[np.arange(len(given)), given] > 0
    return np.asarray(issues & judged & (chances.argmax(axis=1) != given))
