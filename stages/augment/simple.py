"""Methods that need nothing but the words of a text (EDA and AEDA), and what a method is."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stages.augment.words import split

MARKS = (".", ";", "?", ":", "!", ",")  # those of the AEDA paper

Resource = Callable[[str], Path]  # from "wordnet", say, to the folder of a dictionary or model that `ingest` brought in
WordFunction = Callable[[list[str], float, random.Random], list[str]]
# From texts (all at once, so that models work on batches), a seed for each of all that is drawn for it, the method's
# section of the params and the resources, to a new text for each: itself where the method can do nothing with it.
# AttuneError if a resource is missing or unsuitable.
Method = Callable[[Sequence[str], Sequence[str], Any, Resource], list[str]]


def over_words(change: WordFunction) -> Method:
    """Make a method out of a function that takes words, a probability and a generator, and returns words."""

    def rewrite(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
        made = []
        for text, seed in zip(texts, seeds, strict=True):
            words, joint = split(text)
            made.append(joint.join(change(words, settings.probability, random.Random(seed))))
        return made

    return rewrite


def random_deletion(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Delete each word with the given probability, never all of them (EDA, Wei & Zou 2019)."""
    kept = [word for word in words if rng.random() >= probability]
    return kept or [rng.choice(words)]


def random_swap(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Swap `probability * len(words)` random pairs of words, at least one (EDA, Wei & Zou 2019)."""
    swapped = list(words)
    if len(words) > 1:
        for _ in range(max(1, round(probability * len(words)))):
            one, other = rng.sample(range(len(words)), 2)
            swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped


def punctuation_insertion(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Put marks before 1 to `probability * len(words)` random words, all of which stay (AEDA, Karimi et al. 2021)."""
    count = rng.randint(1, max(1, round(probability * len(words))))
    places = set(rng.sample(range(len(words)), min(count, len(words))))
    return [
        piece for at, word in enumerate(words) for piece in ((rng.choice(MARKS), word) if at in places else (word,))
    ]
