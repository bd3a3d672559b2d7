"""Texts in a language that is not asked for, found by py3langid (a naive Bayes classifier over byte n-grams).

Lui & Baldwin 2012, "langid.py: An off-the-shelf language identification tool". On the default data it finds what lingua
finds, with a wheel of 5 MB instead of 96, a tenth of the memory and many times the speed. Its probabilities are
tempered by the length of a text, so that a short one is hardly ever sure.
"""

from functools import cache
from typing import Any

import polars as pl

from stages.common.errors import AttuneError
from stages.common.params.clean import Languages
from stages.common.text.columns import UNSPACED, whole_text

# What the classifier distinguishes and ISO 639-1 does not: Cantonese and Wu, Egyptian and Moroccan Arabic.
PART_OF = {"yue": "zh", "wuu": "zh", "arz": "ar", "ary": "ar", "nn": "no", "nb": "no"}
NO_LANGUAGE = "zxx"
ENOUGH = 2_000  # characters: more of a text make its language no clearer
FEW = 4  # with fewer distinct words, "haha haha haha" is surely Sesotho
WORD = rf"{UNSPACED}|[\p{{L}}\p{{M}}]+"  # in scripts without blanks, each character counts
BATCH = 100_000


def other_language(records: pl.DataFrame, languages: Languages) -> pl.Series:
    """The text is surely in another language; unsure ones and those of fewer than four words stay.

    Args:
        records: clean rows; both texts of a pair are looked at as one.
        languages: the codes to keep, and how sure it has to be that a text is in none of them.

    Raises:
        AttuneError: if the classifier does not know a language that is to be kept.
    """
    keep = {PART_OF.get(code, code) for code in languages.keep}
    known = {PART_OF.get(code, code) for code in _identifier().labels} - {NO_LANGUAGE}
    if unknown := sorted(keep - known):
        raise AttuneError(
            f"clean.languages.keep names {unknown[0]!r}, a language that the classifier does not know",
            f"it knows {', '.join(sorted(code for code in known if len(code) == 2))}",
        )
    reasons: list[str | None] = []
    for batch in records.iter_slices(BATCH):
        texts = whole_text(batch).str.slice(0, ENOUGH)
        clear = texts.str.to_lowercase().str.extract_all(WORD).list.n_unique() >= FEW
        for text in texts.set(~clear, None):
            language, probability = _identifier().classify(text) if text else (NO_LANGUAGE, 0.0)
            language = PART_OF.get(language, language)
            other = language not in keep and language != NO_LANGUAGE and probability >= languages.min_confidence
            reasons.append(f"the language is {language} (probability {probability:.2f})" if other else None)
    return pl.Series(reasons, dtype=pl.String)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
