"""Texts in a language that is not asked for, told by py3langid (a naive Bayes classifier over byte n-grams).

Lui & Baldwin 2012, "langid.py: An off-the-shelf language identification tool". On the default data it finds what lingua
finds, with a wheel of 5 MB instead of 96, a tenth of the memory and many times the speed. Its probabilities are
tempered by the length of a text, so that a short one is hardly ever sure.
"""

from functools import cache
from typing import Any

import polars as pl

from stages.clean.reject import Parted
from stages.common.errors import AttuneError
from stages.common.params.clean import Languages
from stages.common.texts import UNSPACED, whole_text

# What the classifier tells apart and ISO 639-1 does not: Cantonese and Wu, Egyptian and Moroccan Arabic.
PART_OF = {"yue": "zh", "wuu": "zh", "arz": "ar", "ary": "ar", "nn": "no", "nb": "no"}
NO_LANGUAGE = "zxx"
ENOUGH = 2_000  # characters: more of a text make its language no clearer
FEW = 4  # with fewer distinct words, "haha haha haha" is surely Sesotho
WORD = rf"{UNSPACED}|[\p{{L}}\p{{M}}]+"  # where no blanks part words, each character counts
BATCH = 100_000


def other_language(records: pl.DataFrame, languages: Languages) -> Parted:
    """Part off texts that are surely in another language; unsure ones and those of fewer than four words stay.

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
    reasons = pl.concat(
        [pl.Series("reason", dtype=pl.String)]
        + [_reasons(whole_text(batch), keep, languages.min_confidence) for batch in records.iter_slices(BATCH)]
    )
    foreign = reasons.is_not_null()
    return records.filter(~foreign), records.with_columns(reason=reasons).filter(foreign)


def _reasons(texts: pl.Series, keep: set[str], min_confidence: float) -> pl.Series:
    """Return why each text goes, null where it stays."""
    telling = texts.str.slice(0, ENOUGH).str.to_lowercase().str.extract_all(WORD).list.n_unique() >= FEW
    reasons: list[str | None] = [None] * len(texts)
    for at, text in zip(telling.arg_true(), texts.filter(telling).str.slice(0, ENOUGH), strict=True):
        language, probability = _identifier().classify(text)
        language = PART_OF.get(language, language)
        if language not in keep and language != NO_LANGUAGE and probability >= min_confidence:
            reasons[at] = f"the language is {language} (probability {probability:.2f})"
    return pl.Series("reason", reasons, dtype=pl.String)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
