"""What counts as a word, and which words may be replaced by others without turning a text's meaning."""

import re
from functools import cache

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
    """Return the words of a text and what joins them: `joint.join(words)` is the text again.

    A text with spaces is split at them; one without (Chinese, Japanese, Thai) into characters, with Latin words and
    numbers in one piece.
    """
    joint = " " if " " in text else ""
    return (text.split(" ") if joint else UNIT.findall(text)), joint


def core(word: str) -> tuple[str, str, str]:
    """Separate a word from the marks around it: `"great,` into `"`, `great` and `,`."""
    before, inner, after = re.fullmatch(r"(\W*)(.*?)(\W*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    return before, inner, after


def replaceable(word: str) -> bool:
    """Whether a word without marks may give way to another.

    Numbers, negations, English stop words, lone letters and whatever has a capital (names, and the first word of a
    sentence, which may be one) stay as they are.
    """
    return word.isalpha() and word == word.lower() and (len(word) > 1 or not word.isascii()) and word not in _kept()


@cache
def _kept() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS).union(NEGATIONS.split(), NUMBERS.split())
