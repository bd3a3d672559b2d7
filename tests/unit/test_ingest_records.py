"""From a source's columns to records: nothing is lost, an id outlives all but its text, labels are never guessed."""

import json
import random
import re
import tempfile
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.readers.databases import QueryTable
from stages.common.readers.streams import Layout
from stages.common.readers.tables import open_table
from stages.common.schemas import RawRecords, Rejected
from stages.ingest.labels import check_look_alikes, label_names
from stages.ingest.records import check_label_map
from stages.ingest.spool import Spool
from stages.tasks.base import Task
from tests.unit.small_records import NUMBERS, SETS, TASK, make_records, records_of

TABLE = pl.DataFrame(
    {
        "body": ["good film", "bad film"],
        "stars": ["5", "1"],
        "film": ["A", "B"],
        "fold": ["train", "test"],
        "mood": ["happy", None],
        "day": ["2026-01-31 9:00", None],
    }
)


def to_records(table: pl.DataFrame, source: Source) -> pl.DataFrame:
    return pl.concat(records_of(QueryTable(source.origin, [table]), source))


def spool_of(records: pl.DataFrame, size: int = 3, task: Task = TASK) -> Spool:
    """The records, without their ids, in small batches. Their folder is removed when the spool is no longer used."""
    folder = tempfile.TemporaryDirectory()
    spool = Spool(Path(folder.name), task)
    weakref.finalize(spool, folder.cleanup)
    new = {name: pl.lit(None, pl.String) for name in ("rule", "left_out") if name not in records.columns}
    for batch in records.drop("id", strict=False).with_columns(**new).iter_slices(size):
        spool.add(batch)
    return spool


