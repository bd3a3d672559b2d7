"""Personal data give way to [EMAIL], [CARD] and [PHONE].

Found by form alone: an address with an @, a card number with a known beginning and a right check digit (Luhn, ISO/IEC
7812), a phone number that the `phonenumbers` library holds for possible in its country. Names and street addresses
have no such form, and stay.
"""

import re
from collections.abc import Sequence
from unicodedata import normalize

import polars as pl

from stages.common.text.columns import change_each, change_where

KINDS = ("email", "phone", "card")

# Latin letters alone: Chinese puts no blank between an address and the word before it. Also in full width.
LETTER = r"\p{Latin}0-9０-９"
EMAIL = rf"[{LETTER}._%+'．-]*[{LETTER}_%+-][@＠](?:[{LETTER}](?:[{LETTER}-]*[{LETTER}])?[.．])+\p{{Latin}}{{2,}}"

# In one piece, or in the groups that are printed on cards: 4-4-4-4, 4-4-4-4-3, 4-6-5, 4-6-4.
CARD_LIKE = r"[0-9０-９]{14}|[0-9０-９]{4}[ -][0-9０-９]{4}"
NUMBER = re.compile(
    r"(?<![+0-9０-９])"
    r"(?:D{14,19}|D{4}([ -])(?:D{4}\1D{4}\1D{4}(?:\1D{3})?|D{6}\1D{4,5}))".replace("D", "[0-9０-９]")
    + r"(?![0-9０-９])"
)
CARD = re.compile(
    r"4[0-9]{15}(?:[0-9]{3})?"  # Visa
    r"|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}"  # American Express, Diners Club
    r"|6(?:011|5[0-9]{2}|4[4-9][0-9])[0-9]{12,15}|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # Discover, JCB
    r"|62[0-9]{14,17}"  # UnionPay
)

# Where the matcher could find anything at all: + and seven digits; with a country, six digits.
INTERNATIONAL = r"[+\x{ff0b}]\W{0,6}\d(?:[\Wx]{0,6}\d){6}"
NATIONAL = r"\d(?:[\Wx]{0,6}\d){5}"
ORDER = re.compile(
    r"(?:[#№]|\b(?:order|invoice|ticket|tracking|reference|ref|case|item|article|sku|isbn)\b"
    r"|\b(?:bestell|auftrag|rechnung)\w*|[订訂]单|[訂订]單)[号號]?[\s:.#-]*(?:(?:no|nr|number|id)\b[\s:.#-]*)?$",
    re.IGNORECASE,
)

# Dates are no parts of phone numbers, unless digits stand before or behind with a dot, a hyphen or a slash between.
DAY, MONTH, YEAR = r"(?:0?[1-9]|[12][0-9]|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)[0-9]{2}"
ONE_DATE = "(?:" + "|".join(
    rf"{DAY}{mark}{MONTH}{mark}{YEAR}|{MONTH}{mark}{DAY}{mark}{YEAR}|{YEAR}{mark}{MONTH}{mark}{DAY}"
    for mark in (r"\. ?", "-", "/")
) + ")"  # fmt: skip
DATE = re.compile(
    rf"(?<![0-9])(?<![0-9][./-]){ONE_DATE}(?: ?[-–] ?{ONE_DATE})?(?![0-9]|[./-][0-9])"
    r"(?:(?:T|,? )[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]+)?)?(?:[+-][0-9]{2}:?[0-9]{2})?(?![0-9]))?"
)
BEGUN = re.compile(r"\+(?:[ ()./-]*[0-9]){1,7}[ ()./-]*$")  # an international number that is not whole yet
NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
NO_DIGIT = "\0"  # stands where a date is while phone numbers are looked for

# For pages only: digits in groups, as phone numbers of any country are written.
GROUPS = re.compile(r"(?<![A-Za-z0-9_])[+(]{0,2}[0-9]+(?:[ ().\-\u2010-\u2013/]{1,3}[0-9]+)+")
DECIMAL = re.compile(r"[+-]?[0-9]+\.[0-9]+")  # a whole text that is one, such as a predicted number, is no phone number


def mask(texts: pl.Series, kinds: Sequence[str], phone_region: str | None) -> pl.Series:
    """Mask kinds (any of email, card, phone) in texts with plain blanks and digits (as the other steps leave them).

    National phone numbers of `phone_region`, a country of ISO 3166, count; without one, those with + and country code.
    """
    if "email" in kinds:
        texts = change_where(texts, texts.str.contains("[@＠]"), lambda some: some.str.replace_all(EMAIL, "[EMAIL]"))
    if "card" in kinds:  # before phones, which could be parts of them
        texts = change_each(texts, texts.str.contains(CARD_LIKE), lambda text: NUMBER.sub(_mask_card, text))
    if "phone" in kinds:
        possible = texts.str.contains(NATIONAL if phone_region else INTERNATIONAL)
        texts = change_each(texts, possible, lambda text: _mask_phones(text, phone_region))
    return texts


def mask_text(text: str, phone_region: str | None) -> str:
    """Mask everything there is a rule for in one text that goes onto a page, which may end up in Git.

    Without a country, that is also whatever looks like a phone number of any: seven digits or more in groups (of two
    digits or more in the mean), which are no date. Better an amount masked than a number shown.
    """
    masked: str = mask(pl.Series([text]), KINDS, phone_region)[0]
    if phone_region or DECIMAL.fullmatch(text):
        return masked
    for match in reversed([*GROUPS.finditer(_without_dates(masked))]):
        groups = re.findall("[0-9]+", match[0])
        if sum(map(len, groups)) >= max(7, 2 * len(groups)):
            masked = f"{masked[: match.start()]}[PHONE]{masked[match.end() :]}"
    return masked


def _mask_card(match: re.Match[str]) -> str:
    digits = normalize("NFKC", re.sub("[ -]", "", match[0]))
    # Luhn: every second digit from the right is doubled, and the digits of the results add up to a multiple of ten.
    luhn = sum(sum(divmod(int(digit) * (1 + index % 2), 10)) for index, digit in enumerate(reversed(digits)))
    return "[CARD]" if CARD.fullmatch(digits) and luhn % 10 == 0 else match[0]


def _mask_phones(text: str, region: str | None) -> str:
    from phonenumbers import Leniency, PhoneNumberMatcher

    for match in reversed([*PhoneNumberMatcher(_without_dates(text), region, leniency=Leniency.VALID)]):
        # Bare digits after "order no." and the like stay.
        if not (match.raw_string.isdigit() and ORDER.search(text, max(0, match.start - 40), match.start)):
            text = f"{text[: match.start]}[PHONE]{text[match.end :]}"
    return text


def _without_dates(text: str) -> str:
    """Return a text of the same length without dates and the times behind them, full-width marks and digits folded."""
    text = text.translate(NARROW)

    def hidden(match: re.Match[str]) -> str:
        begun = BEGUN.search(text, max(0, match.start() - 40), match.start())
        return match[0] if begun else NO_DIGIT * len(match[0])

    return DATE.sub(hidden, text)
