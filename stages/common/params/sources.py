"""The `ingest` section: where the records come from, and what is brought in with them."""

from codecs import lookup
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, field_serializer

from stages.common.params.base import Faults, Section, key, spelled
from stages.common.params.folders import BaseModelSource, Place, Resources
from stages.common.params.places import (
    Distribution,
    HubRepository,
    InboxPath,
    Member,
    Revision,
    Select,
    Sha256,
    Url,
    Variable,
    Wheel,
    is_archive,
    split_at_archive,
    without_secrets,
)
from stages.common.readers.streams import COMPRESSIONS, ENDINGS

FILES = ("path", "url", "hub", "wheel", "package")  # kinds that are files
Format = Literal["csv", "tsv", "jsonl", "parquet", "lines"]
Separator = Annotated[str, spelled('[^"\r\n]', "must not be a quote or a line end, which a CSV file uses otherwise")]


def _codec(name: str) -> str:
    try:
        "a".encode(name)  # Python also knows rot13, base64 and the like, which are no encodings of text
        return lookup(name).name
    except (LookupError, UnicodeError):
        raise ValueError("is no text encoding Python knows; try utf-8, latin-1, cp1252 or gb18030") from None


class TextColumn(Section):
    """Which column of the source holds the text."""

    text: str | None = key(None, "Column that holds the text (not needed for plain lines).")


class Columns(TextColumn):
    """Which column of the source feeds which column of a record."""

    text_pair: str | None = key(None, "Column with a second text, for tasks on pairs.")
    label: str | None = key(None, "Column that holds the label.")
    group: str | None = key(None, "Rows with the same value stay together in one split.")
    split: str | None = key(None, "Column with an official split: train, validation or test.")
    timestamp: str | None = key(None, "Column with a date or time, for clean.split.by: time.")
    extra: list[str] = key([], "Further columns to carry along, for evaluate.slices.columns.")

    def _faults(self) -> Faults:
        if len(set(self.extra)) < len(self.extra):
            yield "extra", "names a column twice"


class TextSource(Place):
    """One place texts are read from, as data: nothing in it is ever imported or run."""

    path: InboxPath | None = key(None, "A file of your own below data/inbox/.")
    url: Url | None = key(None, "A file at an address: https://, http://, s3://, gs:// or az://.")
    hub: HubRepository | None = key(None, "A data set of the Hugging Face Hub, as owner/name.")
    revision: Revision | None = key(None, "Commit (40 hex digits) or tag of the hub's repository.")
    sql: Variable | None = key(
        None, "Name of the environment variable that holds a database's address (SQLAlchemy URL)."
    )
    query: Select | None = key(None, "One SELECT, for sql; its columns are the columns.")
    wheel: Wheel | None = key(None, "NAME==VERSION of a wheel on the package index, never installed.")
    package: Distribution | None = key(None, "Name of an installed package to read a file of, without importing it.")
    member: Member | None = key(
        None, "File inside the wheel, package, hub repository or archive; inside an archive * and ? match names."
    )
    sha256: Sha256 | None = key(None, "Expected SHA-256 of the file as stored (before decompression).")
    etag: str | None = key(None, "Expected ETag of a url.", min_length=1, max_length=200)
    format: Format | None = key(None, "File format; by default told from the file's ending.")
    encoding: Annotated[str, AfterValidator(_codec)] = key(
        "utf-8", "Text encoding of the file, such as utf-8, latin-1, cp1252 or gb18030."
    )
    separator: Separator = key(",", "Column separator of a CSV file.", min_length=1, max_length=1)
    columns: TextColumn = key(TextColumn(), "Where the text comes from.")

    kinds = (*FILES, "sql")
    needs: ClassVar = {"revision": ("hub",), "query": ("sql",), "member": ("wheel", "package", "hub")}
    takes: ClassVar = needs | {"etag": ("url",), "member": FILES, "sha256": FILES, "format": FILES}

    def _faults(self) -> Faults:
        if faults := [*super()._faults()]:
            yield from faults
        elif is_archive(self.stored) and not self.inside:
            yield (), f"{self.stored} is an archive: member has to name the file inside it"
        elif self.inside and not is_archive(self.stored):
            yield "member", f"{self.kind} takes none: it is no archive"
        elif self.inside and (is_archive(self.inside) or split_at_archive(self.inside)[1]):
            yield "member", "is an archive inside an archive, which is not read: unpack the outer one"
        elif self.file_format == "lines" and self.columns != type(self.columns)():
            yield "columns", "plain lines have none: leave it out"
        elif self.file_format != "lines" and not self.columns.text:
            yield (), "needs columns.text: the column that holds the text"

    @field_serializer("url", when_used="json")
    def _without_secrets(self, url: str | None) -> str | None:
        return without_secrets(url) if url else url  # params are dumped into reports and MLflow

    @property
    def stored(self) -> str:
        """The path of the file as its place stores it, which may be an archive; "" for a query."""
        if self.url:
            return unquote(urlsplit(self.url).path)
        return self.path or split_at_archive(self.member or "")[0]

    @property
    def inside(self) -> str | None:
        """The file, or pattern of files, to read inside of an archive."""
        return self.member if self.path or self.url else split_at_archive(self.member or "")[1]

    @property
    def compression(self) -> str | None:
        """`.gz`, `.bz2`, `.xz`, `.zst` or None, from the file's ending."""
        suffix = PurePosixPath(self.inside or self.stored).suffix.lower()
        return suffix if suffix in COMPRESSIONS else None

    @property
    def file_format(self) -> str:
        """The format asked for, or the one the file's ending tells; `sql` for a query.

        Raises:
            ValueError: if the ending is unknown and no format was given.
        """
        if self.sql or self.format:
            return self.format or "sql"
        path = PurePosixPath(self.inside or self.stored)
        suffix = PurePosixPath(path.stem).suffix if self.compression else path.suffix
        if suffix.lower() not in ENDINGS:
            known = ", ".join(ENDINGS)
            raise ValueError(f"cannot tell the format of {path.name!r} (known: {known}): add format: csv, say")
        return ENDINGS[suffix.lower()]


