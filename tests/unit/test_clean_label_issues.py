"""Planted wrong labels are found, held-out rows tell train nothing, and label issues are dealt with as asked."""

import random
from typing import Any

import polars as pl
import pytest

from stages.clean.label_issues import apply_action, find_label_issues
from stages.common.params import CleanParams
from stages.common.schemas import SPLITS, Suspects
from stages.tasks.base import Task
from stages.tasks.targets import canonical_set, set_of
from tests.unit.small_records import FILM_WORDS, NUMBERS, SETS, TASK, clean_rows

Splits = dict[str, pl.DataFrame]
OTHER = {"positive": "negative", "negative": "positive"}


def issues_in(splits: Splits, task: Task = TASK, **settings: Any) -> pl.DataFrame:
    return find_label_issues(splits, task, CleanParams(label_issues=settings), seed=13)


def into_splits(rows: pl.DataFrame) -> Splits:
    """Eight tenths train, the rest validation and test."""
    part = pl.int_range(pl.len()) % 10
    return {name: rows.filter(part.is_between(*of)) for name, of in zip(SPLITS, ((0, 7), (8, 8), (9, 9)), strict=True)}


def flipped(rows: pl.DataFrame, share: float, seed: int = 5) -> tuple[pl.DataFrame, set[str]]:
    """Turn the labels of a share of the rows round; return their ids, too."""
    wrong = set(random.Random(seed).sample(rows["id"].to_list(), round(share * rows.height)))
    label = pl.when(pl.col("id").is_in(sorted(wrong))).then(pl.col("label").replace(OTHER)).otherwise("label")
    return rows.with_columns(label=label), wrong


def opinions(count: int, seed: int = 0) -> pl.DataFrame:
    """English sentences whose words mostly tell their label."""
    rng = random.Random(seed)
    good = ["brilliant", "moving", "fresh", "witty", "gorgeous", "touching"]
    bad = ["dull", "tedious", "flat", "clumsy", "lifeless", "stale"]
    rows = []
    for index in range(count):
        adjectives = [*rng.sample((good, bad)[index % 2], 2), *rng.choices(good + bad, k=1)]
        parts = [f"a {word} {noun}" for word, noun in zip(adjectives, rng.sample(FILM_WORDS, 3), strict=True)]
        rows.append({"text": ", ".join(parts), "label": ("positive", "negative")[index % 2]})
    return clean_rows(rows)


def test_flipped_labels_are_found_far_above_chance_in_every_split() -> None:
    rows, wrong = flipped(opinions(1500), 0.05)
    issues = issues_in(into_splits(rows))
    Suspects.validate(issues)
    issues = issues.with_columns(hit=pl.col("id").is_in(sorted(wrong)))
    assert issues["hit"].sum() / len(wrong) > 0.5 and issues["hit"].mean() > 0.5  # chance: 0.05
    assert issues.filter(pl.col("split") != "train")["hit"].mean() > 0.5, "held-out rows are judged, too"


def test_min_confidence_and_max_rows_say_how_many_rows_are_listed_in_any_order_and_off_lists_none() -> None:
    rows = flipped(opinions(1000), 0.15)[0].with_columns(group=pl.format("g{}", pl.int_range(pl.len()) % 90))
    splits = into_splits(rows)
    shuffled = {name: part.sample(fraction=1, shuffle=True, seed=4) for name, part in splits.items()}

    everything, few = issues_in(splits, min_confidence=0.0), issues_in(splits, max_rows=200)
    sure = everything.filter(pl.col("confidence") >= 0.8)
    assert issues_in(splits).equals(sure)
    assert everything["confidence"].is_sorted(descending=True)
    assert 0 < few.filter(split="train").height < sure.filter(split="train").height / 2
    assert issues_in(shuffled, max_rows=200).equals(few)
    assert issues_in(splits, action="off").equals(Suspects.empty())


