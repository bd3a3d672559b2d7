"""Planted wrong labels are found, held-out rows tell train nothing, and suspects are dealt with as asked."""

import random
from typing import Any

import polars as pl
import pytest

from stages.clean.label_issues import act, find_suspects
from stages.common.params.clean import LabelIssues
from stages.common.schemas import SPLITS, CleanRecords, Suspects

Splits = dict[str, pl.DataFrame]
OTHER = {"positive": "negative", "negative": "positive"}


def table(rows: list[dict[str, str | None]], name: str = "row") -> pl.DataFrame:
    blank = {"text_pair": None, "group": None, "timestamp": None, "fold": None, "source": "tests", "extra": None}
    filled = [{"id": f"{name}{at:05d}", **blank, **row} for at, row in enumerate(rows)]
    schema = {column: pl.Int16 if column == "fold" else pl.String for column in CleanRecords.columns()}
    return pl.DataFrame(filled, schema=schema)


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
    words = {
        "positive": ["brilliant", "moving", "fresh", "witty", "gorgeous", "touching"],
        "negative": ["dull", "tedious", "flat", "clumsy", "lifeless", "stale"],
    }
    rows: list[dict[str, str | None]] = []
    for at in range(count):
        label = ("positive", "negative")[at % 2]
        said = rng.sample(words[label], 2) + rng.choices(words["positive"] + words["negative"], k=1)
        things = rng.sample(["plot", "camera", "cast", "score", "ending", "script", "pace", "dialogue"], 3)
        text = ", ".join(f"a {word} {thing}" for word, thing in zip(said, things, strict=True))
        rows.append({"text": f"{text} number {rng.randrange(500)}", "label": label})
    return table(rows)


# ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flipped_labels_are_found_far_above_chance_in_every_split() -> None:
    rows, wrong = flipped(opinions(1500), 0.05)
    found = find_suspects(into_splits(rows), LabelIssues(), seed=13)
    Suspects.validate(found)
    found = found.with_columns(hit=pl.col("id").is_in(sorted(wrong)))
    assert found["hit"].sum() / len(wrong) > 0.5
    assert found["hit"].mean() > 0.5  # chance: 0.05
    assert found.filter(pl.col("split") != "train")["hit"].mean() > 0.5, "held-out rows are judged, too"


def test_min_confidence_and_max_rows_say_how_many_rows_are_listed_and_off_lists_none() -> None:
    splits = into_splits(flipped(opinions(1000), 0.15)[0])

    def found(**params: Any) -> pl.DataFrame:
        return find_suspects(splits, LabelIssues(**params), seed=13)

    everything = found(min_confidence=0.0)
    assert found(min_confidence=0.9).equals(everything.filter(pl.col("confidence") >= 0.9))
    assert found(min_confidence=0.9).height > 0
    assert everything["confidence"].is_sorted(descending=True)
    assert (everything["suggested"] != everything["label"]).all()
    assert 0 < found(max_rows=200).filter(split="train").height < found().filter(split="train").height / 2
    assert found(action="off").equals(Suspects.empty())


