"""Rows whose label looks wrong: confident learning over out-of-fold probabilities of a quick classifier.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (cleanlab): a row is
suspect if its probability of another label is above what rows of that label have on average. The classifier is TF-IDF
with logistic regression; where it is weak, many of its doubts are its own, hence `min_confidence`.
"""

import json

import numpy as np
import polars as pl

from stages.clean.split import assign_folds
from stages.common.digests import hash_order
from stages.common.errors import AttuneError
from stages.common.params.clean import LabelIssues
from stages.common.schemas import SPLITS, Suspects
from stages.common.text.columns import is_unspaced

WEIGHTS = 500_000  # labels × features of the classifier at most: its time and memory go with them
MOST_LABELS = 500  # with more, few rows are left for each, and probabilities of all labels for all rows fill the memory
MANY = 1000  # rows from which words that are there once are left out: four in five words, and no help


def find_label_issues(splits: dict[str, pl.DataFrame], params: LabelIssues, seed: int) -> pl.DataFrame:
    """List the rows whose label looks wrong, in all splits, by confidence; none where there are too many labels.

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
    order = hash_order("id", f"{seed} suspects")
    samples = [
        (rows.sort(order, "id").head(params.max_rows) if rows.height > params.max_rows else rows).sort("id")
        for rows in (splits[name].with_columns(split=pl.lit(name)) for name in SPLITS)
    ]
    labels = samples[0]["label"].unique().sort()
    if len(labels) > MOST_LABELS:
        print(f"  no label is checked (clean.label_issues): train has {len(labels):,} labels, more than {MOST_LABELS}")
    if not 2 <= len(labels) <= MOST_LABELS:
        return Suspects.empty()
    rows = pl.concat(samples).filter(pl.col("label").is_in(labels.to_list()))
    train = (rows["split"] == "train").to_numpy()
    fold = np.full(rows.height, -1)  # of the rows that a classifier on the whole of train judges
    try:
        fold[train] = assign_folds(rows.filter(train), params.folds, seed)
    except AttuneError:
        print(f"  no label is checked (clean.label_issues): train has fewer groups than {params.folds} folds")
        return Suspects.empty()
    given = np.searchsorted(labels.to_numpy(), rows["label"].to_numpy())
    probabilities = _probabilities(rows, given, train, fold, len(labels))
    if probabilities is None:
        return Suspects.empty()
    suggested, own = probabilities.argmax(axis=1), probabilities[np.arange(rows.height), given]
    # A label that the row's classifier has not seen has the probability 0: there it has no opinion.
    issue = _confident_learning(rows["split"], given, probabilities) & (own > 0) & (suggested != given)
    confidence = pl.Series(probabilities.max(axis=1).round(4))
    issues = rows.with_columns(suggested=labels.gather(suggested), confidence=confidence)
    issues = issues.filter(pl.Series(issue), pl.col("confidence") >= params.min_confidence)
    return issues.select(Suspects.columns()).sort("confidence", "id", descending=[True, False])


def apply_action(
    splits: dict[str, pl.DataFrame], issues: pl.DataFrame, action: str
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Do with the label issues what `clean.label_issues.action` says.

    Args:
        splits: train, validation and test.
        issues: schema Suspects.
        action: flag: write `"suspect": "yes"` or `"no"` into the JSON of `extra`, behind its other keys; reject: take
            the rows out of train, unless no row of their label would be left; anything else: nothing.

    Returns:
        The splits, and the rows of train that are out, with a `reason`.
    """
    none = splits["train"].clear().with_columns(reason=pl.lit(None, dtype=pl.String))
    if action == "flag":
        return {name: _flagged(rows, issues["id"]) for name, rows in splits.items()}, none
    if action != "reject":
        return splits, none
    reason = pl.format("the label looks wrong: {} has the probability {}", "suggested", pl.col("confidence"))
    reasons = issues.filter(split="train").select("id", reason=reason)
    train = splits["train"].join(reasons, on="id", how="left", maintain_order="left")
    spared = pl.col("reason").is_not_null().all().over("label")
    kept = pl.col("reason").is_null() | spared
    return {**splits, "train": train.filter(kept).drop("reason")}, train.filter(~kept)


def _flagged(rows: pl.DataFrame, flagged: pl.Series) -> pl.DataFrame:
    extras = []
    for extra, suspect in zip(rows["extra"], rows["id"].is_in(flagged.implode()), strict=True):
        others = {key: value for key, value in json.loads(extra or "{}").items() if key != "suspect"}
        others["suspect"] = "yes" if suspect else "no"
        extras.append(json.dumps(others, ensure_ascii=False, separators=(",", ":")))
    return rows.with_columns(extra=pl.Series(extras, dtype=pl.String))


def _probabilities(
    rows: pl.DataFrame, given: np.ndarray, train: np.ndarray, fold: np.ndarray, labels: int
) -> np.ndarray | None:
    """Return float [n, labels]: what the classifier trained on train without the row's fold says; None if it cannot.

    The features are TF-IDF of words and word pairs, or of characters; the vocabulary is train's.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    texts = rows.select(pl.concat_str("text", "text_pair", separator=" ", ignore_nulls=True)).to_series()
    known = texts.filter(train)
    words = {"token_pattern": r"\w+", "ngram_range": (1, 2)}
    kind = {"analyzer": "char", "ngram_range": (1, 3)} if is_unspaced(known) else words
    vectorizer = TfidfVectorizer(
        **kind, sublinear_tf=True, min_df=2 if len(known) >= MANY else 1, max_features=min(200_000, WEIGHTS // labels)
    )
    try:
        vectorizer.fit(known.to_list())
    except ValueError:  # no words: marks alone
        return None
    features = vectorizer.transform(texts.to_list())
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
