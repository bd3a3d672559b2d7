"""Ways to make a new text out of one. A new one is a function here, a line below and a section in the params."""

from stages.augment.back_translation import back_translation
from stages.augment.contextual import contextual
from stages.augment.simple import Method, over_words, punctuation_insertion, random_deletion, random_swap
from stages.augment.synonyms import synonyms

# In the order in which they are applied: of two equal new texts, that of the earlier method stays.
METHODS: dict[str, Method] = {
    "random_deletion": over_words(random_deletion),
    "random_swap": over_words(random_swap),
    "punctuation_insertion": over_words(punctuation_insertion),
    "synonyms": synonyms,
    "contextual": contextual,
    "back_translation": back_translation,
}
