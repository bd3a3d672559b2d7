"""The `augment` section: ways to make more training rows, and what guards them."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params.base import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
LightMethod = Literal["random_deletion", "random_swap", "punctuation_insertion", "synonyms"]


class RandomDeletion(Section):
    """EDA random deletion (Wei & Zou 2019)."""

    share: Share = Field(0.0, description="New rows as a share of the training rows.")
    probability: Share = Field(0.1, description="Chance of each word to be deleted.")


class RandomSwap(Section):
    """EDA random swap (Wei & Zou 2019)."""

    share: Share = Field(0.0, description="New rows as a share of the training rows.")
    probability: Share = Field(0.1, description="Swaps as a share of the words.")


class PunctuationInsertion(Section):
    """AEDA (Karimi et al. 2021)."""

    share: Share = Field(0.0, description="New rows as a share of the training rows.")
    probability: Share = Field(0.3, description="At most this share of the words gets a mark before it.")


class Synonyms(Section):
    """EDA synonym replacement (Wei & Zou 2019) from WordNet; needs ingest.resources.wordnet."""

    share: Share = Field(0.0, description="New rows as a share of the training rows.")
    probability: Share = Field(
        0.1, description="Share of the words that get a synonym, at least one, as far as WordNet has any."
    )


class Contextual(Section):
    """Words replaced by what a masked language model puts there (Kobayashi 2018); needs ingest.resources.masked_lm."""

    share: Share = Field(0.0, description="New rows as a share of the training rows.")
    probability: Share = Field(0.15, description="Share of the words that are replaced, at least one.")
    top_k: int = Field(10, ge=1, le=1000, description="Words are drawn from so many of the model's likeliest.")
    batch_size: int = Field(32, ge=1, le=4096, description="Texts per forward pass.")


class BackTranslation(Section):
    """There and back through another language (Sennrich et al. 2016); needs ingest.resources.translation."""

    share: Share = Field(0.0, description="New rows as a share of the training rows.")
    num_beams: int = Field(4, ge=1, le=32, description="Beams of the search, as in transformers.GenerationConfig.")
    max_new_tokens: int = Field(128, ge=4, le=1024, description="Longest translation in tokens.")
    batch_size: int = Field(16, ge=1, le=1024, description="Texts per call of the model.")


class Balance(Section):
    """More rows for rare labels."""

    target: Share = Field(
        0.0, description="Labels with fewer rows than this share of the commonest label's are filled up to it; 0: off."
    )
    method: LightMethod = Field("random_swap", description="How the rows that fill up are made.")


class LabelPreservation(Section):
    """A quick classifier (TF-IDF and logistic regression on train) must still find a new row's label the likeliest."""

    enabled: bool = Field(True, description="Drop new rows to which it gives another label.")
    min_probability: Share = Field(
        0.0, description="Drop those, too, whose own label gets less than this probability, though it is the likeliest."
    )


class AugmentParams(Section):
    """Extra training rows; every method is off by default: docs/augment.md says what was measured."""

    random_deletion: RandomDeletion = Field(RandomDeletion(), description="Delete words at random.")
    random_swap: RandomSwap = Field(RandomSwap(), description="Swap pairs of words at random.")
    punctuation_insertion: PunctuationInsertion = Field(
        PunctuationInsertion(), description="Insert punctuation (AEDA)."
    )
    synonyms: Synonyms = Field(Synonyms(), description="Replace words by synonyms (WordNet).")
    contextual: Contextual = Field(Contextual(), description="Replace words by a masked language model's.")
    back_translation: BackTranslation = Field(BackTranslation(), description="Translate there and back.")
    balance: Balance = Field(Balance(), description="Fill up rare labels.")
    label_preservation: LabelPreservation = Field(
        LabelPreservation(), description="Drop new rows that lost their label."
    )
    leak_threshold: float = Field(
        0.8, ge=0.3, le=1.0, description="New rows this similar (Jaccard) to a validation or test row are dropped."
    )
