"""Whether a new row, made of a training row, still has its target, as far as a quick model of TF-IDF can tell."""

import random
from typing import Any

import numpy as np
import polars as pl

from stages.common.text.columns import is_unspaced, tfidf, whole_text
from stages.tasks.targets import set_of

ROWS = 100_000  # that the model is trained on at most; more hardly change what it says
WEIGHTS = 1_000_000  # outputs × features of the model at most: its time and memory grow with them
MOST_LABELS = 500  # with more, few rows are left for each, and probabilities of all labels fill the memory
MOVED = 0.5  # standard deviations of the numbers, at most
CLASSIFIER = {"C": 4.0, "max_iter": 1000, "class_weight": "balanced"}  # of LogisticRegression


def of_classes(made: pl.DataFrame, train: pl.DataFrame, min_probability: float, seed: int) -> pl.Series | None:
    """A quick classifier gives another label, or the row's own too little probability.

    Labels weigh alike however many rows they have: otherwise new rows of rare labels, which are what class balancing
    makes, would be taken for common ones. It says nothing of labels that it has not learnt.
    """
    train = _sample(train, seed)
    labels = train["label"].n_unique()
    if not _can_be_learnt(made, labels, least=2):
        return None
    from sklearn.linear_model import LogisticRegression

    known, new = _features(train, made, outputs=labels)
    with _one_thread():
        model = LogisticRegression(**CLASSIFIER).fit(known, train["label"].to_list())
        probabilities = model.predict_proba(new)  # [rows x labels]
    likeliest = pl.Series(model.classes_[probabilities.argmax(axis=1)], dtype=pl.String)
    own = np.searchsorted(model.classes_, made["label"].to_list()).clip(max=labels - 1)
    learnt = pl.Series(model.classes_[own], dtype=pl.String) == made["label"]
    of_own = pl.Series(probabilities[np.arange(made.height), own])
    lost = (likeliest != made["label"]) | (of_own < min_probability)
    reasons = pl.format("a classifier gives it {} (its own label: {})", likeliest, of_own.round(2))
    return made.select(pl.when(learnt & lost).then(reasons)).to_series()


def of_sets(made: pl.DataFrame, train: pl.DataFrame, min_probability: float, seed: int) -> pl.Series | None:
    """The classifier, asked of each label for itself, no longer finds one of the row's set.

    What it finds besides does not count. A label that all rows of train have, or none, is not learnt.
    """
    train = _sample(train, seed)
    sets, own = ([set(set_of(label)) for label in rows["label"]] for rows in (train, made))
    names = sorted(set().union(*sets))
    if not _can_be_learnt(made, len(names), least=1):
        return None
    from sklearn.linear_model import LogisticRegression

    known, new = _features(train, made, outputs=len(names))
    reasons: list[str | None] = [None] * made.height
    for name in names:
        there = np.array([name in held for held in sets])
        asked = [row for row, held in enumerate(own) if name in held and not reasons[row]]
        if there.all() or not asked:
            continue
        with _one_thread():
            found = LogisticRegression(**CLASSIFIER).fit(known, there).predict_proba(new[asked])[:, 1]
        for row, probability in zip(asked, found, strict=True):
            if probability < max(0.5, min_probability):
                reasons[row] = f"a classifier no longer finds {name} in it (probability {probability:.2f})"
    return pl.Series(reasons, dtype=pl.String)


def of_numbers(made: pl.DataFrame, train: pl.DataFrame, seed: int) -> pl.Series | None:
    """A ridge regression takes the row for another number than the one it was made of, by too much."""
    if made.is_empty() or train["label"].n_unique() < 2:
        return None
    from sklearn.linear_model import Ridge

    parents = made.select(id="parent").join(train, on="id", how="left", maintain_order="left")
    sample = _sample(train, seed)
    known, before, after = _features(sample, parents, made, outputs=1)
    numbers = sample["label"].cast(pl.Float64).to_numpy()
    with _one_thread():
        model = Ridge().fit(known, numbers)
        moved = pl.Series(np.abs(model.predict(after) - model.predict(before)))
    limit = MOVED * float(numbers.std())
    reasons = pl.format(
        f"a regression takes it for another number, {{}} away from the row's own (at most {limit:.2f})", moved.round(2)
    )
    return made.select(pl.when(moved >= limit).then(reasons)).to_series()


def _sample(train: pl.DataFrame, seed: int) -> pl.DataFrame:
    if train.height <= ROWS:
        return train
    return train[sorted(random.Random(f"{seed} label check").sample(range(train.height), ROWS))]


def _can_be_learnt(made: pl.DataFrame, labels: int, least: int) -> bool:
    if labels > MOST_LABELS and made.height:
        reason = f"train has {labels:,} labels, more than {MOST_LABELS}"
        print(f"  no new row is checked for its label (augment.label_preservation): {reason}")
    return made.height > 0 and least <= labels <= MOST_LABELS


def _features(train: pl.DataFrame, *others: pl.DataFrame, outputs: int) -> list[Any]:
    """Return TF-IDF of the texts of train [n x m], by its vocabulary, and of those of others."""
    texts, most = whole_text(train), WEIGHTS // outputs
    spaced = not is_unspaced(texts)
    vectorizer = tfidf(spaced, max_features=most if spaced else min(200_000, most))
    known = vectorizer.fit_transform(texts.to_list())
    return [known, *(vectorizer.transform(whole_text(rows).to_list()) for rows in others)]


def _one_thread() -> Any:
    """Sums in one order, whatever the machine; more threads are no faster here."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)
