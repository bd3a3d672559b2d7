"""Ways to make a new text out of one. Each takes the words and a generator and returns new words.

A text with spaces is split at them; one without (Chinese, Japanese, Thai) into characters.
"""

import random
from collections.abc import Callable

Method = Callable[[list[str], float, random.Random], list[str]]

MARKS = (".", ";", "?", ":", "!", ",")  # the marks of AEDA


def random_deletion(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Delete each word with the given probability, never all of them (EDA; Wei & Zou 2019)."""
    kept = [word for word in words if rng.random() >= probability]
    return kept or [rng.choice(words)]


def random_swap(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Swap `probability * len(words)` random pairs of words, at least one (EDA; Wei & Zou 2019)."""
    swapped = list(words)
    if len(words) > 1:
        for _ in range(max(1, round(probability * len(words)))):
            one, other = rng.sample(range(len(words)), 2)
            swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped


def punctuation_insertion(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Put marks before 1 to `probability * len(words)` random words (AEDA; Karimi et al. 2021)."""
    count = rng.randint(1, max(1, round(probability * len(words))))
    places = set(rng.sample(range(len(words)), min(count, len(words))))
    return [
        piece for at, word in enumerate(words) for piece in ((rng.choice(MARKS), word) if at in places else (word,))
    ]


METHODS: dict[str, Method] = {
    "random_deletion": random_deletion,
    "random_swap": random_swap,
    "punctuation_insertion": punctuation_insertion,
}


def rewrite(text: str, method: str, probability: float, rng: random.Random) -> str:
    """Return a new text made from `text` by the named method."""
    joint = " " if " " in text else ""
    return joint.join(METHODS[method](text.split(" ") if joint else list(text), probability, rng))
