"""What is to be predicted, with what, and where to; and the columns of the input that this needs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.readers.databases import QueryRows
from stages.common.readers.streams import COMPRESSIONS, ENDINGS, Layout
from stages.common.readers.table import Table
from stages.common.readers.tables import open_table
from stages.common.serving.classifier import Variant
from stages.common.shown import listed

DATABASE = "sql:"  # before the name of an environment variable
MOST_ROWS = 1_000_000  # of a chunk
NAMED = 12  # columns that a message lists


@dataclass(frozen=True)
class Request:
    """The options of the command line; docs/prediction.md says what they mean.

    Raises:
        AttuneError: if they make no sense.
    """

    input: str
    output: Path
    model: str | None = None
    variant: Variant | None = None
    text: str = "text"
    text_pair: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()
    keep_all: bool = False
    separator: str = ","
    table: str | None = None
    query: str | None = None
    threshold: float | None = None
    batch_rows: int = 2_048
    report: Path | None = None

    def __post_init__(self) -> None:
        if self.table and self.query:
            raise AttuneError("--table and --query are both given", "leave one of them out")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise AttuneError(f"--threshold is {self.threshold}", "write a probability, from 0 to 1")
        if not 1 <= self.batch_rows <= MOST_ROWS:
            raise AttuneError(f"--batch-rows is {self.batch_rows}", f"write a number from 1 to {MOST_ROWS:,}")
        if len(self.separator) != 1:
            raise AttuneError(f"--separator is {self.separator!r}", "write one character")

    @property
    def report_path(self) -> Path:
        """Where the report goes."""
        return self.report or self.output.with_name(f"{self.output.name}.drift.json")

    @contextmanager
    def open_input(self) -> Iterator[Table]:
        """Open the file, or the database as `sql:VARIABLE`.

        Raises:
            AttuneError: if it is not there or not readable; later, if a row is damaged, with its line.
        """
        if self.input.startswith(DATABASE):
            yield QueryRows(self.input.removeprefix(DATABASE), self._select(), self.input, self.batch_rows)
            return
        path = Path(self.input)
        *_, last = [suffix.lower() for suffix in path.suffixes] or [""]
        compression = last if last in COMPRESSIONS else None
        kind = ENDINGS.get(Path(path.stem).suffix.lower() if compression else last)
        if kind is None or kind == "lines":
            raise AttuneError(
                f"{self.input}: the name tells no format",
                "name a file that ends in .csv, .tsv, .jsonl, .ndjson or .parquet (and then "
                f"{', '.join(COMPRESSIONS)}, if it is compressed), or a database as {DATABASE}VARIABLE",
            )
        if not path.is_file():
            what = "no file" if path.exists() else "missing"
            raise AttuneError(f"{self.input} is {what}", "name a file with one row a text")
        layout = Layout(kind, compression, separator=self.separator)
        with open_table(path, self.input, layout, texts=False) as table:
            yield table

    def _select(self) -> str:
        if self.query:
            return checked_query(self.query)
        if not self.table:
            raise AttuneError(
                f"{self.input} is a database", "say what to read of it: --table NAME, or --query 'SELECT …'"
            )
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", self.table):
            raise AttuneError(
                f"--table {self.table!r} is no plain name", "write it as the database wants it: --query 'SELECT …'"
            )
        return f"SELECT * FROM {self.table}"  # noqa: S608, a name alone


@dataclass(frozen=True)
class Columns:
    """Which columns of the input are what.

    Args:
        text, text_pair, id: column of each; without id, rows are numbered.
        kept: columns to copy, each once.
    """

    text: str
    text_pair: str | None
    id: str | None
    kept: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        return list(dict.fromkeys(name for name in (self.text, self.text_pair, self.id, *self.kept) if name))

    @classmethod
    def of(cls, request: Request, table: Table) -> "Columns":
        """Return what a request means of a table; of all columns, that of the ids is not kept: the output has it.

        Raises:
            AttuneError: if a column is not there, or nobody can tell which all columns are.
        """
        kept = dict.fromkeys(request.keep)
        if request.keep_all:
            if not table.fixed:
                raise AttuneError(
                    f"{table.origin}: rows of JSON lines need not have the same keys, so --keep-all cannot tell which",
                    "name them: --keep KEY --keep OTHER",
                )
            kept = dict.fromkeys(name for name in table.columns if name != request.id or name in request.keep)
        text = request.text
        if text == Request.text and table.fixed and text not in table.columns:
            text = _text_of_params(table.columns) or text
        columns = cls(text, request.text_pair, request.id, tuple(kept))
        if table.fixed:
            columns.check(table)
        return columns

    def check(self, table: Table) -> None:
        """Raise an AttuneError if one of the columns is not there."""
        known = set(table.columns)
        if missing := [name for name in self.names if name not in known]:
            there = listed([repr(name)[:40] for name in table.columns], NAMED) or "none"
            raise AttuneError(
                f"{table.origin} has no column {missing[0]!r}; it has {there}",
                "name the columns with --text, --text-pair, --id and --keep",
            )


def _text_of_params(columns: list[str]) -> str | None:
    """Return which of these columns held the texts that params.yaml trains with, if it has one source with columns."""
    from stages.common.params import load_params

    try:
        sources = load_params().ingest.sources
    except (AttuneError, OSError):
        return None
    name = sources[0].columns.text if len(sources) == 1 else None
    return name if name in columns else None


def checked_query(query: str) -> str:
    """Return a query that is one SELECT.

    Raises:
        AttuneError: if it is not.
    """
    from pydantic import TypeAdapter, ValidationError

    from stages.common.params.places import Select

    try:
        return str(TypeAdapter(Select).validate_python(query))
    except ValidationError as error:
        raise AttuneError(f"--query {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