def test_too_many_labels_and_too_few_groups_are_said_to_be_unchecked(capsys: pytest.CaptureFixture[str]) -> None:
    many = opinions(1400).with_columns(label=pl.format("label {}", pl.int_range(pl.len()) // 2))
    few = opinions(100).with_columns(group=pl.format("g{}", pl.int_range(pl.len()) % 3))
    for rows in (many, few):
        assert find_suspects(into_splits(rows), LabelIssues(), seed=13).equals(Suspects.empty())
        assert "no label is checked" in capsys.readouterr().out


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows, _ = flipped(opinions(400), 0.1)
    splits = into_splits(rows.with_columns(group=pl.format("g{}", pl.int_range(pl.len()) % 90)))
    first = find_suspects(splits, LabelIssues(max_rows=200), seed=13)
    turned = {name: part.sample(fraction=1, shuffle=True, seed=4) for name, part in splits.items()}
    assert find_suspects(turned, LabelIssues(max_rows=200), seed=13).equals(first)
    assert first.height > 0


def test_validation_and_test_tell_train_nothing() -> None:
    rows, _ = flipped(opinions(600), 0.1)
    splits = into_splits(rows)
    strange = table([{"text": "quux " * at, "label": ("positive", "negative")[at % 2]} for at in range(1, 90)], "other")
    other = {"train": splits["train"], "validation": strange[:40], "test": strange[40:]}
    all_doubts = LabelIssues(min_confidence=0.0)
    said = [find_suspects(each, all_doubts, seed=13).filter(split="train") for each in (splits, other)]
    assert said[0].height > 0
    assert said[0].equals(said[1])


def test_a_row_is_judged_by_what_is_outside_its_group() -> None:
    """A wrong label that a whole group shares is seen through; with some of it in the other folds it looks right."""
    rows = opinions(400)
    lie: list[dict[str, str | None]] = [
        {"text": f"a brilliant moving fresh zyzzyva number {at}", "label": "negative", "group": "liars"}
        for at in range(12)
    ]
    train = pl.concat([rows, table(lie, "lie")])
    splits = {"train": train, "validation": opinions(40, 1), "test": opinions(40, 2)}
    splits = {name: part.with_columns(id=pl.lit(name) + pl.col("id")) for name, part in splits.items()}
    grouped = find_suspects(splits, LabelIssues(), seed=13)
    assert grouped["id"].str.starts_with("trainlie").sum() >= 10
    alone = splits | {"train": splits["train"].with_columns(group=pl.lit(None, pl.String))}
    assert find_suspects(alone, LabelIssues(), seed=13)["id"].str.starts_with("trainlie").sum() == 0


def test_a_label_that_a_classifier_never_saw_is_not_doubted() -> None:
    rare = table([{"text": "a brilliant, moving, fresh, witty, gorgeous, touching plot", "label": "rare"}], "rare")
    splits = into_splits(opinions(200))
    found = find_suspects(splits | {"train": pl.concat([splits["train"], rare])}, LabelIssues(min_confidence=0.0), 13)
    assert "rare" not in found["label"]


@pytest.mark.parametrize(
    "train",
    [
        [],
        [{"text": "one text", "label": "a"}],
        [{"text": f"text {at}", "label": "a"} for at in range(9)],
        [{"text": f"text {at}", "label": "ab"[at % 2], "group": "all"} for at in range(9)],
        [{"text": "!!! ???", "label": "ab"[at % 2]} for at in range(9)],
    ],
    ids=["none", "one", "one label", "one group", "no words"],
)
def test_where_nothing_can_be_learnt_nobody_is_suspected(train: list[dict[str, str | None]]) -> None:
    splits = {"train": table(train), "validation": table([{"text": "x", "label": "b"}], "v"), "test": table([], "t")}
    assert find_suspects(splits, LabelIssues(min_confidence=0.0), seed=13).equals(Suspects.empty())


# ── acting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def suspicion(rows: pl.DataFrame, split: str = "train") -> pl.DataFrame:
    made = rows.with_columns(split=pl.lit(split), suggested=pl.lit("positive"), confidence=pl.lit(0.9))
    return made.select(Suspects.columns())


def test_the_mark_stands_beside_the_other_keys_of_extra() -> None:
    extras = [None, '{"né":"a, \\"b\\""}', '{"suspect":"no","a":null}', "{}"]
    rows = table([{"text": "t", "label": "a", "extra": extra} for extra in extras])
    after, out = act(dict.fromkeys(SPLITS, rows), suspicion(rows[:1]), "flag")
    assert out.is_empty()
    assert after["test"]["extra"].to_list() == [
        '{"suspect":"yes"}',
        '{"né":"a, \\"b\\"","suspect":"no"}',
        '{"a":null,"suspect":"no"}',
        '{"suspect":"no"}',
    ]


def test_rejecting_takes_suspects_out_of_train_alone_and_says_why() -> None:
    splits = into_splits(opinions(40))
    found = pl.concat([suspicion(splits[name][:3], name) for name in SPLITS])
    after, out = act(splits, found, "reject")
    assert out["id"].to_list() == splits["train"]["id"][:3].to_list()
    assert set(out["reason"]) == {"the label looks wrong: positive has the probability 0.9"}
    assert after["train"].equals(splits["train"][3:])
    assert all(after[name].equals(splits[name]) for name in ("validation", "test"))


def test_no_label_is_rejected_out_of_train_altogether() -> None:
    rare = table([{"text": f"text {at}", "label": "rare"} for at in range(3)], "rare")
    splits = into_splits(opinions(40))
    splits["train"] = pl.concat([splits["train"], rare])
    after, out = act(splits, suspicion(splits["train"].filter(label="rare")), "reject")
    assert out.is_empty()
    assert after["train"].equals(splits["train"])
    after, out = act(splits, suspicion(rare[:2]), "reject")
    assert out.height == 2
    assert after["train"].filter(label="rare").height == 1
