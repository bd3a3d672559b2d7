"""How two files differ, said in a line: real files of every kind that an out can be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from flows.reviewing.compared.file_differences import KINDS, difference

Pair = Callable[..., str]
ROWS = pl.DataFrame(
    {
        "id": ["a", "b", "c"],
        "text": ["good film", "bad film", "odd film"],
        "label": ["good", "bad", "bad"],
        "n": [1, 2, 3],
    }
)
WEIGHTS = {"bert.bias": np.zeros(4, np.float32), "bert.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return a function that writes two files of one name, and tells how they differ."""

    def told(name: str, old: Any, new: Any) -> str:
        for folder, content in (("old", old), ("new", new)):
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            if isinstance(content, pl.DataFrame):
                content.write_csv(path) if name.endswith(".csv") else content.write_parquet(path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return difference(tmp_path / "old" / name, tmp_path / "new" / name)

    return told


def changed(table: pl.DataFrame, row: int, **values: Any) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == row
    return table.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).alias(name) for name, value in values.items()
    )


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["train.parquet", "train.csv"])
def test_a_row_with_another_label_is_named(name: str, pair: Pair) -> None:
    told = pair(name, ROWS, changed(ROWS, 1, label="good"))
    assert told == "1 of 3 rows differs, first id b, label: 'bad' → 'good'"


def test_rows_are_counted_and_columns_too(pair: Pair) -> None:
    new = changed(changed(ROWS, 1, label="good", n=5), 2, n=7)
    told = pair("t.parquet", ROWS, new)
    assert told == "2 of 3 rows differ, first id b, label: 'bad' → 'good' and in 1 more columns"


def test_rows_without_an_id_go_by_their_number(pair: Pair) -> None:
    table = ROWS.drop("id")
    assert pair("t.parquet", table, changed(table, 2, n=4)) == "1 of 3 rows differs, first row 3, n: 3 → 4"
    assert pair("t.parquet", table, table.head(2)) == "3 → 2 rows"


def test_a_row_that_is_gone_does_not_make_all_others_differ(pair: Pair) -> None:
    assert pair("t.parquet", ROWS, ROWS.tail(2)) == "1 row gone (the first: a)"
    assert pair("t.parquet", ROWS.head(1), ROWS) == "2 rows new (the first: b)"


def test_the_order_of_rows_counts(pair: Pair) -> None:
    assert pair("t.parquet", ROWS, ROWS.reverse()) == "in another order"


def test_columns_that_come_go_or_change_their_type_are_named(pair: Pair) -> None:
    new = ROWS.rename({"text": "words"}).with_columns(pl.col("n").cast(pl.Float64))
    assert pair("t.parquet", ROWS, new) == "column text gone, column words new, column n of another type"
    assert pair("t.parquet", ROWS, ROWS.select("id", "label", "text", "n")) == "columns in another order"


def test_of_a_long_value_the_part_that_differs_is_shown_masked_and_on_one_line(pair: Pair) -> None:
    table = ROWS.with_columns(text=pl.lit("word " * 200 + "\nmail jo@example.org, \u202e") + pl.col("text"))
    told = pair("t.parquet", table, changed(table, 0, text=table["text"][0].replace("good", "best")))
    assert "[EMAIL]" in told and "example.org" not in told
    assert "\n" not in told and "\u202e" not in told
    assert "good film" in told and "best film" in told
    assert len(told) < 200


def test_a_value_in_a_list_and_one_that_is_missing(pair: Pair) -> None:
    table = pl.DataFrame({"id": ["a", "b"], "p": [[0.25, 0.75], None]})
    assert pair("t.parquet", table, changed(table, 1, p=[0.5])) == "1 of 2 rows differs, first id b, p: null → [0.5]"


