"""AEDA (Karimi et al. 2021): punctuation between the words, all of which stay."""

import random

MARKS = (".", ";", "?", ":", "!", ",")  # those of the paper


def punctuation_insertion(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Put marks before 1 to `probability * len(words)` random words."""
    count = rng.randint(1, max(1, round(probability * len(words))))
    places = set(rng.sample(range(len(words)), min(count, len(words))))
    return [
        piece for at, word in enumerate(words) for piece in ((rng.choice(MARKS), word) if at in places else (word,))
    ]
