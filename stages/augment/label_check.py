"""A quick classifier, TF-IDF and logistic regression, that tells whether a new text still reads like its label."""

import random

import numpy as np
import polars as pl

ROWS = 100_000  # to train on at most; more rows hardly change what it says
WEIGHTS = 1_000_000  # labels × features of the classifier at most: its time and memory go with them
MOST_LABELS = 500  # with more, few rows are left for each, and probabilities of all labels fill the memory


def likeliest_labels(
    known: pl.Series, labels: pl.Series, texts: pl.Series, own: pl.Series, seed: int
) -> tuple[pl.Series, pl.Series]:
    """Train on known texts and judge others.

    Labels weigh alike however many rows they have: otherwise new rows of rare labels, which are what class balancing
    makes, would be taken for common ones.

    Args:
        known: texts to train on, no nulls.
        labels: their labels.
        texts: what to judge.
        own: the labels these claim to have.
        seed: of the sample that is trained on, if there are many rows.

    Returns:
        label: the likeliest label of each text; its own where that is none the classifier has learnt,
            or where train has too many labels for one.
        probability: float64, of its own label; 1.0 where that is none the classifier has learnt.
    """
    if len(known) > ROWS:
        sample = sorted(random.Random(f"{seed} label check").sample(range(len(known)), ROWS))
        known, labels = known.gather(sample), labels.gather(sample)
    classes = labels.unique().sort().to_list()
    if len(classes) < 2:
        return own, pl.Series(np.ones(len(own)))
    if len(classes) > MOST_LABELS:
        print(
            f"  no new row is held against its label (augment.label_preservation): train has {len(classes):,} labels, "
            f"more than {MOST_LABELS}"
        )
        return own, pl.Series(np.ones(len(own)))
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    most = WEIGHTS // len(classes)
    if known.str.contains(" ", literal=True).mean() > 0.5:  # type: ignore[operator]
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+", max_features=most)
    else:  # a script without spaces
        vectorizer = TfidfVectorizer(
            analyzer="char", ngram_range=(1, 3), sublinear_tf=True, max_features=min(200_000, most)
        )
    model = make_pipeline(vectorizer, LogisticRegression(C=4.0, max_iter=1000, class_weight="balanced"))
    number = {label: at for at, label in enumerate(classes)}
    with threadpool_limits(1):  # sums in one order, whatever the machine; more threads are no faster here
        model.fit(known.to_list(), [number[label] for label in labels])
        probabilities = model.predict_proba(texts.to_list())  # [texts x classes]
    likeliest = [classes[at] for at in probabilities.argmax(axis=1)]
    judged = [label in number for label in own]
    of_own = [row[number[label]] if label in number else 1.0 for row, label in zip(probabilities, own, strict=True)]
    return (
        pl.Series(
            [found if known_ else label for found, label, known_ in zip(likeliest, own, judged, strict=True)],
            dtype=pl.String,
        ),
        pl.Series(of_own, dtype=pl.Float64),
    )
