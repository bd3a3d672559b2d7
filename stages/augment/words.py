"""The words of a text: which of them may be replaced, and the methods that need nothing else (EDA and AEDA)."""

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

Resource = Callable[[str], Path]  # from "wordnet", say, to the folder of a dictionary or model that `ingest` brought in
# From texts (all at once, so that models work on batches), a seed for each text, the method's section of the params and
# the resources, to a new text for each: itself where the method can do nothing with it. AttuneError if a resource is
# missing or unsuitable.
Method = Callable[[Sequence[str], Sequence[str], Any, Resource], list[str]]

MARKS = (".", ";", "?", ":", "!", ",")  # those of the AEDA paper
NEGATIONS = (
    "no not never none nor neither nobody nothing nowhere cannot without hardly barely scarcely rarely seldom "
    "不 没 沒 无 無 未 非 别 別 莫 勿"
)
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion once "
    "twice first second third fourth fifth sixth seventh eighth ninth tenth half dozen "
    "零 一 二 两 三 四 五 六 七 八 九 十 百 千 万 亿"
)
LATIN = r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỿＡ-Ｚａ-ｚ]"
UNIT = re.compile(rf"\d+(?:[.,:]\d+)*|{LATIN}+(?:['’]{LATIN}+)*|.", re.DOTALL)


def split(text: str) -> tuple[list[str], str]:
    """Return the words of a text and the separator between them: `separator.join(words)` is the text again.

    A text with spaces is split at them; one without (Chinese, Japanese, Thai) into characters, with Latin words and
    numbers in one piece.
    """
    separator = " " if " " in text else ""
    return (text.split(" ") if separator else UNIT.findall(text)), separator


def replaceable_words(words: Sequence[str]) -> dict[int, tuple[str, str, str]]:
    """Return, by position, the words that may be replaced, as marks before, word and marks after: `"`, `great`, `,`."""
    cores = {}
    for position, word in enumerate(words):
        before, inner, after = re.fullmatch(r"(\W*)(.*?)(\W*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
        if replaceable(inner):
            cores[position] = (before, inner, after)
    return cores


def replaceable(word: str) -> bool:
    """Whether a word without marks may be replaced by another.

    Numbers, negations, English stop words, single letters and all words with a capital (names, and the first word of a
    sentence, which may be one) stay as they are.
    """
    return word.isalpha() and word == word.lower() and (len(word) > 1 or not word.isascii()) and word not in _fixed()


@cache
def _fixed() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS).union(NEGATIONS.split(), NUMBERS.split())


def over_words(change: Callable[[list[str], float, random.Random], list[str]]) -> Method:
    """Make a method out of a function that takes words, a probability and a generator, and returns words."""

    def rewrite(texts: Sequence[str], seeds: Sequence[str], settings: Any, resource: Resource) -> list[str]:
        rewritten = []
        for text, seed in zip(texts, seeds, strict=True):
            words, separator = split(text)
            rewritten.append(separator.join(change(words, settings.probability, random.Random(seed))))
        return rewritten

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
            first, second = rng.sample(range(len(words)), 2)
            swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped


def punctuation_insertion(words: list[str], probability: float, rng: random.Random) -> list[str]:
    """Put marks before 1 to `probability * len(words)` random words, all of which stay (AEDA, Karimi et al. 2021)."""
    count = rng.randint(1, max(1, round(probability * len(words))))
    chosen = set(rng.sample(range(len(words)), min(count, len(words))))
    pieces = [(rng.choice(MARKS), word) if index in chosen else (word,) for index, word in enumerate(words)]
    return [piece for pair in pieces for piece in pair]
