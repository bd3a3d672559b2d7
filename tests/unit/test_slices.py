"""Slices: equally full bins of length, and columns by value."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.params.evaluate import Slices
from stages.evaluate.scores import slice_scores


def table(texts: list[str], right: list[bool] | None = None, **columns: list[str | None]) -> pl.DataFrame:
    actual = [at % 2 for at in range(len(texts))]
    predicted = [one if good else 1 - one for one, good in zip(actual, right or [True] * len(texts), strict=True)]
    others = {"source": ["here"] * len(texts), "group": [None] * len(texts), "extra": [None] * len(texts), **columns}
    return pl.DataFrame(
        {"text": texts, "actual": actual, "predicted": predicted, **others},
        schema_overrides={"group": pl.String, "extra": pl.String},
    )


def scored(rows: pl.DataFrame, columns: list[str] | None = None, bins: int = 1, least: int = 1) -> list[dict]:
    params = Slices(length_bins=bins, columns=columns or [], min_rows=least)
    return slice_scores(rows, params, classes=2).to_dicts()


@given(st.integers(1, 8), st.integers(10, 60), st.randoms(use_true_random=False))
def test_length_bins_hold_equally_many_rows(bins: int, number: int, random: object) -> None:
    lengths = list(range(1, number + 1))
    random.shuffle(lengths)  # type: ignore[attr-defined]
    found = scored(table(["x" * length for length in lengths]), bins=bins)
    counts = [part["rows"] for part in found]
    assert len(counts) == bins
    assert sum(counts) == number
    assert max(counts) - min(counts) <= 1


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(1, 6))
def test_every_row_is_in_one_length_bin_whatever_lengths_repeat(lengths: list[int], bins: int) -> None:
    found = scored(table(["x" * length for length in lengths]), bins=bins)
    assert sum(part["rows"] for part in found) == len(lengths)
    assert len({part["slice"] for part in found}) == len(found) <= bins


def test_length_bins_say_their_bounds_in_characters() -> None:
    found = scored(table(["ä" * length for length in (1, 2, 3, 4)]), bins=2)
    assert [(part["slice"], part["rows"]) for part in found] == [
        ("length 1: 1 to 2 characters", 2),
        ("length 2: over 2 characters", 2),
    ]


def test_a_slice_is_scored_on_its_rows_alone() -> None:
    rows = table(["word"] * 4, right=[True, True, True, False], source=["a", "a", "b", "b"])
    assert scored(rows, ["source"])[1:] == [
        {"slice": "source: a", "rows": 2, "accuracy": 1.0, "macro_f1": 1.0},
        {"slice": "source: b", "rows": 2, "accuracy": 0.5, "macro_f1": pytest.approx(1 / 3, abs=1e-6)},
    ]


def test_slices_under_min_rows_are_left_out() -> None:
    rows = table(["word"] * 6, source=["big"] * 4 + ["small"] * 2)
    assert [part["slice"] for part in scored(rows, ["source"], least=3)][1:] == ["source: big"]
    assert [part["slice"] for part in scored(rows, ["source"], least=2)][1:] == ["source: big", "source: small"]
    assert scored(rows, ["source"], least=7) == []


def test_extra_columns_are_read_from_their_json() -> None:
    extra = ['{"stars": "5", "at \\"home\\"": "yes"}', '{"stars": "5"}', '{"stars": "1"}', None]
    rows = table(["word"] * 4, extra=extra)
    assert [(part["slice"], part["rows"]) for part in scored(rows, ["stars"])][1:] == [("stars: 5", 2), ("stars: 1", 1)]
    assert [(part["slice"], part["rows"]) for part in scored(rows, ['at "home"'])][1:] == [('at "home": yes', 1)]


def test_a_long_list_of_values_keeps_its_fifty_largest() -> None:
    sources = [f"s{at:03}" for at in range(60)] + [f"s{at:03}" for at in range(10, 60)]
    found = scored(table(["word"] * 110, source=sources), ["source"])[1:]
    assert [part["slice"] for part in found] == [f"source: s{at:03}" for at in range(10, 60)]
