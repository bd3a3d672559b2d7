"""What a fine-tuned model has to beat, on the same rows."""

from pathlib import Path

import numpy as np
import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.common.params.evaluate import Bootstrap
from stages.common.text.columns import is_unspaced
from stages.tasks.bootstrap import class_numbers, compare, scores_with_intervals

WORD = r"\w+"  # one letter is a word, too
REPORTED = ("accuracy", "macro_f1", "fixed", "broken", "mcnemar_p")


def predict(
    name: str, train: pl.DataFrame, test: pl.DataFrame, labels: list[str], base: Path, finetuned: Path
) -> np.ndarray:
    """Return the class numbers [n] that a baseline (as in `evaluate.baselines`) predicts for the test rows.

    The base model is measured on the tokens that the fine-tuned model sees of a text.
    """
    from transformers import AutoTokenizer

    actual = class_numbers(train["label"], labels)
    if name == "majority":
        return np.full(test.height, np.bincount(actual).argmax())  # the most frequent class, for every row
    if name == "tfidf":
        return tfidf(train, actual, test)
    max_length = int(AutoTokenizer.from_pretrained(finetuned).model_max_length)
    return base_model(base, train, actual, test, max_length)


def tfidf(train: pl.DataFrame, actual: np.ndarray, test: pl.DataFrame) -> np.ndarray:
    """TF-IDF of words and word pairs (characters where there are no spaces) and logistic regression."""
    texts, test_texts = (
        rows.select(pl.concat_str("text", "text_pair", separator=" ", ignore_nulls=True)).to_series().to_list()
        for rows in (train, test)
    )
    spaced = sum(" " in text for text in texts) > len(texts) / 2 and not is_unspaced(pl.Series(texts, dtype=pl.String))
    vectorizer = (
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)
        if spaced
        else TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, max_features=200_000)
    )
    model = make_pipeline(vectorizer, LogisticRegression(C=4.0, max_iter=1000))
    return np.asarray(model.fit(texts, actual).predict(test_texts))


def base_model(base: Path, train: pl.DataFrame, actual: np.ndarray, test: pl.DataFrame, max_length: int) -> np.ndarray:
    """Logistic regression on the mean embeddings of the base model as it was before fine-tuning (a linear probe)."""
    from stages.tasks.text_classification import embeddings

    train_embeddings, test_embeddings = (embeddings(base, rows, 128, max_length) for rows in (train, test))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return np.asarray(model.fit(train_embeddings, actual).predict(test_embeddings))


def beside(
    actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return a baseline's accuracy and macro-F1 with their intervals, and what our predictions gain over its own."""
    own = scores_with_intervals(actual, theirs, classes, bootstrap, seed)
    gain = compare(actual, ours, theirs, classes, bootstrap, seed)
    return {name: value for name, value in {**own, **gain}.items() if name.startswith(REPORTED)}
