"""EDA random swap (Wei & Zou 2019)."""

import random


def random_swap(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Swap `probability * len(words)` random pairs of words, at least one."""
    swapped = list(words)
    if len(words) > 1:
        for _ in range(max(1, round(probability * len(words)))):
            one, other = rng.sample(range(len(words)), 2)
            swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped
