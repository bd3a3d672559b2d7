"""The tables that cross a stage boundary. The class is the documentation of the table."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.errors import SchemaErrors

from stages.common.errors import AttuneError

SPLITS = ("train", "validation", "test")


class Table(pa.DataFrameModel):
    """A Parquet file with a contract, checked whenever it is written."""

    class Config:
        strict = "filter"  # columns outside the contract are not written

    @classmethod
    def write(cls, rows: pl.DataFrame, path: Path) -> pl.DataFrame:
        """Validate every row and write Parquet; return what was written.

        An AttuneError names up to five faults, each with its column, its check and how many rows fail.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        checked = cls._checked(rows, path.name)
        checked.write_parquet(path, compression="zstd", statistics=True)
        return checked

    @classmethod
    def write_batches(cls, batches: Iterable[pl.DataFrame], path: Path, group_rows: int | None = None) -> None:
        """Validate and write rows batch by batch, holding one row group; where ids are unique, see to it before.

        The same rows in the same batches make the same bytes, those of `write` up to a row group. Without `group_rows`,
        a row group has as many as polars thinks best. Faults are those of `write`.
        """
        from polars.io.plugins import register_io_source

        def source(*_: object) -> Iterator[pl.DataFrame]:
            for rows in batches:
                yield cls._checked(rows, path.name)

        path.parent.mkdir(parents=True, exist_ok=True)
        lazy = register_io_source(source, schema=cls.empty().schema)
        lazy.sink_parquet(path, compression="zstd", statistics=True, row_group_size=group_rows)

    @classmethod
    def _checked(cls, rows: pl.DataFrame, name: str) -> pl.DataFrame:
        """Return the table's columns, once each row has been checked."""
        try:
            columns, checked = cls.columns(), cls.validate(rows, lazy=True)
            return checked.select(*columns, pl.exclude(columns))
        except SchemaErrors as error:
            counted = error.failure_cases.group_by("column", "check").len().sort("len", descending=True)
            faults = [f"column {row['column']}: {row['check']}: {row['len']} failing" for row in counted[:5].to_dicts()]
            raise AttuneError(f"{name} would break its contract:\n  " + "\n  ".join(faults)) from None

    @classmethod
    def read(cls, path: Path) -> pl.DataFrame:
        """Read a table that an earlier stage wrote (and validated)."""
        return pl.read_parquet(path)

    @classmethod
    def columns(cls) -> list[str]:
        """Return the names of the columns, in order."""
        return list(cls.to_schema().columns)

    @classmethod
    def empty(cls) -> pl.DataFrame:
        """Return the table with no rows."""
        return pl.DataFrame(schema={name: column.dtype.type for name, column in cls.to_schema().columns.items()})


class RawRecords(Table):
    """Rows as the sources give them, columns renamed, labels mapped; nothing repaired yet."""

    id: str = pa.Field(unique=True, description="Hash of the row's content; '.2' and so on for repeats.")
    text: str = pa.Field(nullable=True)
    text_pair: str = pa.Field(nullable=True)
    label: str = pa.Field(nullable=True)
    group: str = pa.Field(nullable=True, description="Rows of one group stay in one split.")
    split: str = pa.Field(nullable=True, isin=SPLITS, description="The official split, if there is one.")
    timestamp: str = pa.Field(nullable=True, description="Date or time as the source gives it.")
    source: str = pa.Field(description="Where the row came from.")
    extra: str = pa.Field(nullable=True, description="Further columns as a JSON object of texts.")


class TrainableRecords(Table):
    """What training needs of the raw records. Never written: `reports/validation/raw.json` says how far they are."""

    id: str = pa.Field(unique=True)
    text: str
    label: str
    source: str

    @pa.check("text", "label", name="not_blank")
    @classmethod
    def _not_blank(cls, data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).str.contains(r"\S"))

    @pa.check("text", name="no_lost_characters")
    @classmethod
    def _no_lost_characters(cls, data: PolarsData) -> pl.LazyFrame:
        """U+FFFD stands where an earlier program could not read a character; no repair brings it back."""
        return data.lazyframe.select(~pl.col(data.key).str.contains("\ufffd", literal=True))


class CleanRecords(Table):
    """Readable, labelled, deduplicated rows of one split."""

    id: str = pa.Field(unique=True)
    text: str = pa.Field(str_length={"min_value": 1})
    text_pair: str = pa.Field(nullable=True)
    label: str = pa.Field(str_length={"min_value": 1})
    group: str = pa.Field(nullable=True)
    timestamp: str = pa.Field(nullable=True)
    fold: pl.Int16 = pa.Field(
        nullable=True, ge=0, description="Fold for cross-validation; null in test, or if unasked."
    )
    source: str
    extra: str = pa.Field(nullable=True)

    @classmethod
    def read_tokenized(cls, path: Path, rejected: Path) -> pl.DataFrame:
        """Read the rows of a split that became token ids: not those that tokenize rejected."""
        return cls.read(path).join(Rejected.read(rejected), on="id", how="anti", maintain_order="left")


