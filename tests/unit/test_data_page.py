"""The data page shows what was done to the data, and does nothing that the data want."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from stages.clean.page import PageData, render
from stages.clean.split import split_records
from stages.clean.split_report import split_report
from stages.common.drift import split_drift
from stages.common.params.clean import CleanParams, Split
from stages.common.pipeline.validation import validation_report
from stages.common.schemas import Rejected, Suspects, TrainableRecords
from tests.unit.seen_page import HOSTILE, Seen, assert_shown_and_idle
from tests.unit.small_records import FILM_WORDS, counted, make_records


def page_of(
    hostile: str = "harmless", rows: int = 60, examples: int = 10, params: CleanParams | None = None, **columns: Any
) -> PageData:
    """A page where this text is everywhere that data can put one."""
    params = params or CleanParams(split=Split(folds=2))
    labels, rng = [f"{hostile} one", f"{hostile} two"], random.Random(1)
    filled = [
        {
            "text": f"{hostile} {' '.join(rng.choices(FILM_WORDS, k=8))} {row}",
            "label": labels[row % 2],
            "source": hostile,
            "group": f"{hostile} {row}",
            "timestamp": f"20{row % 20 + 10}-05-03",
            **{name: make(row) for name, make in columns.items()},
        }
        for row in range(rows)
    ]
    records = make_records(filled)
    splits = split_records(records.with_columns(stratum=pl.col("label")), params.split, 13)
    rejected = pl.concat(
        Rejected.of(records.with_columns(id=pl.lit(rule) + pl.col("id")), stage, rule, f"because of {hostile}")
        for stage, rule in (("ingest", "unmapped_label"), ("clean", "near_duplicate"), ("clean", "length"))
    )
    issue = {"split": "train", "suggested": labels[0], "confidence": 0.98765}
    issues = splits["train"].with_columns(**{name: pl.lit(value) for name, value in issue.items()})
    raw = records.with_columns(text=pl.lit("\ufffd") + pl.col("text"))
    report = split_report(splits, counted(splits), params, 13)
    report["warnings"].append(f"a warning of {hostile}")
    return PageData(
        changed={"encoding": 12, "whitespace": 0},
        by_rule={"length": rows, "near_duplicate": rows, "exact_duplicate": 0},
        rejected=rejected,
        splits=splits,
        label_issues=issues.select(Suspects.columns()),
        report={**report, "drift": split_drift(splits, counted(splits))},
        contract=validation_report(TrainableRecords, raw, name="raw"),
        examples=examples,
    )


KNOWN = Seen(render(page_of()))


def test_the_page_tells_the_counts_the_rules_and_the_verdicts() -> None:
    for text in (
        "240 rows read 60 kept, 25.0 %",
        "encoding 12",
        "unmapped label ingest 60",
        "exact duplicate clean 0",
        "a warning of harmless",
        "harmless one 24 48.0 %",
        "train / test 0 0 0 50 × 5",
        "2010-05-03T00:00:00Z",
    ):
        assert text in KNOWN.text, text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_text_is_shown_and_does_nothing(hostile: str) -> None:
    assert_shown_and_idle(render(page_of(hostile)), hostile, KNOWN, times=20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: page_of("x" * 300_000, rows=12),
        lambda: page_of("\u202e" * 400, rows=200, examples=100),
        lambda: page_of(rows=600, label=lambda row: f"{row // 3}" + "x" * 80, source=lambda row: f"{row}" + "'" * 300),
    ],
    ids=["huge texts", "bidi", "hundreds of labels and sources"],
)
def test_the_page_stays_small_whatever_the_data(make: Callable[[], PageData]) -> None:
    page = make()
    html = render(page)
    assert len(html.encode()) <= 200_000
    assert ("to keep this page small" in html) == (page.examples == 100)


def test_no_examples_means_no_texts_at_all() -> None:
    text = Seen(render(page_of("private matter", examples=0))).text
    assert not any(f" {word} " in text for word in FILM_WORDS[1:])
    assert "180 rejected" in text


def test_what_is_private_is_masked_wherever_it_is_shown() -> None:
    page = page_of("me@example.org")
    assert "me@example.org" in render(page)
    masked = render(page, lambda text: text.replace("me@example.org", "[EMAIL]"))
    assert "me@example.org" not in masked and "[EMAIL]" in masked


def test_the_page_is_the_same_in_any_order_of_the_rows() -> None:
    page = page_of()
    splits = {name: rows.sample(fraction=1.0, shuffle=True, seed=3) for name, rows in page.splits.items()}
    rejected = page.rejected.sample(fraction=1.0, shuffle=True, seed=2)
    assert render(replace(page, splits=splits, rejected=rejected)) == render(page)


def test_data_without_times_rejections_suspects_and_faults_make_a_page_too() -> None:
    page = page_of(params=CleanParams(), timestamp=lambda index: None)
    sound = validation_report(TrainableRecords, make_records([{"text": "t"}]), name="raw")
    bare = replace(page, rejected=Rejected.empty(), by_rule={}, label_issues=Suspects.empty(), contract=sound)
    text = Seen(render(bare)).text
    assert "All of them have an id, a text, a label and a source." in text and "No row is suspected" in text
    assert "oldest" not in text and "Folds" not in text
