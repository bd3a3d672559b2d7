"""EDA random deletion (Wei & Zou 2019)."""

import random


def random_deletion(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Delete each word with the given probability, never all of them."""
    kept = [word for word in words if rng.random() >= probability]
    return kept or [rng.choice(words)]
