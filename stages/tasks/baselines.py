"""What a fine-tuned model has to beat, on the same rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import hstack
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from stages.common.text.columns import is_unspaced, tfidf
from stages.tasks.encoder import embeddings

TFIDF_ALPHAS, PROBE_ALPHAS = (0.3, 1.0, 3.0, 10.0), (10.0, 100.0, 1000.0, 10_000.0)  # of ridges
LINE_ROWS = 1000  # that a line is put through


def classes(
    name: str, train: pl.DataFrame, actual: np.ndarray, test: pl.DataFrame, base: Path, max_length: int
) -> np.ndarray:
    """Return the class numbers [n] that a baseline predicts for the test rows.

    `actual` are those of the training rows; the base model is measured on so many tokens of a text.
    """
    if name == "majority":
        return np.full(test.height, np.bincount(actual).argmax())  # the most frequent class, for every row
    known, new = features(name, base, max_length, train, test)
    return np.asarray(classifier(name).fit(known, actual).predict(new))


def classifier(name: str) -> LogisticRegression:
    """Return the logistic regression of `tfidf`, or of `base_model` (a linear probe of it as it was)."""
    return LogisticRegression(C=4.0, max_iter=1000) if name == "tfidf" else LogisticRegression(C=0.1, max_iter=2000)


def features(name: str, base: Path, max_length: int, *parts: pl.DataFrame) -> list[Any]:
    """Return what the classifier of a baseline sees of each table, [rows x features]; the first is for training.

    For `tfidf`: TF-IDF of words and word pairs, or of characters; for `base_model`: mean embeddings, standardised.
    """
    inputs: list[Any] = [
        _joined(part) if name == "tfidf" else embeddings(base, part, 128, max_length) for part in parts
    ]
    fitted = _vectorizer(inputs[0]) if name == "tfidf" else StandardScaler()
    return [fitted.fit_transform(inputs[0]), *map(fitted.transform, inputs[1:])]


def numbers(name: str, parts: Sequence[pl.DataFrame], base: Path, max_length: int) -> np.ndarray | None:
    """Return the numbers [n] that a baseline predicts for the test rows; None: it needs two texts, and there is one.

    `tfidf` and `base_model` are ridge regressions, on TF-IDF and on mean embeddings of the base model; of two texts
    they see both and their likeness. `base_cosine` is the cosine of the base's embeddings of two texts, put on a line
    through training rows. Labels are canonical numbers; validation decides how much a ridge is held back.
    """
    train, validation, test = parts
    actual, checked = (rows["label"].cast(pl.Float64).to_numpy() for rows in (train, validation))
    pairs = train["text_pair"].count() > 0
    match name:
        case "mean" | "median":
            return np.full(test.height, np.mean(actual) if name == "mean" else np.median(actual))
        case "tfidf":
            inputs, alphas = _tfidf_features(pairs, train, validation, test), TFIDF_ALPHAS
        case "base_model":
            vectors = _embedded(base, max_length, pairs, train, validation, test)
            likeness = [
                np.hstack([np.abs(part[0] - part[1]), part[0] * part[1]]) if pairs else part[0] for part in vectors
            ]
            scaler = StandardScaler().fit(likeness[0])
            inputs, alphas = [scaler.transform(part) for part in likeness], PROBE_ALPHAS
        case _ if not pairs:
            return None
        case _:
            some = train.with_row_index().gather_every(max(1, train.height // LINE_ROWS))
            cosines, of_test = map(_cosines, _embedded(base, max_length, pairs, some, test))
            return np.polyval(np.polyfit(cosines, actual[some["index"]], 1), of_test)
    ridges = [Ridge(alpha=alpha).fit(inputs[0], actual) for alpha in alphas]
    errors = [np.square(ridge.predict(inputs[1]) - checked).mean() for ridge in ridges]
    return np.asarray(ridges[int(np.argmin(errors))].predict(inputs[2]))


def _tfidf_features(pairs: bool, *parts: pl.DataFrame) -> list[Any]:
    """Return the TF-IDF of each table, fitted on the first; for pairs, with the cosine of the words of both texts."""
    vectorizer, words = (_vectorizer(_joined(parts[0]), most).fit(_joined(parts[0])) for most in (2, 1))
    features = []
    for part in parts:
        both = vectorizer.transform(_joined(part))
        if pairs:
            first, second = (words.transform(part[name].fill_null("")) for name in ("text", "text_pair"))
            both = hstack([both, first.multiply(second).sum(axis=1).reshape(-1, 1)], "csr")
        features.append(both)
    return features


def _embedded(base: Path, max_length: int, pairs: bool, *parts: pl.DataFrame) -> list[np.ndarray]:
    """Return the mean embeddings of the texts of each table on their own, [1 or 2 x n x hidden] float32."""
    columns = [[part[name].fill_null("") for name in ("text", "text_pair")[: 1 + pairs]] for part in parts]
    texts = pl.concat([column.rename("text") for part in columns for column in part]).unique(maintain_order=True)
    rows = pl.DataFrame({"text": texts, "text_pair": pl.Series([None] * len(texts), dtype=pl.String)})
    vectors, place = embeddings(base, rows, 128, max_length), {text: number for number, text in enumerate(texts)}
    return [np.stack([vectors[[place[text] for text in column]] for column in part]) for part in columns]


def _cosines(vectors: np.ndarray) -> np.ndarray:
    """Return the cosine of first and second vectors [2 x n x hidden]."""
    first, second = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return np.asarray((first * second).sum(axis=-1), np.float64)


def _joined(rows: pl.DataFrame) -> list[str]:
    texts = rows.select(pl.concat_str("text", "text_pair", separator=" ", ignore_nulls=True)).to_series()
    return texts.to_list()


def _vectorizer(texts: list[str], words: int = 2) -> Any:
    spaced = sum(" " in text for text in texts) > len(texts) / 2 and not is_unspaced(pl.Series(texts, dtype=pl.String))
    return tfidf(spaced, words, max_features=None if spaced else 200_000)