def test_too_many_labels_and_too_few_groups_are_said_to_be_unchecked(capsys: pytest.CaptureFixture[str]) -> None:
    many = opinions(1400).with_columns(label=pl.format("label {}", pl.int_range(pl.len()) // 2))
    few = opinions(100).with_columns(group=pl.format("g{}", pl.int_range(pl.len()) % 3))
    for rows in (many, few):
        assert issues_in(into_splits(rows)).equals(Suspects.empty())
        assert "no label is checked" in capsys.readouterr().out


def test_validation_and_test_tell_train_nothing() -> None:
    rows, _ = flipped(opinions(600), 0.1)
    splits = into_splits(rows)
    strange = clean_rows([{"text": "quux " * size} for size in range(1, 90)], "other")
    other = {"train": splits["train"], "validation": strange[:40], "test": strange[40:]}
    issues = [issues_in(each, min_confidence=0.0).filter(split="train") for each in (splits, other)]
    assert issues[0].height > 0 and issues[0].equals(issues[1])


def test_a_row_is_judged_by_what_is_outside_its_group() -> None:
    """A wrong label that a whole group shares is seen through; with some of it in the other folds it looks right."""
    rows = opinions(400)
    lie = {"text": "a brilliant moving fresh zyzzyva", "label": "negative", "group": "liars"}
    train = pl.concat([rows, clean_rows([lie] * 12, "lie")])
    splits = {"train": train, "validation": opinions(40, 1), "test": opinions(40, 2)}
    splits = {name: part.with_columns(id=pl.lit(name) + pl.col("id")) for name, part in splits.items()}
    grouped = issues_in(splits)
    assert grouped["id"].str.starts_with("trainlie").sum() >= 10
    alone = splits | {"train": splits["train"].with_columns(group=pl.lit(None, pl.String))}
    assert issues_in(alone)["id"].str.starts_with("trainlie").sum() == 0


def test_of_a_set_the_label_that_is_missing_or_too_much_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    told = opinions(600).with_columns(
        text=pl.col("text") + pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit(", in German")).otherwise(pl.lit(""))
    )
    german, good = told["text"].str.contains("German"), told["label"] == "positive"
    ours = [["film", *["german"] * of, *["good"] * is_good] for of, is_good in zip(german, good, strict=True)]
    label = list(map(canonical_set, ours))  # all are films: no classifier tells who should not be
    wrong = dict.fromkeys(range(7, 600, 40))
    for row in wrong:
        label[row] = canonical_set({*set_of(label[row])} ^ {"good"})
    issues = issues_in(into_splits(told.with_columns(label=pl.Series(label))), SETS, min_confidence=0.6)
    Suspects.validate(issues)
    ids = {told["id"][row] for row in wrong}
    hits = issues.filter(pl.col("id").is_in(sorted(ids)))
    assert hits.height > len(ids) / 2 and hits.height > issues.height / 2
    for own, suggested in hits.select("label", "suggested").iter_rows():
        assert {*set_of(own)} ^ {*set_of(suggested)} == {"good"}
    assert issues_in(into_splits(told.with_columns(label=pl.lit("3"))), NUMBERS).equals(Suspects.empty())
    assert "no label is checked (clean.label_issues): regression offers no such check" in capsys.readouterr().out


def test_a_label_that_a_classifier_never_saw_is_not_doubted() -> None:
    rare = clean_rows([{"text": "a brilliant, moving, fresh, witty plot", "label": "rare"}], "rare")
    splits = into_splits(opinions(200))
    splits["train"] = pl.concat([splits["train"], rare])
    assert "rare" not in issues_in(splits, min_confidence=0.0)["label"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"text": "one text", "label": "a"}],
        [{"text": f"text {index}", "label": "ab"[index % 2], "group": "all"} for index in range(9)],
        [{"text": "!!! ???", "label": "ab"[index % 2]} for index in range(9)],
    ],
)
def test_where_nothing_can_be_learnt_there_are_no_issues(rows: list[dict[str, str | None]]) -> None:
    splits = {"train": clean_rows(rows), "validation": clean_rows([{"label": "b"}], "v"), "test": clean_rows([])}
    assert issues_in(splits, min_confidence=0.0).equals(Suspects.empty())


def issues_of(rows: pl.DataFrame, split: str = "train") -> pl.DataFrame:
    made = rows.with_columns(split=pl.lit(split), suggested=pl.lit("positive"), confidence=pl.lit(0.9))
    return made.select(Suspects.columns())


def test_the_mark_stands_beside_the_other_keys_of_extra() -> None:
    extras = [None, '{"né":"a, \\"b\\""}', '{"suspect":"no","a":null}', "{}"]
    rows = clean_rows([{"text": "t", "label": "a", "extra": extra} for extra in extras])
    after, out = apply_action(dict.fromkeys(SPLITS, rows), issues_of(rows[:1]), "flag")
    assert out.is_empty()
    marked = [
        '{"suspect":"yes"}',
        '{"né":"a, \\"b\\"","suspect":"no"}',
        '{"a":null,"suspect":"no"}',
        '{"suspect":"no"}',
    ]
    assert after["test"]["extra"].to_list() == marked


def test_rejecting_takes_issues_out_of_train_alone_and_says_why() -> None:
    splits = into_splits(opinions(40))
    issues = pl.concat([issues_of(splits[name][:3], name) for name in SPLITS])
    after, out = apply_action(splits, issues, "reject")
    assert out["id"].to_list() == splits["train"]["id"][:3].to_list()
    assert set(out["reason"]) == {"the label looks wrong: positive has the probability 0.9"}
    assert after["train"].equals(splits["train"][3:])
    assert all(after[name].equals(splits[name]) for name in ("validation", "test"))


@pytest.mark.parametrize(("doubted", "rejected"), [(3, 0), (2, 2)])
def test_no_label_is_rejected_out_of_train_altogether(doubted: int, rejected: int) -> None:
    rare = clean_rows([{"label": "rare"}] * 3, "rare")
    splits = into_splits(opinions(40))
    splits["train"] = pl.concat([splits["train"], rare])
    after, out = apply_action(splits, issues_of(rare[:doubted]), "reject")
    assert out.height == rejected == 3 - after["train"].filter(label="rare").height
