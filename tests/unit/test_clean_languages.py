"""A text goes only if it is surely in another language."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.languages import other_language
from stages.common.errors import AttuneError
from stages.common.params.clean import Languages

Records = Any

ENGLISH = "A remarkable meditation on the nature of revolution, told in long and patient takes."
GERMAN = "Ein langweiliger Film, der seine Zuschauer zwei Stunden lang nicht ernst nimmt."
SPANISH = "Una película oscura, precisa, por momentos grandiosa y casi siempre conmovedora."
CHINESE = "这部电影真的非常好看，演员的表现令人印象深刻。"
CANTONESE = "呢套戲真係好好睇，啲演員做得好好，唔好錯過。"


def languages_out(records_of: Records, keep: list[str], *texts: str, sure: float = 0.8) -> list[str]:
    records = records_of([{"text": text} for text in texts])
    kept, out = other_language(records, Languages(keep=keep, min_confidence=sure))
    assert kept.columns == records.columns
    assert kept["text"].to_list() == [text for text in texts if text not in set(out["text"])]
    return out["reason"].to_list()


@pytest.mark.parametrize(
    ("keep", "stays", "goes", "language"),
    [
        (["en"], ENGLISH, GERMAN, "de"),
        (["de"], GERMAN, ENGLISH, "en"),
        (["en", "de"], GERMAN, SPANISH, "es"),
        (["zh"], CHINESE, ENGLISH, "en"),
        (["en"], ENGLISH, CHINESE, "zh"),
    ],
)
def test_a_text_in_another_language_goes_and_the_reason_names_it(
    records_of: Records, keep: list[str], stays: str, goes: str, language: str
) -> None:
    (reason,) = languages_out(records_of, keep, stays, goes)
    assert reason.startswith(f"the language is {language} (probability ")


@pytest.mark.parametrize(
    "text", ["123", "!!!", "5/10 :-)", "👍", "ok", "lol", "Sehr gut", "haha haha haha", "Wow. Wow. Wow.", "好看"]
)
def test_short_unsure_and_letterless_texts_stay(records_of: Records, text: str) -> None:
    assert languages_out(records_of, ["en"], text) == []


def test_cantonese_is_chinese(records_of: Records) -> None:
    assert languages_out(records_of, ["zh"], CANTONESE, CHINESE) == []


def test_min_confidence_decides_what_is_sure(records_of: Records) -> None:
    unsure = "Das war sehr gut"
    assert len(languages_out(records_of, ["en"], unsure, sure=0.3)) == 1
    assert languages_out(records_of, ["en"], unsure, sure=0.99) == []
    assert languages_out(records_of, ["en"], GERMAN, sure=1.0) == []


def test_a_language_that_nobody_can_tell_is_an_error_with_its_code(records_of: Records) -> None:
    with pytest.raises(AttuneError, match=r"clean.languages.keep names 'xx'[^\n]*\n  → it knows af, .*, zu$"):
        languages_out(records_of, ["en", "xx"], ENGLISH)


def test_both_texts_of_a_pair_are_looked_at(records_of: Records) -> None:
    records = records_of([{"text": "OK", "text_pair": GERMAN}, {"text": "OK", "text_pair": ENGLISH}])
    kept, out = other_language(records, Languages(keep=["en"]))
    assert (kept["text_pair"].to_list(), out["text_pair"].to_list()) == ([ENGLISH], [GERMAN])


def test_no_rows_are_no_trouble(records_of: Records) -> None:
    kept, out = other_language(records_of([]), Languages(keep=["en"]))
    assert kept.is_empty()
    assert out.columns == [*kept.columns, "reason"]


@given(st.lists(st.none() | st.text(max_size=60), max_size=8))
def test_no_text_is_too_strange_and_none_is_lost(texts: list[str | None]) -> None:
    records = pl.DataFrame(
        {"id": range(len(texts)), "text": texts, "text_pair": None},
        schema_overrides=dict.fromkeys(("text", "text_pair"), pl.String),
    )
    kept, out = other_language(records, Languages(keep=["en"], min_confidence=0.0))
    assert sorted([*kept["id"], *out["id"]]) == list(range(len(texts)))
