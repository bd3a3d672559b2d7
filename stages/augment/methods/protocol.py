"""What a method is: all texts in, as many new ones out."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stages.augment.words import joined, split


@dataclass(frozen=True)
class Tools:
    """What a method may use besides the texts.

    Attributes:
        resource: gives the folder of a dictionary or model that `ingest` brought in, such as "wordnet".
        work_folder: gives a folder that outlives the run, for what is dear to make again.
    """

    resource: Callable[[str], Path]
    work_folder: Callable[[str], Path]


class Method(Protocol):
    """A way to make new texts."""

    def __call__(self, texts: Sequence[str], seeds: Sequence[str], settings: Any, tools: Tools) -> list[str]:
        """Return a new text for each text; a text that the method can do nothing with comes back as it is.

        Args:
            texts: what to rewrite, all at once, so that models work on batches.
            seeds: for each text, the seed of all that is drawn for it, so that no text depends on another.
            settings: the method's section of the params.
            tools: folders with what the method needs.

        Raises:
            AttuneError: if a resource is missing or unsuitable.
        """
        ...


WordFunction = Callable[[list[str], float, random.Random], list[str]]


def over_words(change: WordFunction) -> Method:
    """Make a method out of a function that takes words, a probability and a generator, and returns words."""

    def rewrite(texts: Sequence[str], seeds: Sequence[str], settings: Any, tools: Tools) -> list[str]:
        made = []
        for text, seed in zip(texts, seeds, strict=True):
            words, joint = split(text)
            made.append(joined(change(words, settings.probability, random.Random(seed)), joint))
        return made

    return rewrite
