"""Slices: equally full bins of length, and columns by value."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.params.evaluate import Slices
from stages.tasks.slices import slice_scores
from stages.tasks.text_classification import TASK


def table(texts: list[str], right: list[bool] | None = None, **columns: list[str | None]) -> pl.DataFrame:
    labels = ["no", "yes"] * (len(texts) // 2) + ["no"] * (len(texts) % 2)
    hits = right or [True] * len(texts)
    other = {"no": "yes", "yes": "no"}
    answers = [label if hit else other[label] for label, hit in zip(labels, hits, strict=True)]
    others = {"source": ["tests"] * len(texts), "group": [None] * len(texts), "extra": [None] * len(texts), **columns}
    return pl.DataFrame(
        {"text": texts, "label": labels, "prediction": answers, **others},
        schema_overrides={"group": pl.String, "extra": pl.String},
    )


def scored(rows: pl.DataFrame, columns: list[str] | None = None, bins: int = 1, least: int = 1) -> list[dict]:
    params = Slices(length_bins=bins, columns=columns or [], min_rows=least)
    return slice_scores(rows, params, TASK, TASK.evidence(rows, rows), ["accuracy", "macro_f1"]).to_dicts()


@given(st.permutations(range(1, 41)), st.integers(1, 8), st.integers(1, 40))
def test_every_row_is_in_one_length_bin_and_bins_of_different_lengths_are_equally_full(
    lengths: list[int], bins: int, longest: int
) -> None:
    counts = [part["rows"] for part in scored(table(["x" * length for length in lengths]), bins=bins)]
    assert len(counts) == bins
    assert sum(counts) == 40
    assert max(counts) - min(counts) <= 1
    repeated = scored(table(["x" * min(length, longest) for length in lengths]), bins=bins)
    assert sum(part["rows"] for part in repeated) == 40
    assert len({part["slice"] for part in repeated}) == len(repeated) <= bins


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
    sources = [f"s{number:03}" for number in range(60)] + [f"s{number:03}" for number in range(10, 60)]
    parts = scored(table(["word"] * 110, source=sources), ["source"])[1:]
    assert [part["slice"] for part in parts] == [f"source: s{number:03}" for number in range(10, 60)]
