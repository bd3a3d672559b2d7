"""Changes to a text that leave what it says as it was: the invariances of CheckList (Ribeiro et al. 2020)."""

from collections.abc import Callable
from functools import cache
from random import Random

import regex

from stages.common.params.evaluate import Invariance
from stages.common.text.columns import UNSPACED

# Given names that can stand for each other, one list a gender, so that `she` stays `she`. None of them is also a word
# of English (Grace, Mark, Will, Rose, Frank …), part of a well-known place (San Francisco, Santa Monica …), or a
# surname more often than a given name, so they can be found in texts without capital letters, too.
_WOMEN = """
Aisha Alice Amanda Amelia Anna Beatrice Camila Carla Catherine Christina Claudia Deborah Elena Elizabeth Emily Emma
Eva Fatima Gabriela Hannah Helen Ingrid Irene Isabella Jennifer Jessica Julia Karen Katherine Laura Linda Lisa
Margaret Maria Mariana Mary Michelle Nancy Natalie Nicole Olivia Patricia Priya Rachel Rebecca Samantha Sandra Sarah
Sophie Stephanie Susan Teresa Valentina Vanessa
"""
_MEN = """
Adam Ahmed Alejandro Alexander Andrew Anthony Benjamin Brian Carlos Charles Christopher Daniel David Edward Eric
Fernando George Giovanni Gregory Henry Hiroshi Ivan James Jason Javier Jeffrey John Jonathan Joseph Joshua Kenji Kevin
Matthew Michael Miguel Mohammed Nicholas Oliver Patrick Paul Peter Philip Rafael Rahul Richard Robert Ronald Ryan
Samuel Stephen Steven Thomas Timothy Vladimir Walter William
"""
WOMEN, MEN = _WOMEN.split(), _MEN.split()
Change = Callable[[str, Random], str | None]  # a text to the changed text; None where there is nothing to change

# A word of four letters or more, of a script that parts its words: two Chinese characters swapped are no slip.
LONG_WORD = regex.compile(rf"(?:(?!{UNSPACED})[\p{{L}}\p{{M}}]){{4,}}")
STOP = regex.compile(r"(?<=[\p{L}\p{M}\p{N}\)\"'”’»])[.。।۔។။]\s*$")
FULL_WIDTH = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
ENDS_IN_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]\s*$")


def typos(text: str, random: Random) -> str | None:
    """Swap, drop or double one letter inside of one word; its first and last stay."""
    words = list(LONG_WORD.finditer(text))
    if not words:
        return None
    found = random.choice(words)
    word, at = found[0], random.randrange(1, len(found[0]) - 2)
    slips = [word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]]
    if word[at] != word[at + 1]:
        slips.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
    return text[: found.start()] + random.choice(slips) + text[found.end() :]


def names(text: str, random: Random) -> str | None:
    """Give the persons of a text other given names of the same gender; one name stays one name.

    Names are found by the lists above, with a capital, or without in a text that has none at all.
    """
    lowered = text == text.lower()
    found = sorted({match.capitalize() for match in _known_names(lowered).findall(text)})
    if not found:
        return None
    others: dict[str, str] = {}
    for name in found:
        free = [other for other in (WOMEN if name in WOMEN else MEN) if other not in (*found, *others.values())]
        if not free:
            return None
        others[name] = random.choice(free)

    def swapped(match: regex.Match[str]) -> str:
        other = others[match[0].capitalize()]
        return other.lower() if lowered else other

    return str(_known_names(lowered).sub(swapped, text))


def punctuation(text: str, random: Random) -> str | None:
    """Take the full stop from the end of a text, or put one there; marks that say more (!, ?, …) stay."""
    if stop := STOP.search(text):
        return text[: stop.start()]
    letters = regex.findall(r"\p{L}", text)
    if not letters or not ENDS_IN_WORD.search(text):
        return None
    if FULL_WIDTH.match(letters[-1]):
        return text.rstrip() + "。"
    return None if regex.match(UNSPACED, letters[-1]) else text.rstrip() + "."  # Thai and its neighbours have none


def casing(text: str, random: Random) -> str | None:
    """Write a text in small letters or in capitals; nothing where the script has no such thing."""
    kinds = [text.lower(), text.upper()]
    random.shuffle(kinds)
    return next((changed for changed in kinds if changed != text), None)


CHANGES: dict[Invariance, Change] = {"typos": typos, "names": names, "punctuation": punctuation, "casing": casing}


@cache
def _known_names(lowered: bool) -> "regex.Pattern[str]":
    known = "|".join(name.lower() if lowered else name for name in (*WOMEN, *MEN))
    return regex.compile(rf"\b(?:{known})\b")
