"""How two files differ, said in a line: real files of every kind that an out can be."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from flows.reviewing.file_differences import KINDS, difference
from flows.reviewing.revision import read_parquet

Pair = Callable[..., str]
ROWS = pl.DataFrame({"id": ["a", "b", "c"], "text": ["good film", "bad film", "odd film"], "n": [1, 2, 3]})
WEIGHTS = {"bert.bias": np.zeros(4, np.float32), "bert.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return a function that writes two files of one name, and says how they differ."""

    def how(name: str, old: Any, new: Any) -> str:
        for folder, content in (("old", old), ("new", new)):
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            if isinstance(content, pl.DataFrame):
                content.write_csv(path) if name.endswith(".csv") else content.write_parquet(path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return difference(tmp_path / "old" / name, tmp_path / "new" / name)

    return how


def changed(table: pl.DataFrame, row: int, **values: Any) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == row
    return table.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).alias(name) for name, value in values.items()
    )


TENSORS = {
    "sign": (np.zeros(1, np.float32), -np.zeros(1, np.float32), "by up to 0 (a)"),
    "bfloat16": (np.ones(3, ml_dtypes.bfloat16), np.ones(3, ml_dtypes.bfloat16) / 2, "by up to 0.5 (a)"),
    "no number": (np.ones(2, np.float32), np.array([1, np.nan], np.float32), "by up to inf (a)"),
    "shape": (np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), "a: float32[2, 3] → float32[3, 2]"),
}


@pytest.mark.parametrize(
    ("name", "old", "new", "how"),
    [
        ("t.parquet", ROWS, changed(ROWS, 1, n=5), "1 of 3 rows differ, first id b, n: '2' → '5'"),
        ("t.csv", ROWS, changed(ROWS, 1, text="a film"), "1 of 3 rows differ, first id b, text: 'bad film' → 'a film'"),
        (
            "t.parquet",
            ROWS.drop("id"),
            changed(ROWS.drop("id"), 2, n=4),
            "1 of 3 rows differ, first id 3, n: '3' → '4'",
        ),
        ("t.parquet", ROWS, ROWS.tail(1), "2 rows gone, 0 new, first id a"),
        ("t.parquet", ROWS, ROWS.reverse(), "rows in another order"),
        ("t.csv", "x,y\n1,0.5\n", "x,y\n1,0.50\n", "1 of 1 rows differ, first id 1, y: '0.5' → '0.50'"),
        ("a.json", '{"f1": {"a.b": 0.7}, "n": 1}', '{"f1": {"a.b": 0.8}, "n": 2}', "f1.a.b: '0.7' → '0.8' and 1 more"),
        ("a.json", "[1]", "[1, 2]", "the whole: '[1]' → '[1, 2]'"),
        ("page.html", "a\nb\nc\n", "a\nB\nc\n", "the first other line is line 2"),
        (
            "m.safetensors",
            save(WEIGHTS),
            save({"bert.bias": WEIGHTS["bert.bias"]}),
            "1 tensors that only one has, first bert.weight",
        ),
        (
            "m.safetensors",
            save(WEIGHTS),
            save(WEIGHTS | {"bert.bias": WEIGHTS["bert.bias"] + 1}),
            "1 of 2 tensors differ, by up to 1 (bert.bias)",
        ),
        *(
            (
                "m.safetensors",
                save({"a": old}),
                save({"a": new}),
                f"1 of 1 tensors differ, {how}" if "by" in how else how,
            )
            for old, new, how in TENSORS.values()
        ),
        ("m.onnx", b"abc", b"ab", "3 → 2 bytes, the first other one is byte 3"),
        (
            "m.onnx",
            b"a" * 3_000_000,
            b"a" * 2_000_000 + b"b" * 1_000_000,
            "3,000,000 → 3,000,000 bytes, the first other one is byte 2,000,001",
        ),
    ],
)
def test_what_differs_is_said_in_the_words_of_the_format(name: str, old: Any, new: Any, how: str, pair: Pair) -> None:
    assert pair(name, old, new) == how


def test_columns_that_come_go_or_change_their_type_are_named(pair: Pair) -> None:
    new = ROWS.rename({"text": "words"}).with_columns(pl.col("n").cast(pl.Float64))
    assert pair("t.parquet", ROWS, new) == "columns with another name, type or place: n, text, words"
    assert pair("t.parquet", ROWS, ROWS.select("id", "n", "text")) == "columns with another name, type or place"


def test_of_a_long_value_the_part_that_differs_is_shown_masked_and_on_one_line(pair: Pair) -> None:
    table = ROWS.with_columns(text=pl.lit("word " * 200 + "\nmail jo@example.org, \u202e") + pl.col("text"))
    how = pair("t.parquet", table, changed(table, 0, text=table["text"][0].replace("good", "best")))
    assert "good film" in how and "best film" in how and len(how) < 200
    assert "example.org" not in how and "\n" not in how and "\u202e" not in how


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.json", '{"a": 1}', '{"a":1}'),
        ("m.safetensors", save(WEIGHTS, metadata={"format": "pt"}), save(WEIGHTS, metadata={"format": "pu"})),
    ],
)
def test_the_same_content_in_other_bytes_is_said_to_be_that(name: str, old: Any, new: Any, pair: Pair) -> None:
    assert pair(name, old, new).startswith("the same content in other bytes; ")


def test_a_folder_with_a_file_more_less_or_other(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "inner").mkdir(parents=True)
    (old / "inner" / "config.json").write_text('{"a": 1}')
    (old / "vocab.txt").write_text("x")
    shutil.copytree(old, new)
    assert difference(old, new) == ""
    (new / "inner" / "config.json").write_text('{"a": 2}')
    assert difference(old, new) == "inner/config.json: a: '1' → '2'"
    (new / "extra.bin").write_bytes(b"1")
    assert difference(old, new) == "files that only one has: extra.bin"
    assert difference(old, new / "extra.bin") == "one is a folder, the other a file"
    assert difference(old, tmp_path / "nowhere") == "the new one is not there"


def test_nothing_is_unpickled(pair: Pair, tmp_path: Path) -> None:
    trap = b"cos\nsystem\n(S'touch " + str(tmp_path / "trapped").encode() + b"'\ntR."
    for name in ("model.pkl", "training_args.bin", "model.safetensors", "t.parquet"):
        assert pair(name, trap, trap + b" ")
    assert not (tmp_path / "trapped").exists()


def test_no_byte_of_a_damaged_table_can_end_the_review(tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for at in range(0, len(whole), 3):  # at some places, polars' own reader would end the process
        (tmp_path / "a.parquet").write_bytes(bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]))
        try:
            assert read_parquet(tmp_path / "a.parquet").width
        except OSError as error:
            assert "is damaged" in str(error)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted({*KINDS, ".bin"})), st.binary(max_size=40), st.binary(max_size=40))
def test_two_files_differ_if_and_only_if_their_bytes_do(suffix: str, old: bytes, new: bytes) -> None:
    with TemporaryDirectory() as folder:
        paths = Path(folder, f"old{suffix}"), Path(folder, f"new{suffix}")
        for path, content in zip(paths, (old, new), strict=True):
            path.write_bytes(content)
        assert bool(difference(*paths)) == (old != new)