def test_another_compression_is_the_same_content(pair: Pair, tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "a", compression="snappy")
    ROWS.write_parquet(tmp_path / "b", compression="uncompressed")
    told = pair("t.parquet", (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes())
    assert told.startswith("the same content in other bytes; ")


def test_numbers_of_a_csv_are_compared_as_they_are_written(pair: Pair) -> None:
    assert pair("c.csv", "x,y\n1,0.5\n", "x,y\n1,0.50\n") == "1 of 1 row differs, first row 1, y: '0.5' → '0.50'"


# ── reports and pages ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_first_keys_of_a_report_that_differ_are_named(pair: Pair) -> None:
    old = {"accuracy": 0.83, "per_class": {"bad": {"f1": 0.7}}, "list": [1, 2], "rows": 9, "kept": True}
    new = {"accuracy": 0.93, "per_class": {"bad": {"f1": 0.8}}, "list": [1, 3], "rows": 9.0, "kept": 1, "more": None}
    told = pair("metrics.json", json.dumps(old), json.dumps(new))
    assert told == "accuracy 0.83 → 0.93, per_class.bad.f1 0.7 → 0.8, list.1 2 → 3 and 3 more"


def test_a_key_with_a_dot_is_no_other_place(pair: Pair) -> None:
    assert pair("a.json", '{"a.b": 1}', '{"a": {"b": 1}}') == "a.b is gone, a.b is new"


def test_json_in_other_lines_is_the_same_content(pair: Pair) -> None:
    assert pair("a.json", '{"a": 1}', '{"a":1}').startswith("the same content in other bytes; ")


@pytest.mark.parametrize("name", ["page.html", "card.md"])
def test_of_a_page_the_first_other_line_is_told(name: str, pair: Pair) -> None:
    assert pair(name, "a\nb\nc\n", "a\nB\nc\n") == "4 lines, the first other one is line 2"
    assert pair(name, "a\nb\n", "a\nb\nc\n") == "3 → 4 lines, the first other one is line 3"


# ── weights ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_byte_of_a_weight_is_found_and_measured(pair: Pair) -> None:
    raw = bytearray(save(WEIGHTS))
    raw[-2] ^= 0x80  # in the exponent of the last one, 11: twice as much
    assert pair("m.safetensors", save(WEIGHTS), bytes(raw)) == "1 of 2 tensors differs, by up to 11 (bert.weight)"


def test_one_byte_of_the_header_is_found(pair: Pair) -> None:
    old = save(WEIGHTS, metadata={"format": "pt"})
    assert pair("m.safetensors", old, old.replace(b'"pt"', b'"pu"')) == "the notes in the header differ"
    told = pair("m.safetensors", old, old.replace(b'"F32"', b'"F33"', 1))
    assert told.startswith("the new file is no readable safetensors; ")
    renamed = pair("m.safetensors", old, old.replace(b"bert.bias", b"bert.bibs"))
    assert renamed == "1 tensor gone (bert.bias), 1 tensor new (bert.bibs)"


def test_another_shape_is_told_beside_other_weights(pair: Pair) -> None:
    new = {"bert.bias": WEIGHTS["bert.bias"] + 1, "bert.weight": WEIGHTS["bert.weight"].T.copy()}
    told = pair("m.safetensors", save(WEIGHTS), save(new))
    assert told == (
        "1 tensor of another shape or type (bert.weight: F32 3×4 → F32 4×3), "
        "1 of 2 tensors differs, by up to 1 (bert.bias)"
    )


def test_bfloat16_and_what_is_no_number(pair: Pair) -> None:
    bf16 = np.ones(3, ml_dtypes.bfloat16)
    assert "by up to 0.5" in pair("m.safetensors", save({"a": bf16}), save({"a": bf16 / 2}))
    one = np.array([np.nan, np.inf, 1.0], np.float32)
    other = np.array([np.nan, np.inf, 1.5], np.float32)
    assert "by up to 0.5" in pair("m.safetensors", save({"a": one}), save({"a": other}))
    assert "by up to no finite number" in pair(
        "m.safetensors", save({"a": one}), save({"a": other * np.float32("nan")})
    )
    zero = np.zeros(1, np.float32)
    assert "by up to 0 (a)" in pair("m.safetensors", save({"a": zero}), save({"a": -zero}))


# ── folders and everything else ───────────────────────────────────────────────────────────────────────────────────────
def test_a_folder_with_a_file_more_less_or_other(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "inner").mkdir(parents=True)
    (old / "inner" / "config.json").write_text('{"a": 1}')
    (old / "vocab.txt").write_text("x")
    shutil.copytree(old, new)
    assert difference(old, new) == ""
    (new / "extra.bin").write_bytes(b"1")
    assert difference(old, new) == "1 file new (extra.bin)"
    (new / "vocab.txt").unlink()
    (new / "inner" / "config.json").write_text('{"a": 2}')
    told = "1 file gone (vocab.txt), 1 file new (extra.bin), 1 of 1 files differs: inner/config.json: a 1 → 2"
    assert difference(old, new) == told
    assert difference(old, new / "extra.bin") == "a folder → a file"
    assert difference(old, tmp_path / "nowhere") == "the new one is not there"


def test_of_any_other_file_sizes_and_the_first_other_byte_are_told(pair: Pair) -> None:
    assert pair("m.onnx", b"a" * 3_000_000, b"a" * 2_000_000 + b"b" * 1_000_000) == (
        "3,000,000 bytes in both, the first other one is byte 2,000,001"
    )
    assert pair("m.onnx", b"abc", b"ab") == "3 → 2 bytes, the first other one is byte 3"


def test_nothing_is_unpickled(pair: Pair, tmp_path: Path) -> None:
    trap = b"cos\nsystem\n(S'touch " + str(tmp_path / "trapped").encode() + b"'\ntR."
    for name in ("model.pkl", "training_args.bin", "model.safetensors", "t.parquet"):
        assert pair(name, trap, trap + b" ")
    assert not (tmp_path / "trapped").exists()


CONTENT = {
    ".json": st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    ".csv": st.lists(st.sampled_from(["a", "b", "1,2", "", '"', "a,b,c"]), max_size=5).map("\n".join).map(str.encode),
    ".safetensors": st.dictionaries(
        st.sampled_from("abc"), st.lists(st.floats(width=32), max_size=3).map(lambda row: np.array(row, np.float32))
    ).map(save),
}


@given(st.data())
def test_it_says_nothing_if_and_only_if_the_bytes_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from([*KINDS, ".onnx", ""]))
    content = CONTENT.get(suffix, st.nothing()) | st.binary(max_size=20) | st.text(max_size=20).map(str.encode)
    old, new = data.draw(content), data.draw(content)
    folder = tmp_path_factory.mktemp("pair")
    paths = [folder / f"old{suffix}", folder / f"new{suffix}"]
    for path, raw in zip(paths, (old, new), strict=True):
        path.write_bytes(raw)
    told = difference(*paths)
    assert (told == "") == (old == new)
    assert "\n" not in told
    assert difference(paths[0], paths[0]) == ""


@given(st.data())
def test_a_byte_that_was_tampered_with_never_goes_unnoticed_nor_breaks_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tampered")
    name = data.draw(st.sampled_from(["t.parquet", "m.safetensors"]))
    (folder / "new").mkdir()
    old, new = folder / name, folder / "new" / name
    ROWS.write_parquet(old) if name.endswith("t") else old.write_bytes(save(WEIGHTS, metadata={"a": "b"}))
    raw = bytearray(old.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    new.write_bytes(raw)
    assert difference(old, new)
    new.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    assert difference(old, new)
