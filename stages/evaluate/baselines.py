"""What a fine-tuned model has to beat, scored on the same rows: each takes the splits and returns class numbers [n]."""

from pathlib import Path

import numpy as np
import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.common.text.columns import is_unspaced

WORD = r"\w+"  # one letter is a word, too


def majority(train: np.ndarray, rows: int) -> np.ndarray:
    """Return the most frequent class of the training rows, for every row."""
    return np.full(rows, np.bincount(train).argmax())


def tfidf(train: pl.DataFrame, actual: np.ndarray, test: pl.DataFrame) -> np.ndarray:
    """TF-IDF of words and word pairs (characters where there are no spaces) and logistic regression."""
    texts = _texts(train)
    spaced = sum(" " in text for text in texts) > len(texts) / 2 and not is_unspaced(pl.Series(texts, dtype=pl.String))
    vectorizer = (
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)
        if spaced
        else TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, max_features=200_000)
    )
    model = make_pipeline(vectorizer, LogisticRegression(C=4.0, max_iter=1000))
    return np.asarray(model.fit(texts, actual).predict(_texts(test)))


def base_model(base: Path, train: pl.DataFrame, actual: np.ndarray, test: pl.DataFrame, max_length: int) -> np.ndarray:
    """Logistic regression on the mean embeddings of the base model as it was before fine-tuning (a linear probe)."""
    from stages.tasks.text_classification import embeddings

    known, new = (embeddings(base, rows, 128, max_length) for rows in (train, test))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return np.asarray(model.fit(known, actual).predict(new))


def _texts(rows: pl.DataFrame) -> list[str]:
    joined = pl.concat_str("text", "text_pair", separator=" ", ignore_nulls=True)
    return rows.select(joined).to_series().to_list()
