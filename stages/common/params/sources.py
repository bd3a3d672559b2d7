"""The `ingest` section: where the records come from, and what is brought in with them."""

from codecs import lookup
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, field_serializer, model_validator

from stages.common.params.base import Section
from stages.common.params.folders import BaseModelSource, FolderSource, Resources, Scratch, exactly_one_kind
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

__all__ = ["BaseModelSource", "Columns", "FolderSource", "IngestParams", "Resources", "Scratch", "Source", "TextSource"]

Format = Literal["csv", "tsv", "jsonl", "parquet", "lines"]


def _separating(mark: str) -> str:
    if mark in '"\r\n':
        raise ValueError("must not be a quote or a line end, which mean something else in a CSV file")
    return mark


def _codec(name: str) -> str:
    try:
        "a".encode(name)  # Python also knows rot13, base64 and the like, which are no encodings of text
        return lookup(name).name
    except (LookupError, UnicodeError):
        raise ValueError("is no text encoding Python knows; try utf-8, latin-1, cp1252 or gb18030") from None


class TextColumn(Section):
    """Which column of the source holds the text."""

    text: str | None = Field(None, description="Column that holds the text (not needed for plain lines).")


class Columns(TextColumn):
    """Which column of the source feeds which column of a record."""

    text_pair: str | None = Field(None, description="Column with a second text, for tasks on pairs.")
    label: str | None = Field(None, description="Column that holds the label.")
    group: str | None = Field(None, description="Rows with the same value stay together in one split.")
    split: str | None = Field(None, description="Column with an official split: train, validation or test.")
    timestamp: str | None = Field(None, description="Column with a date or time, for clean.split.by: time.")
    extra: list[str] = Field([], description="Further columns to carry along, for evaluate.slices.columns.")

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name in self.extra:
            if self.extra.count(name) > 1:
                raise ValueError(f"extra names {name!r} twice")
        return self


class TextSource(Section):
    """One place texts are read from, as data: nothing in it is ever imported or run."""

    path: InboxPath | None = Field(None, description="A file of your own below data/inbox/.")
    url: Url | None = Field(None, description="A file at an address: https://, http://, s3://, gs:// or az://.")
    hub: HubRepository | None = Field(None, description="A data set of the Hugging Face Hub, as owner/name.")
    revision: Revision | None = Field(None, description="Commit (40 hex digits) or tag of the hub's repository.")
    sql: Variable | None = Field(
        None, description="Name of the environment variable that holds a database's address (SQLAlchemy URL)."
    )
    query: Select | None = Field(None, description="One SELECT, for sql; its columns are the columns.")
    wheel: Wheel | None = Field(None, description="NAME==VERSION of a wheel on the package index, never installed.")
    package: Distribution | None = Field(
        None, description="Name of an installed package to read a file of, without importing it."
    )
    member: Member | None = Field(
        None,
        description="File inside the wheel, package, hub repository or archive; inside an archive * and ? match names.",
    )
    sha256: Sha256 | None = Field(None, description="Expected SHA-256 of the file as stored (before decompression).")
    etag: str | None = Field(None, min_length=1, max_length=200, description="Expected ETag of a url.")
    format: Format | None = Field(None, description="File format; by default told from the file's ending.")
    encoding: Annotated[str, AfterValidator(_codec)] = Field(
        "utf-8", description="Text encoding of the file, such as utf-8, latin-1, cp1252 or gb18030."
    )
    separator: Annotated[str, AfterValidator(_separating)] = Field(
        ",", min_length=1, max_length=1, description="Column separator of a CSV file."
    )
    columns: TextColumn = Field(TextColumn(), description="Where the text comes from.")

    kinds: ClassVar[tuple[str, ...]] = ("path", "url", "hub", "sql", "wheel", "package")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = exactly_one_kind(self, self.kinds)
        for key, wanted, why in (
            ("revision", "hub", "a commit or a tag"),
            ("query", "sql", "the SELECT to run"),
        ):
            if (kind == wanted) != bool(getattr(self, key)):
                raise ValueError(f"{kind} needs a {key}: {why}" if kind == wanted else f"{kind} takes no {key}")
        self._check_member()
        if self.etag and kind != "url":
            raise ValueError(f"{kind} takes no etag")
        for key in ("sha256", "format", "encoding", "separator"):
            if kind == "sql" and key in self.model_fields_set:
                raise ValueError(f"sql takes no {key}")
        if self.file_format == "lines":
            if self.columns != type(self.columns)():
                raise ValueError("plain lines have no columns: leave columns out")
        elif not self.columns.text:
            raise ValueError("needs columns.text: the column that holds the text")
        return self

    def _check_member(self) -> None:
        kind, archive = self.kind, is_archive(self.stored)
        if kind in ("wheel", "package", "hub"):
            if not self.member:
                raise ValueError(f"{kind} needs a member: the file inside it")
            if archive and not self.inside:
                raise ValueError(f"member is an archive: name the file inside it too, as {self.member}/reviews.csv")
        elif kind != "sql" and archive and not self.member:
            raise ValueError(f"{kind} names an archive and needs a member: the file inside it")
        elif self.member and not archive:
            raise ValueError(f"{kind} takes no member" + (": it is no archive" if kind != "sql" else ""))
        if self.inside and (is_archive(self.inside) or split_at_archive(self.inside)[1]):
            raise ValueError("member is an archive inside an archive, which is not read: unpack the outer one")

    @field_serializer("url", when_used="json")
    def _without_secrets(self, url: str | None) -> str | None:
        return without_secrets(url) if url else url  # params are dumped into reports and MLflow

    @property
    def kind(self) -> str:
        """`path`, `url`, `hub`, `sql`, `wheel` or `package`."""
        return exactly_one_kind(self, self.kinds)

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
    def origin(self) -> str:
        """A short, machine-independent name without secrets, for messages and the `source` column."""
        match self.kind:
            case "sql":
                return f"sql:{self.sql}"
            case "hub":
                place = f"{self.hub}@{self.revision}"
            case "url":
                place = without_secrets(self.url or "")
            case _:
                place = self.path or self.wheel or self.package or ""
        return f"{place}:{self.member}" if self.member else place

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

    columns: Columns = Field(Columns(), description="Where each column of a record comes from.")
    label: str | None = Field(None, description="One label for every row, instead of columns.label.")

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        if self.label is not None and self.columns.label:
            raise ValueError("label and columns.label contradict each other: give one of them")
        if self.label is None and not self.columns.label:
            raise ValueError("needs columns.label (a column) or label (one label for every row)")
        return self


