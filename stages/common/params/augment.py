"""The `augment` section: ways to make more training rows, and what guards them."""

from typing import Literal

from stages.common.params.section import Section, Share, Similarity, key

LightMethod = Literal["random_deletion", "random_swap", "punctuation_insertion", "synonyms"]


class Method(Section):
    """A way to make new rows of training rows."""

    share: Share = key(0.0, "New rows as a share of the training rows.")


class RandomDeletion(Method):
    """EDA random deletion (Wei & Zou 2019)."""

    probability: Share = key(0.1, "Chance of each word to be deleted.")


class RandomSwap(Method):
    """EDA random swap (Wei & Zou 2019)."""

    probability: Share = key(0.1, "Swaps as a share of the words.")


class PunctuationInsertion(Method):
    """AEDA (Karimi et al. 2021)."""

    probability: Share = key(0.3, "At most this share of the words gets a mark before it.")


class Synonyms(Method):
    """EDA synonym replacement (Wei & Zou 2019) from WordNet; needs ingest.resources.wordnet."""

    probability: Share = key(0.1, "Share of the words that get a synonym, at least one, as far as WordNet has any.")


class Contextual(Method):
    """Words replaced by what a masked language model puts there (Kobayashi 2018); needs ingest.resources.masked_lm."""

    probability: Share = key(0.15, "Share of the words that are replaced, at least one.")
    top_k: int = key(10, "Words are drawn from so many of the model's likeliest.", ge=1, le=1000)
    batch_size: int = key(32, "Texts per forward pass.", ge=1, le=4096)


class BackTranslation(Method):
    """There and back through another language (Sennrich et al. 2016); needs ingest.resources.translation."""

    num_beams: int = key(4, "Beams of the search, as in transformers.GenerationConfig.", ge=1, le=32)
    max_new_tokens: int = key(128, "Longest translation in tokens.", ge=4, le=1024)
    batch_size: int = key(16, "Texts per call of the model.", ge=1, le=1024)


class Balance(Section):
    """More rows for rare labels."""

    target: Share = key(
        0.0, "Labels with fewer rows than this share of the commonest label's are filled up to it; 0: off."
    )
    method: LightMethod = key("random_swap", "How the rows that fill up are made.")


class LabelPreservation(Section):
    """A quick classifier (TF-IDF and logistic regression on train) must still find a new row's label the likeliest."""

    enabled: bool = key(True, "Drop new rows to which it gives another label.")
    min_probability: Share = key(
        0.0, "Drop those, too, whose own label gets less than this probability, though it is the likeliest."
    )


class AugmentParams(Section):
    """Extra training rows; every method is off by default: docs/augment.md says what was measured."""

    random_deletion: RandomDeletion = key(RandomDeletion(), "Delete words at random.")
    random_swap: RandomSwap = key(RandomSwap(), "Swap pairs of words at random.")
    punctuation_insertion: PunctuationInsertion = key(PunctuationInsertion(), "Insert punctuation (AEDA).")
    synonyms: Synonyms = key(Synonyms(), "Replace words by synonyms (WordNet).")
    contextual: Contextual = key(Contextual(), "Replace words by a masked language model's.")
    back_translation: BackTranslation = key(BackTranslation(), "Translate there and back.")
    balance: Balance = key(Balance(), "Fill up rare labels.")
    label_preservation: LabelPreservation = key(LabelPreservation(), "Drop new rows that lost their label.")
    leak_threshold: Similarity = key(0.8, "New rows this similar (Jaccard) to a validation or test row are dropped.")