class Source(TextSource):
    """One place records are read from, as data: nothing in it is ever imported or run."""

    columns: Columns = key(Columns(), "Where each column of a record comes from.")
    label: str | None = key(None, "One label for every row, instead of columns.label.")

    def _faults(self) -> Faults:
        yield from super()._faults()
        if (self.label is None) == (self.columns.label is None):
            yield (), "needs either columns.label (a column) or label (one label for every row)"


class IngestParams(Section):
    """Where records and base model come from; the only stage that may use the network."""

    sources: list[Source] = Field(min_length=1, description="One or more places of records, read in this order.")
    labels: dict[str | int | bool, str] | None = key(
        None, "Raw label → label; rows with any other label are rejected. Left out: labels as they stand."
    )
    limit: int | None = key(
        None, "Keep at most this many rows, drawn at random, for a quick trial.", ge=1, le=1_000_000_000
    )
    max_download_mb: int = key(2048, "Largest download of one source in MiB; more is an error.", ge=1, le=1_000_000)
    max_expanded_mb: int = key(8192, "Most MiB that one source may expand to when it is unpacked.", ge=1, le=1_000_000)
    decontaminate_against: list[TextSource] = key(
        [], "Texts that no record may equal or nearly equal: benchmarks, test sets of your own."
    )
    resources: Resources = key(Resources(), "Dictionaries and models that augment uses.")
    base_model: BaseModelSource = Field(description="The pretrained model to fine-tune.")

    def _faults(self) -> Faults:
        for number, source in enumerate(self.sources, start=1):
            if (first := self.sources.index(source) + 1) < number:
                yield "sources", f"entries {first} and {number} are the same: each row would count twice"
        texts = [text for raw in self.labels or {} for text in _as_in_files(raw)]
        if len(set(texts)) < len(texts):
            yield "labels", "a label is there twice, once as text and once not: delete one"

    @property
    def unpinned(self) -> list[str]:
        """Origins of what may hold something else tomorrow: databases, and addresses without a pin."""
        read: list[TextSource] = [*self.sources, *self.decontaminate_against]
        return [source.origin for source in read if source.sql or (source.url and not (source.sha256 or source.etag))]

    @property
    def label_map(self) -> dict[str, str] | None:
        """`labels` with every key as the text it has in a file."""
        if self.labels is None:
            return None
        return {text: label for raw, label in self.labels.items() for text in _as_in_files(raw)}


def _as_in_files(raw: str | int | bool) -> tuple[str, ...]:
    """The texts that a key of `labels` has in files: pandas writes `True` into a CSV file, JSON has `true`."""
    return (str(raw).lower(), str(raw)) if isinstance(raw, bool) else (str(raw),)