class AugmentedRecords(CleanRecords):
    """Training rows: the clean ones, then the new ones with their parent and method."""

    parent: str = pa.Field(nullable=True, description="`id` of the row this one was made from; null for originals.")
    method: str = pa.Field(nullable=True, description="How it was made; null for originals.")


class Rejected(Table):
    """Rows that a stage kept out, each with the rule and the reason."""

    id: str
    stage: str
    rule: str
    reason: str
    text: str = pa.Field(nullable=True)
    label: str = pa.Field(nullable=True)
    source: str
    extra: str = pa.Field(nullable=True)

    @classmethod
    def of(cls, rows: pl.DataFrame, stage: str, rule: pl.Expr | str, reason: pl.Expr | str) -> pl.DataFrame:
        """Make the table out of records that a rule kept out."""
        why = {
            name: pl.lit(text) if isinstance(text, str) else text for name, text in (("rule", rule), ("reason", reason))
        }
        return rows.with_columns(stage=pl.lit(stage), **why).select(cls.columns())


class Decontamination(Table):
    """Texts that no record may equal or nearly equal: benchmarks and test sets of the user's own."""

    text: str = pa.Field(nullable=True)
    source: str


class Retention(Decontamination):
    """General texts that a language model should find no less likely after its training than before."""


class Suspects(Table):
    """Rows whose label looks wrong, by confidence."""

    id: str = pa.Field(unique=True)
    split: str = pa.Field(isin=SPLITS)
    text: str
    label: str = pa.Field(description="The label the row has.")
    suggested: str = pa.Field(description="The label that the classifier would give it.")
    confidence: pl.Float64 = pa.Field(ge=0.0, le=1.0, description="Probability of the suggested label.")
    source: str


class TokenizedRecords(Table):
    """Token ids of one split; no padding. `token_type_ids` distinguish the two texts of a pair.

    `labels` are what the task learns: class numbers, or numbers, or for sets of labels a share of each label; of a
    language model's tokens, which are learnt (1) and which are not (0).
    """

    id: str = pa.Field(unique=True)
    input_ids: pl.List(pl.Int32)  # type: ignore[valid-type]
    token_type_ids: pl.List(pl.Int8)  # type: ignore[valid-type]
    labels: pl.Int64 = pa.Field(ge=0)
    length: pl.Int32 = pa.Field(ge=1, description="Tokens kept.")
    truncated: pl.Int32 = pa.Field(ge=0, description="Tokens cut off.")

    @classmethod
    def _checked(cls, rows: pl.DataFrame, name: str) -> pl.DataFrame:
        kinds: dict[object, type[Table]] = {pl.Float64: _TokenizedNumbers, pl.List: _TokenizedSets}
        kind = kinds.get(rows.schema["labels"].base_type(), TokenizedRecords)
        return super(TokenizedRecords, kind)._checked(rows.cast(kind.empty().schema), name)  # type: ignore[misc]


class _TokenizedNumbers(TokenizedRecords):
    labels: pl.Float64  # type: ignore[assignment]

    @pa.check("labels", name="finite")
    @classmethod
    def _finite(cls, data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).is_finite())


class _TokenizedSets(TokenizedRecords):
    labels: pl.List(pl.Float32)  # type: ignore[valid-type]

    @pa.check("labels", name="of_0_to_1")
    @classmethod
    def _of_0_to_1(cls, data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).list.eval(pl.element().is_between(0.0, 1.0)).list.all())


class Predictions(Table):
    """What the model says of each test row; columns of the task follow, such as the probability of each label."""

    class Config:
        strict = False

    id: str = pa.Field(unique=True)
    label: str
    prediction: str
    confidence: pl.Float64 = pa.Field(nullable=True, ge=0.0, le=1.0, description="Probability of the prediction.")
    abstained: bool = pa.Field(description="Less sure than is asked for.")
    label_quality: pl.Float64 = pa.Field(
        ge=0.0, le=1.0, description="How well the label fits what the model says of the row: low, and it may be wrong."
    )


class BehaviourCases(Table):
    """Every case of every behavioural test, and what came of it."""

    test: str = pa.Field(description="Name of the test.")
    kind: str = pa.Field(isin=("invariance", "minimum", "direction"))
    text: str
    before: str = pa.Field(nullable=True, description="The text without the change; null for a minimum test.")
    expected: str = pa.Field(
        nullable=True, description="The label to be predicted, or the one whose probability has to move."
    )
    prediction: str
    score: pl.Float64 = pa.Field(description="Probability of `expected` after the change, or the value.")
    score_before: pl.Float64 = pa.Field(nullable=True)
    passed: bool
