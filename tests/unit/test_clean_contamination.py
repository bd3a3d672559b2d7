"""No row that stands in a test set of the user's own is trained on."""

import random
from typing import Any

import polars as pl
import pytest
from small_project import FILM_WORDS

from stages.clean.contamination import contaminated
from stages.common.params.clean import NearDuplicates
from stages.common.schemas import Decontamination

Records = Any
LONG = "the film tells a story of an actor who forgets the scene and loses the plot at the end of the day"


def listed(*rows: tuple[str | None, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(Decontamination.columns(), pl.String), orient="row")


def test_equal_texts_go_without_regard_to_case_and_the_reason_names_the_source(records_of: Records) -> None:
    records = records_of([{"text": "A good film"}, {"text": "a GOOD film"}, {"text": "A good day"}])
    kept, out = contaminated(records, listed(("a good Film", "glue/sst2")), NearDuplicates())
    assert kept["text"].to_list() == ["A good day"]
    assert out["reason"].to_list() == ["the same text as one of glue/sst2"] * 2


def test_nearly_equal_texts_go_with_their_similarity(records_of: Records) -> None:
    records = records_of([{"text": LONG + "!"}, {"text": LONG[::-1]}, {"text": LONG[:50]}])
    kept, out = contaminated(records, listed((LONG, "mine.csv")), NearDuplicates())
    assert kept["text"].to_list() == [LONG[::-1], LONG[:50]]
    (reason,) = out["reason"]
    assert reason == "nearly the same text as one of mine.csv (similarity 0.99)"


def test_the_threshold_decides_and_near_duplicates_can_be_off(records_of: Records) -> None:
    records = records_of([{"text": LONG + " and so on"}])
    against = listed((LONG, "mine.csv"))
    for near, rows in ((NearDuplicates(), 1), (NearDuplicates(threshold=0.99), 0), (NearDuplicates(enabled=False), 0)):
        assert contaminated(records, against, near)[1].height == rows
    assert contaminated(records_of([{"text": LONG}]), against, NearDuplicates(enabled=False))[1].height == 1


def test_the_two_texts_of_a_pair_count_as_one(records_of: Records) -> None:
    records = records_of([{"text": "Is it good?", "text_pair": "It is."}, {"text": "Is it good?", "text_pair": LONG}])
    kept, out = contaminated(records, listed(("is it good? it is.", "rte"), ("is it good?", "rte")), NearDuplicates())
    assert out["text_pair"].to_list() == ["It is."]
    assert kept["text_pair"].to_list() == [LONG]


@pytest.mark.parametrize("near", [NearDuplicates(), NearDuplicates(enabled=False)])
def test_empty_tables_and_missing_texts_are_no_trouble(records_of: Records, near: NearDuplicates) -> None:
    records = records_of([{"text": None}, {"text": "a text"}])
    for rows in (records, records.clear()):
        for against in (listed(), listed((None, "x"))):
            kept, out = contaminated(rows, against, near)
            assert kept.equals(rows)
            assert out.columns == [*rows.columns, "reason"]
            assert out.is_empty()


def test_of_several_equally_near_texts_the_same_one_is_named_in_any_order(records_of: Records) -> None:
    records = records_of([{"text": LONG}])
    against = listed(*((LONG + letter, f"set {letter}") for letter in "dbeac"))
    for rows in (against, against.reverse(), against.sort("text")):
        _, out = contaminated(records, rows, NearDuplicates())
        assert out["reason"].to_list() == ["nearly the same text as one of set a (similarity 0.99)"]


def test_neither_rows_nor_reasons_depend_on_any_order(records_of: Records) -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(FILM_WORDS, k=14)) for _ in range(60)]
    records = records_of([{"text": text + rng.choice(["", "!", " now"])} for text in texts + texts[:20]])
    against = listed(*((text, f"set {at % 7}") for at, text in enumerate(texts[:30] + texts[:10])))
    kept, out = contaminated(records, against, NearDuplicates())
    assert out.height >= 30
    assert sorted([*kept["id"], *out["id"]]) == sorted(records["id"])
    again = contaminated(records.sample(fraction=1, shuffle=True, seed=1), against.reverse(), NearDuplicates())
    assert again[0].sort("id").equals(kept.sort("id"))
    assert again[1].sort("id").equals(out.sort("id"))