class IngestParams(Section):
    """Where records and base model come from; the only stage that may use the network."""

    sources: list[Source] = Field(min_length=1, description="One or more places of records, read in this order.")
    labels: dict[str | int | bool, str] | None = Field(
        None, description="Raw label → label; rows with any other label are rejected. Left out: labels as they stand."
    )
    limit: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Keep at most this many rows, drawn at random, for a quick trial."
    )
    max_download_mb: int = Field(
        2048, ge=1, le=1_000_000, description="Largest download of one source in MiB; more is an error."
    )
    max_expanded_mb: int = Field(
        8192, ge=1, le=1_000_000, description="Most MiB that one source may expand to when it is unpacked."
    )
    decontaminate_against: list[TextSource] = Field(
        [], description="Texts that no record may equal or nearly equal: benchmarks, test sets of your own."
    )
    resources: Resources = Field(Resources(), description="Dictionaries and models that augment uses.")
    base_model: BaseModelSource = Field(description="The pretrained model to fine-tune.")

    @model_validator(mode="after")
    def _each_source_once(self) -> Self:
        for name, sources in (("sources", self.sources), ("decontaminate_against", self.decontaminate_against)):
            _check_repeats(name, sources)
        return self

    @model_validator(mode="after")
    def _each_label_once(self) -> Self:
        keys = [key for raw in self.labels or {} for key in _as_in_files(raw)]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"labels: the label {key!r} is there twice, once as text and once not")
        return self

    @property
    def unpinned(self) -> list[str]:
        """Origins of what may hold something else tomorrow: databases, and addresses without a pin."""
        read: list[TextSource] = [*self.sources, *self.decontaminate_against]
        return [one.origin for one in read if one.sql or (one.url and not (one.sha256 or one.etag))]

    @property
    def label_map(self) -> dict[str, str] | None:
        """`labels` with every key as the text it has in a file."""
        if self.labels is None:
            return None
        return {key: label for raw, label in self.labels.items() for key in _as_in_files(raw)}


def _check_repeats(name: str, sources: Sequence[TextSource]) -> None:
    """Refuse a place that is read twice in the same way, which would count each of its rows twice."""
    seen: dict[object, int] = {}
    for number, source in enumerate(sources):
        label = source.label if isinstance(source, Source) else None
        taken = (source.columns.text, getattr(source.columns, "label", None), label)
        key = (source.kind, getattr(source, source.kind), source.revision, source.member, source.query, taken)
        if key in seen:
            raise ValueError(
                f"{name}: entries {seen[key] + 1} and {number + 1} both read {source.origin}: delete one, or tell them "
                "apart by member, query or label"
            )
        seen[key] = number


def _as_in_files(raw: str | int | bool) -> tuple[str, ...]:
    """The texts that a key of `labels` has in files: pandas writes `True` into a CSV file, JSON has `true`."""
    return (str(raw).lower(), str(raw)) if isinstance(raw, bool) else (str(raw),)
