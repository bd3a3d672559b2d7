"""A chunk of rows and what a model says of them."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData

from flows.prediction.request import Columns
from stages.common.errors import AttuneError
from stages.common.readers.values import columns_of
from stages.common.schemas import PredictionInput, Table
from stages.common.serving.answers import blank

if TYPE_CHECKING:
    from stages.common.serving.classifier import Classifier

PROBABILITY = "probability_"
DIGITS = 6


class PredictedRows(Table):
    """What `flows.predict` answers: the rows of its input, in their order, and beside these the columns kept of it."""

    class Config:
        strict = False

    id: str = pa.Field(nullable=True)
    label: str = pa.Field(nullable=True, description="Null where the model abstained.")
    score: pl.Float64 = pa.Field(
        nullable=True, ge=0.0, le=1.0, description="Calibrated probability of the likeliest label; null without a text."
    )
    abstained: bool = pa.Field(description="No text, or less sure than the label's threshold asks for.")
    probability: pl.Float64 = pa.Field(
        alias="^probability_.*$", regex=True, nullable=True, ge=0.0, le=1.0, description="One column a label."
    )

    @pa.dataframe_check(name="a_label_unless_abstained")
    @classmethod
    def _a_label_unless_abstained(cls, data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("label").is_null() == pl.col("abstained"))


def to_predict(chunk: pl.DataFrame, columns: Columns, before: int, origin: str) -> pl.DataFrame:
    """Return a chunk as PredictionInput; a text in which there is nothing to see is null.

    Args:
        chunk: rows of the input.
        columns: which of its columns is what.
        before: rows before it.
        origin: for messages.

    Raises:
        AttuneError: if the texts are not of type text.
    """
    numbers = pl.int_range(before + 1, before + chunk.height + 1, dtype=pl.Int64, eager=True)
    none = pl.Series([None] * chunk.height, dtype=pl.String)
    rows = pl.DataFrame(
        {
            "id": (chunk.get_column(columns.id) if columns.id else numbers).cast(pl.String),
            "text": chunk.get_column(columns.text),
            "text_pair": chunk.get_column(columns.text_pair) if columns.text_pair else none,
        }
    )
    try:
        PredictionInput.checked(rows, origin)
    except AttuneError as error:
        kind = rows.schema["text"]
        raise AttuneError(
            error.what, f"the column {columns.text!r} is {kind}: name that of the texts: --text"
        ) from None
    seen = [text is not None and not blank(text) for text in rows["text"]]
    return rows.with_columns(text=pl.when(pl.Series(seen, dtype=pl.Boolean)).then("text"))


def cleaned(rows: pl.DataFrame, classifier: "Classifier") -> pl.DataFrame:
    """Return PredictionInput with its texts as the model's training data were cleaned; a text of nothing is null."""
    if classifier.cleaning is None:
        return rows
    texts = (classifier.cleaning.column(rows[name])[0].alias(name) for name in ("text", "text_pair"))
    return rows.with_columns(*texts)


def answer(
    classifier: "Classifier", rows: pl.DataFrame, threshold: float | None
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Return PredictedRows, and for the rows with a text the probabilities [n x k] and whether the model abstained [n].

    Args:
        classifier: the model.
        rows: PredictionInput.
        threshold: of every label, instead of the model's own.
    """
    there = rows.filter(pl.col("text").is_not_null())
    pairs = there["text_pair"].fill_null("").to_list() if rows["text_pair"].count() else None
    probabilities = classifier.probabilities(there["text"].to_list(), pairs)
    if not np.isfinite(probabilities).all():
        raise AttuneError("the model answers with something that is no number", "train and register it again")
    abstained = classifier.decision.abstains(probabilities, threshold)
    chosen = probabilities.argmax(axis=1)
    labels = np.array(classifier.labels, dtype=object)[chosen]
    rounded = probabilities.round(DIGITS)
    found = pl.DataFrame(
        {
            "at": rows.with_row_index("at").filter(pl.col("text").is_not_null())["at"],
            "label": pl.Series(
                [None if no else label for label, no in zip(labels, abstained, strict=True)], dtype=pl.String
            ),
            "score": rounded.max(axis=1, initial=0.0),
            "abstained": abstained,
            **{f"{PROBABILITY}{label}": rounded[:, at] for at, label in enumerate(classifier.labels)},
        }
    )
    whole = rows.select("id").with_row_index("at").join(found, on="at", how="left", maintain_order="left").drop("at")
    return whole.with_columns(pl.col("abstained").fill_null(value=True)), probabilities, abstained


def check_kept(chunk: pl.DataFrame, kept: Sequence[str], origin: str, *, flat: bool) -> None:
    """Check that columns of the input can be copied to the output.

    Args:
        chunk: rows of the input.
        kept: names of the columns.
        origin: for messages.
        flat: the output holds single values alone, as CSV does.

    Raises:
        AttuneError: if not.
    """
    for name, kind in columns_of(chunk, kept).schema.items():
        if "Binary" in str(kind) or (flat and (kind.is_nested() or kind == pl.Duration)):
            raise AttuneError(
                f"{origin}: the column {name!r} holds {kind}, which cannot be kept{' in a CSV file' * flat}",
                "leave it out of --keep" + ", or name an output that ends in .parquet" * flat,
            )


def with_kept(answers: pl.DataFrame, chunk: pl.DataFrame, kept: Sequence[str], origin: str) -> pl.DataFrame:
    """Return the answers with columns of the input beside them, checked; a name that is taken becomes `input_NAME`.

    Taken are the names of the answers, and all that begin as those of probabilities do.

    Args:
        answers: PredictedRows.
        chunk: the rows of the input.
        kept: names of the columns to copy.
        origin: for messages.

    Raises:
        AttuneError: if two columns would have one name.
    """
    own = set(answers.columns)
    names = {name: f"input_{name}" if name in own or name.startswith(PROBABILITY) else name for name in kept}
    if taken := [name for name, times in Counter([*own, *names.values()]).items() if times > 1]:
        raise AttuneError(
            f"{origin}: two columns would be called {taken[0]!r}", "rename one of them, or keep one alone"
        )
    beside = [column.alias(names[column.name]) for column in columns_of(chunk, kept).get_columns()]
    return PredictedRows.checked(answers.hstack(beside), "the predictions")
