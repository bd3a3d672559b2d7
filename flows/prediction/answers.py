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
from stages.common.readers.table import columns_of
from stages.common.schemas import Table
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
    """Return columns id, text and text_pair; a text in which there is nothing to see is null.

    Args:
        chunk: rows of the input.
        columns: which of its columns is what.
        before: rows before it.
        origin: for messages.

    Raises:
        AttuneError: if the texts are not of type text.
    """
    for name in filter(None, (columns.text, columns.text_pair)):
        if (kind := chunk.schema[name]) not in (pl.String, pl.Null):
            raise AttuneError(f"{origin}: the column {name!r} is {kind}: name that of the texts", "--text COLUMN")
    numbers = pl.int_range(before + 1, before + chunk.height + 1, dtype=pl.Int64, eager=True)
    none = pl.repeat(None, chunk.height, dtype=pl.String, eager=True)
    rows = pl.DataFrame(
        {
            "id": (chunk.get_column(columns.id) if columns.id else numbers).cast(pl.String),
            "text": chunk.get_column(columns.text).cast(pl.String),
            "text_pair": chunk.get_column(columns.text_pair).cast(pl.String) if columns.text_pair else none,
        }
    )
    seen = [text is not None and not blank(text) for text in rows["text"]]
    return rows.with_columns(text=pl.when(pl.Series(seen, dtype=pl.Boolean)).then("text"))


def cleaned(rows: pl.DataFrame, classifier: "Classifier") -> pl.DataFrame:
    """Return rows with their texts as the model's training data were cleaned; a text of nothing is null."""
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
        rows: columns id, text and text_pair.
        threshold: of every label, instead of the model's own.
    """
    there = rows.filter(pl.col("text").is_not_null())
    pairs = there["text_pair"].fill_null("").to_list() if rows["text_pair"].count() else None
    probabilities = classifier.probabilities(there["text"].to_list(), pairs)
    if not np.isfinite(probabilities).all():
        raise AttuneError("the model answers with something that is no number", "train and register it again")
    abstained = classifier.decision.abstains(probabilities, threshold)
    labels = pl.Series(classifier.labels, dtype=pl.String).gather(probabilities.argmax(axis=1))
    rounded = probabilities.round(DIGITS)
    answers = pl.DataFrame(
        {
            "row": rows["text"].is_not_null().arg_true(),
            "label": labels.set(pl.Series(abstained, dtype=pl.Boolean), None),
            "score": rounded.max(axis=1, initial=0.0),
            "abstained": abstained,
            **{f"{PROBABILITY}{label}": rounded[:, index] for index, label in enumerate(classifier.labels)},
        }
    )
    whole = rows.select("id").with_row_index("row").join(answers, on="row", how="left", maintain_order="left")
    return whole.drop("row").with_columns(pl.col("abstained").fill_null(value=True)), probabilities, abstained


def check_kept(chunk: pl.DataFrame, kept: Sequence[str], origin: str, *, flat: bool) -> None:
    """Raise AttuneError if a column of the input cannot be copied to the output; `flat`: as with CSV."""
    for name, kind in columns_of(chunk, kept).schema.items():
        if "Binary" in str(kind) or (flat and (kind.is_nested() or kind == pl.Duration)):
            raise AttuneError(
                f"{origin}: the column {name!r} holds {kind}, which cannot be kept{' in a CSV file' * flat}",
                "leave it out of --keep" + ", or name an output that ends in .parquet" * flat,
            )


def with_kept(answers: pl.DataFrame, chunk: pl.DataFrame, kept: Sequence[str], origin: str) -> pl.DataFrame:
    """Return PredictedRows with columns of the input beside them, checked; a name that is taken becomes `input_NAME`.

    Taken are the names of the answers, and all that begin as those of probabilities do.

    Args:
        answers: PredictedRows.
        chunk: the rows of the input.
        kept: names of the columns to copy.
        origin: for messages.

    Raises:
        AttuneError: if two columns would have one name.
    """
    copied = columns_of(chunk, kept)
    own = set(answers.columns)
    names = [f"input_{name}" if name in own or name.startswith(PROBABILITY) else name for name in kept]
    if taken := [name for name, times in Counter([*own, *names]).items() if times > 1]:
        raise AttuneError(
            f"{origin}: two columns would be called {taken[0]!r}", "rename one of them, or keep one alone"
        )
    copied.columns = names
    return PredictedRows.checked(answers.hstack(copied), "the predictions")
