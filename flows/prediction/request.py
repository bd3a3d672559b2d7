"""What is to be predicted, with what, and where to; how the input is opened, and what of it reaches the output."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from stages.common.display import display, listed
from stages.common.errors import AttuneError
from stages.common.params.sources import Escape, Quote
from stages.common.params.spelling import Encoding, Separator
from stages.common.readers.databases import QueryTable, select
from stages.common.readers.streams import ENDINGS, Layout, format_of
from stages.common.readers.table import LINE, Table
from stages.common.readers.tables import open_table
from stages.serving.backends import Variant

FIRST = 2_048  # rows that are read at once, before the model is known
DATABASE = "sql:"  # before the name of an environment variable


@dataclass(frozen=True)
class Request:
    """The options of the command line, as docs/prediction.md has them; an AttuneError if they make no sense."""

    input: str
    output: Path
    model: str | None = None
    variant: Variant | None = None
    text: str = ""  # none is named: see `with_text_column`
    text_pair: str | None = None
    id: str | None = None
    keep: Sequence[str] = ()
    keep_all: bool = False
    separator: Separator = ","
    quote: Quote = '"'
    escape: Escape = "none"
    header: bool = True
    skip: Annotated[int, Field(ge=0)] = 0
    encoding: Encoding = "utf-8"  # as ingest takes it, so that utf8 is the utf-8 whose byte-order mark is no matter
    query: str | None = None
    threshold: Annotated[float, Field(ge=0)] | None = None
    batch_rows: Annotated[int, Field(ge=1)] | None = None  # as many as suit the model's task

    def __post_init__(self) -> None:
        if self.output.suffix not in (".parquet", ".csv", ".jsonl"):
            raise AttuneError(f"{self.output}: the name tells no format", "it must end in .parquet, .csv or .jsonl")
        if self.output.is_dir() or any(folder.is_file() for folder in self.output.parents):
            there = f"a {'folder of this name' if self.output.is_dir() else 'file in place of its folder'}"
            raise AttuneError(f"{self.output} cannot be written: there is {there}", "name another output")
        if Path(self.input).resolve() == self.output.resolve():
            raise AttuneError("input and output are the same file", "name another output")

    @classmethod
    def checked(cls, **options: Any) -> "Request":
        """Return a request of these options; an AttuneError that names the first one that cannot be."""
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            option, value = str(first["loc"][0]).replace("_", "-"), first["input"]
            what = first["msg"].removeprefix("Value error, ")
            raise AttuneError(f"--{option} {value!r}: {what}", "docs/prediction.md says what it may be") from None

    @property
    def report(self) -> Path:
        """Where the drift report goes."""
        return self.output.with_name(f"{self.output.name}.drift.json")

    @contextmanager
    def open_input(self) -> Iterator[Table]:
        """Open the file, or the database as `sql:VARIABLE`.

        Raises:
            AttuneError: if it is not there or not readable; later, if a row is damaged, with its line.
        """
        if self.input.startswith(DATABASE):
            if not self.query:
                raise AttuneError(f"{self.input} is a database", "say what to read of it: --query 'SELECT …'")
            variable = self.input.removeprefix(DATABASE)
            yield QueryTable(self.input, select(variable, self.query, self.input, self.batch_rows or FIRST))
            return
        path = Path(self.input)
        kind = format_of(path.name)
        if kind is None:
            fix = f"name {', '.join(ENDINGS)} (or that and .gz, .bz2, .xz, .zst), or a database as sql:VARIABLE"
            raise AttuneError(f"{path}: the name tells no format", fix)
        if not path.is_file():
            raise AttuneError(f"{path} is {'no file' if path.exists() else 'missing'}", "name a file with a row a text")
        dialect = self.separator, self.quote, self.escape, self.header, self.skip
        layout = Layout(kind, self.encoding, *dialect)
        with open_table(path, self.input, layout, texts=False) as table:
            yield table

    def with_text_column(self, table: Table, trained_on: Sequence[str]) -> "Request":
        """Return a request that names the column of the texts: that of the training data, else `text`.

        What keys JSON lines have is known once rows are read, so the file is opened for that.
        """
        names = list(dict.fromkeys([*trained_on, "text"]))
        with nullcontext(table) if table.fixed else self.open_input() as looked_at:
            if not looked_at.fixed:
                next(looked_at.batches(names, self.batch_rows or FIRST))
            default = LINE if looked_at.columns == [LINE] else "text"  # the only column of plain lines
            return replace(self, text=next((name for name in names if name in looked_at.columns), default))

    def columns(self, table: Table) -> tuple[list[str], list[str]]:
        """Return the columns to read, and those to copy; all but that of the ids, which the output has, if so asked.

        Raises:
            AttuneError: if one is missing, or all are asked for of JSON lines. Their rows need not have the same keys,
                so what is missing there is known after the first rows are read.
        """
        if self.keep_all and not table.fixed:
            what = f"--keep-all cannot tell the keys of {table.origin}"
            raise AttuneError(what, "name them: --keep KEY --keep OTHER")
        kept = list(dict.fromkeys(self.keep))
        if self.keep_all:
            kept = [name for name in table.columns if name != self.id or name in self.keep]
        names = list(dict.fromkeys(filter(None, (self.text, self.text_pair, self.id, *kept))))
        missing = [name for name in names if name not in table.columns]
        if missing and (table.columns or table.fixed):
            columns = listed([repr(display(name, 40)) for name in table.columns], 12)
            fix = "name the columns with --text, --text-pair, --id and --keep"
            raise AttuneError(f"{table.origin} has no column {missing[0]!r}; it has {columns}", fix)
        return names, kept

    def rows(self, chunk: pl.DataFrame, before: int) -> pl.DataFrame:
        """Return columns id, text and text_pair, String, of a chunk; without ids, rows are numbered from `before` + 1.

        Raises:
            AttuneError: if the texts are not of type text, or ids are lists or the like.
        """
        for name in filter(None, (self.text, self.text_pair, self.id)):
            kind = chunk.schema[name]
            if kind.is_nested() or (name != self.id and kind not in (pl.String, pl.Null)):
                fix = "name columns of texts with --text and --text-pair, and one of numbers or texts with --id"
                raise AttuneError(f"{self.input}: the column {name!r} is {kind}", fix)
        numbers = range(before + 1, before + chunk.height + 1)
        rows = {
            "id": chunk[self.id] if self.id else numbers,
            "text": chunk[self.text],
            "text_pair": chunk[self.text_pair] if self.text_pair else None,
        }
        return pl.DataFrame(rows).cast(pl.String)
