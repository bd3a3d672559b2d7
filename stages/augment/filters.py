"""What keeps a new row out: each filter gives the reason, null where the row stays."""

import random

import numpy as np
import polars as pl

from stages.common.params import AugmentParams
from stages.common.pipeline.validation import Ledger, Rule
from stages.common.text.columns import is_unspaced, whole_text
from stages.common.text.near_duplicates import nearest_among

NUM_PERM = 128
ROWS = 100_000  # that the classifier is trained on at most; more hardly change what it says
WEIGHTS = 1_000_000  # labels × features of the classifier at most: its time and memory grow with them
MOST_LABELS = 500  # with more, few rows are left for each, and probabilities of all labels fill the memory


def accepted(
    made: pl.DataFrame, train: pl.DataFrame, held_out: pl.DataFrame, params: AugmentParams, seed: int
) -> tuple[pl.DataFrame, Ledger]:
    """Return the new rows that pass every filter, in their order, and the account of the others."""

    def near_a_held_out_text(rows: pl.DataFrame) -> pl.Expr:
        """The model would be scored on what it has nearly seen."""
        texts, others = whole_text(rows), whole_text(held_out)
        shingle_size = 3 if is_unspaced(others) else 5
        match, similarity = nearest_among(texts, others, params.leak_threshold, shingle_size, NUM_PERM)
        reason = pl.format("similarity {} to a validation or test row", pl.Series(similarity).round(2))
        return pl.when(pl.Series(match >= 0, dtype=pl.Boolean)).then(reason)

    # The cheap ones first. The first two: a method changed nothing, or made what is there already.
    training_texts = whole_text(train).implode()
    known, repeated = pl.lit("a training row has the same text"), pl.lit("another new row has the same text")
    filters: dict[str, Rule] = {
        "equal_to_a_training_text": lambda rows: pl.when(whole_text(rows).is_in(training_texts)).then(known),
        "equal_to_another_new_text": lambda rows: pl.when(~whole_text(rows).is_first_distinct()).then(repeated),
        "near_a_held_out_text": near_a_held_out_text,
    }
    if params.label_preservation.enabled:
        filters["lost_its_label"] = lambda rows: _lost_its_label(rows, train, params, seed)
    ledger, kept = Ledger("augment", made.height), made
    for name, rule in filters.items():
        kept = ledger.apply(name, rule, kept)
    ledger.close(kept.height)
    return kept, ledger


def _lost_its_label(rows: pl.DataFrame, train: pl.DataFrame, params: AugmentParams, seed: int) -> pl.Expr:
    """A quick classifier (TF-IDF, logistic regression) gives another label, or the row's own too little probability.

    Labels weigh alike however many rows they have: otherwise new rows of rare labels, which are what class balancing
    makes, would be taken for common ones. It says nothing of labels that it has not learnt.
    """
    if train.height > ROWS:
        train = train[sorted(random.Random(f"{seed} label check").sample(range(train.height), ROWS))]
    labels = train["label"].n_unique()
    if labels > MOST_LABELS and rows.height:
        reason = f"train has {labels:,} labels, more than {MOST_LABELS}"
        print(f"  no new row is checked for its label (augment.label_preservation): {reason}")
    if rows.is_empty() or not 2 <= labels <= MOST_LABELS:
        return pl.lit(None, pl.String)
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    texts, most = whole_text(train), WEIGHTS // labels
    kind = {"ngram_range": (1, 2), "token_pattern": r"\w+", "max_features": most}
    if is_unspaced(texts):
        kind = {"ngram_range": (1, 3), "analyzer": "char", "max_features": min(200_000, most)}
    classifier = LogisticRegression(C=4.0, max_iter=1000, class_weight="balanced")
    model = make_pipeline(TfidfVectorizer(**kind, sublinear_tf=True), classifier)
    with threadpool_limits(1):  # sums in one order, whatever the machine; more threads are no faster here
        model.fit(texts.to_list(), train["label"].to_list())
        probabilities = model.predict_proba(whole_text(rows).to_list())  # [rows x labels]
    likeliest = pl.Series(model.classes_[probabilities.argmax(axis=1)], dtype=pl.String)
    own = np.searchsorted(model.classes_, rows["label"].to_list()).clip(max=labels - 1)
    learnt = pl.Series(model.classes_[own], dtype=pl.String) == rows["label"]
    of_own = pl.Series(probabilities[np.arange(rows.height), own])
    lost = (likeliest != rows["label"]) | (of_own < params.label_preservation.min_probability)
    reasons = pl.format("a classifier gives it {} (its own label: {})", likeliest, of_own.round(2))
    return pl.when(learnt & lost).then(reasons)