def with_ids(records: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(spool_of(records).batches())


def selected(
    records: pl.DataFrame, labels: dict[str, str] | None = None, limit: int | None = None, seed: int = 13
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that are kept, and those that are rejected."""
    spool = spool_of(records)
    pairs = zip(*spool.split(label_names(spool.names, labels or ()), labels, limit, seed), strict=True)
    kept, rejected = (
        pl.concat([empty.empty(), *frames], how="diagonal")
        for empty, frames in zip((RawRecords, Rejected), pairs, strict=True)
    )
    assert kept.height + rejected.height == records.height
    return kept, rejected


def source(**columns: Any) -> Source:
    return Source(path="data/inbox/a.csv", columns={"text": "body", "label": "stars", **columns})


def test_columns_get_the_names_of_a_record_and_rows_that_of_their_source() -> None:
    mapped = source(group="film", split="fold", text_pair="mood", timestamp="day", extra=["mood", "film"])
    records = to_records(TABLE, mapped)
    assert records.row(0, named=True) == {
        "text": "good film",
        "text_pair": "happy",
        "label": "5",
        "group": "A",
        "split": "train",
        "timestamp": "2026-01-31 9:00",
        "source": "data/inbox/a.csv",
        "extra": '{"mood":"happy","film":"A"}',
        "left_out": None,
        "rule": None,
    }
    assert json.loads(records["extra"][1]) == {"mood": None, "film": "B"}
    lines = Source(path="data/inbox/a.txt", label="good")
    records = to_records(pl.DataFrame({"line": ["a", None]}), lines)
    assert records.select("text", "label").rows() == [("a", "good"), (None, "good")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "bodi"}, "has no column 'bodi' (for text)\n  → did you mean 'body'?"),
        ({"group": "xyz"}, "has no column 'xyz' (for group)\n  → the columns are: body, stars, film, fold, mood, day"),
        ({"extra": ["MOD"]}, "has no column 'MOD' (for extra)\n  → did you mean 'mood'?"),
    ],
)
def test_a_missing_or_empty_column_is_answered_with_the_likely_ones(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(AttuneError) as raised:
        to_records(TABLE, source(**columns))
    assert str(raised.value) == f"data/inbox/a.csv {message}"
    with pytest.raises(AttuneError, match=r"'body' is empty in all 2 rows\n.*body, stars, film, fold, mood, day"):
        to_records(TABLE.with_columns(body=pl.lit(None, pl.String)), source())


def test_an_id_outlives_new_rows_and_a_new_label_group_split_and_source() -> None:
    def ids(rows: pl.DataFrame) -> dict[str, str]:
        return dict(with_ids(rows).select("source", "id").iter_rows())

    pairs = [("one", None), *[("two", None)] * 3, (None, "ab"), ("ab", None), ("a", "b"), ("ab", ""), ("a", "b\x1f")]
    rows = [{"text": text, "text_pair": pair, "source": f"s{n}"} for n, (text, pair) in enumerate(pairs)]
    records = make_records(rows)
    assert ids(records).items() <= ids(make_records([*rows, {"text": "another", "source": "s99"}])).items()
    new = {name: pl.lit("test") for name in ("label", "group", "split", "source", "extra")}
    names = with_ids(records)["id"].to_list()
    assert sorted(names) == sorted(with_ids(records.with_columns(**new))["id"])
    first, second, third = sorted(names[1:4])
    assert (second, third) == (f"{first}.2", f"{first}.3")
    assert not any("." in name for name in [names[0], *names[4:]]), "other pairs of texts have other ids"


TEXT = (
    st.none() | st.sampled_from(["a", "b", "\x1f", ""]) | st.text(st.characters(exclude_characters="\x1e"), max_size=5)
)


@given(st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["x", "y", None])), min_size=1, max_size=12), st.randoms())
def test_ids_are_unique_and_the_same_in_any_order_whatever_the_texts(
    rows: list[tuple[str | None, str | None, str | None]], rng: random.Random
) -> None:
    def ids(some: list[tuple[str | None, str | None, str | None]]) -> list[tuple[Any, ...]]:
        records = with_ids(make_records([dict(zip(("text", "text_pair", "label"), row, strict=True)) for row in some]))
        assert records["id"].is_unique().all()
        assert records.select("text", "text_pair", "label").rows() == some
        return sorted(records.select("id", "text", "text_pair", "label").rows(), key=repr)

    assert ids(rows) == ids(rng.sample(rows, len(rows)))


LABEL = st.none() | st.sampled_from(["a", " b", "", "\x00"]) | st.text(max_size=3)


@given(
    st.lists(st.tuples(TEXT, LABEL), min_size=1, max_size=12),
    st.sampled_from([None, {"a": "A", "b": "a"}]),
    st.none() | st.integers(1, 4),
)
def test_each_row_is_kept_or_rejected_whatever_it_holds(
    rows: list[tuple[str | None, str | None]], labels: dict[str, str] | None, limit: int | None
) -> None:
    records = make_records([{"text": text, "label": label} for text, label in rows])
    kept, rejected = selected(records, labels, limit)
    assert kept.height <= (limit or len(rows))
    assert pl.concat([kept["id"], rejected["id"]]).is_unique().all()
    assert labels is None or set(kept["label"]) <= {None, "A", "a"}


def test_a_label_outside_the_map_is_rejected_with_the_reason() -> None:
    labels = ["1", " 5", "3", " \t", "\x1b" + "x" * 500]
    records = make_records([{"text": text, "label": label} for text, label in zip("abcde", labels, strict=True)])
    kept, rejected = selected(records, labels={"1": "5", "5": "1"})
    assert kept.select("text", "label").rows() == [("a", "5"), ("b", "1"), ("d", None)]
    assert rejected.select("text", "label", "stage", "rule").rows() == [
        ("c", "3", "ingest", "unmapped_label"),
        ("e", labels[-1], "ingest", "unmapped_label"),
    ]
    assert rejected["reason"][0] == "label 3 is not in ingest.labels"
    assert "\x1b" not in rejected["reason"][1] and len(rejected["reason"][1]) < 120


MISSING = ["\\N", "NULL", "null", "None", " nan", "NaN ", "#N/A", "N/A", "<NA>", "#NAME?", "#REF!"]


@pytest.mark.parametrize(
    ("raw", "labels", "named"),
    [
        ([*MISSING, "NA", "none", "null set"], None, [None] * 11 + ["NA", "none", "null set"]),
        (["None", "nan", "a"], {"None": "nothing", "a": "A"}, ["nothing", None, "A"]),
        (["1.0", "1", "nan", "0.00", "-2.0"], None, ["1", "1", None, "0", "-2"]),
        (["1.0", "1.5", "2"], {"1": "a", "2": "b", "1.5": "c"}, ["a", "c", "b"]),
        (["1.0", "1", "one"], None, ["1.0", "1", "one"]),
        (["1.0", "2.0"], {"1.0": "a", "2": "b"}, ["a", "b"]),
        (["\ufeffgood", "go\u200bod", "good\xa0 one", "\u200b"], None, ["good", "good", "good one", None]),
        (["cafe\u0301", "caf\xe9", "R&amp;amp;D", "R&D"], None, ["caf\xe9", "caf\xe9", "R&D", "R&D"]),
        (["cafe\u0301", "R&amp;D", "R&D"], {"caf\xe9": "a", "R&amp;D": "b"}, ["a", "b", "b"]),
        (['="0012"', "0012", "'-1", "-1", "'tis"], None, ["0012", "0012", "-1", "-1", "'tis"]),
        (["a\u200b", "a", "a\xad"], {"a\u200b": "odd", "a": "even"}, ["odd", "even", "even"]),
    ],
)
def test_a_label_that_says_it_is_none_is_none_unless_it_is_listed(
    raw: list[str], labels: dict[str, str] | None, named: list[str | None]
) -> None:
    kept, _ = selected(make_records([{"text": f"t{n}", "label": label} for n, label in enumerate(raw)]), labels)
    assert kept["label"].to_list() == named


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (
            ["Pos", "pos", "pos", "neg"],
            "'pos' (2) and 'Pos' (1)\n  → list all labels in ingest.labels, with what each ",
        ),
        (["Pos", "pos", "pos", "neg"], "stands for: {'pos': 'pos', 'Pos': 'pos', …}; or mend the file"),
        (["pos", "\u0440os"], r"""'pos' (1) and "\u0440os" (1)"""),  # a Cyrillic er
        (["NEG", "ne\u200dg"], r"""'NEG' (1) and "ne\u200dg" (1)"""),
        (["\U0001f44d", "\U0001f44d\ufe0f"], r""""\U0001f44d" (1) and "\U0001f44d\ufe0f" (1)"""),
        (["1", "\uff11"], r"""'1' (1) and "\uff11" (1)"""),
        (["GR\xd6\xdfE", "gr\xf6\xdfe"], "'GR\xd6\xdfE' (1) and 'gr\xf6\xdfe' (1)"),
        (["f\xe9minin", "f\xc3\xa9minin"], r""""f\xc3\xa9minin" (1) and "f\xe9minin" (1)"""),
        (["not-good", "not\u2013good"], r"""'not-good' (1) and "not\u2013good" (1)"""),
    ],
)
def test_names_that_differ_by_case_or_look_alone_are_an_error_unless_they_are_listed(
    names: list[str], shown: str
) -> None:
    counts = Counter(names)
    with pytest.raises(AttuneError) as raised:
        check_look_alikes(counts, [])
    assert shown in str(raised.value)
    with pytest.raises(AttuneError, match="differ by case or look"):
        check_look_alikes(counts, names[:1])
    check_look_alikes(counts, names)
    check_look_alikes(counts, ["other"])
    check_look_alikes(Counter(["pos", "neg", "r\xe9sum\xe9", "resume"]), [])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ('["pos"]', "pos"),
        ("['pos']", "pos"),
        (" [1]", "1"),
        ("[null]", None),
        ("[true]", "true"),
        ("[other]", "[other]"),
        ("{x", "{x"),
        ("[" * 100_000, "[" * 100_000),
        ('["listed", "both"]', '["listed", "both"]'),
        ("{'pos'}", "pos"),
        ("[2.]", "2.0"),
        ("[np.int64(2)]", "2"),
        ("['it is' \n 'b']", "there seem to be several labels: ['it is'   'b']"),  # numpy's lists have no commas
        ("[ 2 10]", "there seem to be several labels: [ 2 10]"),
        ("[]", "there is an empty list: []"),
        ('["a", "b"]', 'there seem to be several labels: ["a", "b"]'),
        ("[0, 1]", "there seem to be several labels: [0, 1]"),
        ('{"POS": 1}', 'there seem to be scores per label: {"POS": 1}'),
        ("{'POS': 0.5}", "there seem to be scores per label: {'POS': 0.5}"),
        ('[{"label": "POS", "score": 0.5}]', "there seem to be scores per label"),
        ('{"choices": ["pos"]}', "there is an answer of Label Studio"),
        ('[{"value": {"choices": ["pos"]}}]', "there is an answer of Label Studio"),
        ('[[0, 4, "PER"]]', "there seem to be labels of parts of the text"),
        ('{"label": "pos"}', "there is a JSON object"),
    ],
)
def test_a_list_of_one_label_is_that_label_and_other_structures_are_none(label: str, expected: str | None) -> None:
    stars = ["5", None, label, label]
    batches = [pl.DataFrame({"body": ["a", "b"], "stars": stars[at : at + 2]}) for at in (0, 2)]
    records = records_of(QueryTable("q", batches), source(), labels={'["listed", "both"]': "both", "5": "five"})
    if expected and expected.startswith("there "):
        with pytest.raises(AttuneError, match=re.escape(f"q, row 3: instead of one label {expected}")):
            pl.concat(records)
    else:
        assert pl.concat(records)["label"].to_list() == ["5", None, expected, expected]


def test_what_stands_for_nothing_in_other_columns_is_nothing() -> None:
    texts = ["\\N", " NULL", "#N/A", "nan", "None", "N/A", "NA", "-"]
    table = pl.DataFrame({"body": texts, "stars": texts, "film": texts})
    mapped = source(group="film", extra=["film", "body"])
    records = pl.concat(records_of(QueryTable("a", [table]), mapped, missing=["-"]))
    extra = [tuple(json.loads(cell).values()) for cell in records["extra"]]
    assert extra == [(None, None)] * 6 + [("NA", "NA"), (None, None)]
    assert records["text"].to_list() == [None] * 4 + ["None", "N/A", "NA", None]
    assert records["label"].to_list() == texts, "decided when all labels are known"
    assert records["group"].to_list() == [None] * 6 + ["NA", None]
    with pytest.raises(AttuneError, match="'body' is empty in all 4 rows"):
        to_records(table.head(4), source())


@pytest.mark.parametrize(
    ("labels", "counts", "message"),
    [
        ({"1": "bad", "5": "good"}, ["good", "bad"], "ingest.labels maps 1, 5, but the data holds bad, good"),
        ({"1": "bad", "5": "good"}, [], "ingest.labels maps 1, 5, but the data holds no labels"),
        ({"Lob": "good", "tadel": "bad"}, ["lob", "tadel", "frage"], "'Lob', which no row has.*'lob'"),
    ],
)
def test_a_map_that_does_not_fit_the_data_is_an_error_that_shows_both_sides(
    labels: dict[str, str], counts: list[str], message: str
) -> None:
    with pytest.raises(AttuneError, match=message):
        check_label_map(Counter(counts), labels)
    check_label_map(Counter(["lob", "tadel", "frage"]), {"lob": "good", "tadel": "bad", "99": "other"})


def test_official_splits_get_the_names_used_everywhere() -> None:
    def splits(names: list[str | None], **given: str) -> list[tuple[str | None, str | None]]:
        table = pl.DataFrame({"body": ["x"] * len(names), "stars": "5", "fold": names})
        records = records_of(QueryTable("q", [table]), source(split="fold"), split_names=given)
        return pl.concat(records).select("split", "left_out").rows()

    whole = Source(path="data/inbox/t.csv", columns={"text": "body", "label": "stars"}, split="test")
    assert to_records(TABLE, whole)["split"].to_list() == ["test", "test"]
    names = ["Train", " TEST", "valid", "val", "dev", "validation", None, "  "]
    assert [split for split, _ in splits(names)] == ["train", "test", *["validation"] * 4, None, None]
    folds = ["train", "fold1", "fold2", "fold1"]
    with pytest.raises(AttuneError) as raised:
        splits(folds)
    assert "the split column holds fold1, fold2 in 3 rows" in str(raised.value)
    assert "such as ingest.split_names: {fold1: train} (train, validation, test or drop)" in str(raised.value)
    assert splits(folds, fold1="test", FOLD2="drop") == [
        ("train", None),
        ("test", None),
        (None, "ingest.split_names drops fold2"),
        ("test", None),
    ]
    assert splits(["1.0", "dev", "drop"], **{"1": "test", "dev": "test", "drop": "train"})[1] == ("test", None)
    with pytest.raises(AttuneError, match="holds drop in 1 rows"):
        splits(["drop", "a"], a="drop")


ANSWERS = pl.DataFrame(
    {
        "body": ["a", "b", "c", "a", "d"],
        "stars": ["5", '["x", "y"]', "1", "9", None],
        "answer": ["accept ", "reject", "accept", "ignore", None],
        "n": ["1.0", "2", None, "1", "True"],
        "fold": ["train", "odd", "test", "odd", "train"],
    }
)


@pytest.mark.parametrize(
    ("where", "kept", "reasons"),
    [
        ({"answer": "accept"}, ["a", "c"], ["where: answer is not accept"] * 3),
        ({"answer": ["accept", ""]}, ["a", "c", "d"], ["where: answer is not accept or empty"] * 2),
        (
            {"answer": "accept", "n": [1, 2.0]},
            ["a"],
            ["where: answer is not accept", "where: n is not 1 or 2.0", *["where: answer is not accept"] * 2],
        ),
        ({"n": True}, ["d"], ["where: n is not True"] * 4),
    ],
)
def test_only_the_rows_that_where_names_are_read_and_the_others_are_rejected(
    where: dict[str, Any], kept: list[str], reasons: list[str]
) -> None:
    chosen = source(split="fold").model_copy(update={"where": where})
    records = pl.concat(records_of(QueryTable("q", [ANSWERS]), chosen))
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), TASK)
        spool.add(records)
        assert set(spool.names) <= {"5", "1"}, "what is left out has no say in what the labels are"
        [(rows, rejected)] = spool.split(label_names(spool.names), None, None, 13)
    assert rows["text"].to_list() == kept
    assert rejected["reason"].to_list() == reasons and set(rejected["rule"]) == {"left_out"}
    assert not any("." in id for id in rows["id"]), "the row whose text is there twice is the one that stays"


def test_a_where_that_fits_no_row_or_no_column_is_answered_with_what_is_there() -> None:
    with pytest.raises(AttuneError) as raised:
        to_records(ANSWERS, source().model_copy(update={"where": {"answer": "Accept"}}))
    assert str(raised.value).startswith("data/inbox/a.csv: where leaves out all 5 rows\n")
    assert "mend it: answer holds accept, accept , ignore, reject" in str(raised.value)
    with pytest.raises(AttuneError, match="where leaves out all 5 rows"):
        to_records(ANSWERS, source().model_copy(update={"where": {"answer": []}}))
    with pytest.raises(AttuneError, match=r"no column 'anser' \(for where\)\n.*did you mean 'answer'"):
        to_records(ANSWERS, source().model_copy(update={"where": {"anser": "accept"}}))


def test_a_limit_keeps_that_many_rows_and_rejects_the_others_with_the_reason() -> None:
    records = make_records([{"text": f"text {n}"} for n in range(50)])
    kept, rejected = selected(records, limit=20)
    assert kept.height == 20
    assert set(kept["id"]) | set(rejected["id"]) == set(with_ids(records)["id"])
    assert set(rejected["reason"]) == {"ingest.limit keeps 20 rows"}
    assert set(selected(records.reverse(), limit=20)[0]["id"]) == set(kept["id"])
    assert set(selected(records, limit=20, seed=14)[0]["id"]) != set(kept["id"])
    for most in (50, 51):
        assert selected(records, limit=most)[0].select("text").equals(records.select("text"))


def read_and_split(
    table: pl.DataFrame, source: Source, task: Task, labels: dict[str, str] | None = None, **ingest: Any
) -> tuple[dict[str, str | None], dict[str, tuple[str, str]]]:
    """The labels of the rows that are kept, and rule and reason of the rejected ones, by their texts."""
    records = pl.concat(records_of(QueryTable("q", [table]), source, task, labels=labels, **ingest))
    spool = spool_of(records, task=task)
    named = label_names(spool.names, labels or (), ingest.get("missing", ()))
    [kept, rejected] = (pl.concat(some) for some in zip(*spool.split(named, labels, None, 13), strict=True))
    assert kept.height + rejected.height == table.height
    reasons = {text: (rule, reason) for text, rule, reason in rejected.select("text", "rule", "reason").iter_rows()}
    return dict(kept.select("text", "label").iter_rows()), reasons


LISTS = {
    "json": '["b","a"]',
    "python": "['a', 'b']",
    "marks between": "a; b",
    "one": "a",
    "none": "[]",
    "no cell": None,
    "missing": "nan",
    "missing inside": '["NULL"]',
    "unknown": "a|zzz",
    "scores": '{"a": 0.5}',
}


def test_sets_of_labels_are_read_in_every_spelling_and_the_others_rejected_with_the_reason() -> None:
    table = pl.DataFrame({"body": [*LISTS], "stars": [*LISTS.values()]})
    kept, rejected = read_and_split(table, source(), SETS, labels={"a": "A", "b": "b"})
    assert kept == {
        **dict.fromkeys(("json", "python", "marks between"), '["A","b"]'),
        "one": '["A"]',
        "none": "[]",
        **dict.fromkeys(("no cell", "missing", "missing inside")),
    }
    assert rejected == {
        "unknown": ("unmapped_label", "label zzz is not in ingest.labels"),
        "scores": ("bad_target", 'instead of labels there seem to be scores per label: {"a": 0.5}'),
    }
    assert read_and_split(table[:9], source(), SETS)[0]["unknown"] == '["a","zzz"]'


def test_a_column_of_marks_for_each_label_makes_sets_of_their_names() -> None:
    marks = {"urgent": ["1", "x", "0.0", None, "yes", "1"], "to pay": ["1.0", "No", "false", "", "2", "True"]}
    table = pl.DataFrame({"body": [*"abcdef"], **marks, "answer": [*["yes"] * 5, "no"]})
    columns = {"text": "body", "labels": ["urgent", "to pay"]}
    chosen = Source(path="data/inbox/a.csv", columns=columns, where={"answer": "yes"})
    kept, rejected = read_and_split(table, chosen, SETS)
    assert kept == {"a": '["to pay","urgent"]', "b": '["urgent"]', "c": "[]", "d": "[]"}
    reason = "the column to pay of a label holds 2, which is neither yes (1) nor no (0)"
    assert rejected == {"e": ("bad_target", reason), "f": ("left_out", "where: answer is not yes")}
    with pytest.raises(AttuneError, match="row 2: instead of one label there is an empty list"):
        to_records(table[1:], chosen)
    with pytest.raises(AttuneError, match=r"no column 'urgnt' \(for labels\)"):
        to_records(
            table, chosen.model_copy(update={"columns": chosen.columns.model_copy(update={"labels": ["urgnt"]})})
        )


def test_numbers_are_read_and_what_is_none_or_out_of_range_is_rejected_with_the_reason() -> None:
    cells = {"a": "3.80", "b": " 4", "c": None, "d": "NaN", "e": "-", "f": "3,8", "g": "7.5", "h": "inf", "i": "good"}
    table = pl.DataFrame({"body": [*cells], "stars": [*cells.values()]})
    kept, rejected = read_and_split(table, source(), NUMBERS, missing=["-", "4"])
    assert kept == {"a": "3.8", **dict.fromkeys("bcde")}
    assert {rule for text, (rule, _) in rejected.items() if text != "g"} == {"bad_target"}
    assert [reason for _, reason in rejected.values()][1:] == [
        "7.5 is outside of ingest.range, 0 to 5",
        "inf is no number",
        "good is no number",
    ]
    assert not spool_of(make_records([{"text": "a", "label": "3"}]), task=NUMBERS).names


def test_a_pattern_parts_plain_lines_and_rejects_those_that_do_not_match(tmp_path: Path) -> None:
    lines = tmp_path / "a.txt"
    lines.write_bytes(b"1_1\t-0.5\tgood: film\r\n\r\n1_2\t\tbad \xe2\x80\xa8film\r\nno tabs\r\n2_1\t3\tlong\tfilm\r\n")
    columns = {"text": "text", "label": "rating", "group": "review", "extra": ["text"]}
    pattern = r"(?P<review>\d+)_\d+\t(?P<rating>\S*)\t(?P<text>.+)"
    film = Source(path="data/inbox/a.txt", pattern=pattern, columns=columns)
    with open_table(lines, "a.txt", Layout("lines")) as table:
        records = pl.concat(records_of(table, film, NUMBERS))
    assert records.select("text", "label", "group", "left_out").rows() == [
        ("good: film", "-0.5", "1", "-0.5 is outside of ingest.range, 0 to 5"),
        (None, None, None, "pattern: the line does not match"),
        ("bad \u2028film", None, "1", None),
        ("no tabs", None, None, "pattern: the line does not match"),  # which a person can find
        ("long\tfilm", "3", "2", None),
    ]
    assert set(records["rule"]) == {None, "left_out", "out_of_range"}
    few = Source(path="data/inbox/a.txt", pattern=r"(?P<text>\d+)", columns={"text": "text"}, label="x")
    fault = r"^a.txt: pattern fits none of the 5 lines\n.*a line is '1_1 -0.5 good: film'"
    with open_table(lines, "a.txt", Layout("lines")) as table, pytest.raises(AttuneError, match=fault):
        list(records_of(table, few))
    both = Source(path="data/inbox/a.txt", pattern=pattern, columns=columns, where={"review": [1], "rating": ""})
    with open_table(lines, "a.txt", Layout("lines")) as table:
        assert pl.concat(records_of(table, both, NUMBERS))["left_out"].null_count() == 1


def test_lines_of_fasttext_hold_labels_and_text(tmp_path: Path) -> None:
    lines = "__label__a __label__b,c  a long  text\n__label__a\tanother __label__d\nno label\n"
    (tmp_path / "a.txt").write_text(lines, encoding="utf-8")
    fast = Source(path="data/inbox/a.txt", format="fasttext")
    with open_table(tmp_path / "a.txt", "a.txt", Layout("fasttext")) as table:
        records = pl.concat(records_of(table, fast, SETS))
    read = records.select("text", "label").rows()
    assert read == [("a long  text", '["a","b,c"]'), ("another", '["a","d"]'), ("no label", None)]
    (tmp_path / "b.txt").write_text("__label__2 Great CD: so good\n", encoding="utf-8")
    with open_table(tmp_path / "b.txt", "b.txt", Layout("fasttext")) as table:
        assert pl.concat(records_of(table, fast)).select("text", "label").rows() == [("Great CD: so good", "2")]
    for wrong in ({"label": "a"}, {"columns": {"text": "a", "label": "b"}}):
        with pytest.raises(ValueError, match=r"lines of fastText have none|hold labels: leave it out"):
            Source(path="data/inbox/a.txt", format="fasttext", **wrong)
