"""How two files differ, said in a line: real files of every kind that an out can be."""

import shutil
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

from flows.reviewing.outs import KINDS, difference

ROWS = pl.DataFrame({"id": ["a", "b", "c"], "text": ["good film", "bad film", "odd film"], "n": [1, 2, 3]})
WEIGHTS = {"bert.bias": np.zeros(4, np.float32), "bert.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}


def told(folder: Path, name: str, *contents: Any) -> str:
    """Write two files of one name, and return how they differ."""
    paths = [folder / side / name for side in ("old", "new")]
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return difference(*paths)


TENSORS = {
    "sign": (np.zeros(1, np.float32), -np.zeros(1, np.float32), "1 of 1 tensors differ, by up to 0 (a)"),
    "bfloat16": (
        np.ones(3, ml_dtypes.bfloat16),
        np.ones(3, ml_dtypes.bfloat16) / 2,
        "1 of 1 tensors differ, by up to 0.5 (a)",
    ),
    "no number": (np.ones(2, np.float32), np.array([1, np.nan], np.float32), "1 of 1 tensors differ, by up to inf (a)"),
    "shape": (np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), "a: float32[2, 3] → float32[3, 2]"),
}


@pytest.mark.parametrize(
    ("name", "old", "new", "how"),
    [
        ("t.parquet", ROWS, ROWS.with_columns(n=pl.Series([1, 5, 6])), "2 of 3 rows differ, first row 2, in n"),
        ("t.parquet", ROWS, ROWS.tail(1), "3 → 1 rows"),
        ("t.parquet", ROWS, ROWS.rename({"text": "words"}), "other columns: text, words"),
        ("a.json", '{"f1": {"a.b": 0.7}, "n": 1}', '{"f1": {"a.b": 0.8}, "n": 2}', "f1.a.b differs and 1 more"),
        ("a.json", "[1]", "[1, 2]", "the whole differs"),
        ("a.json", '{"a": 1}', '{"a":1}', "other bytes (8 → 7)"),
        (
            "m.safetensors",
            save(WEIGHTS),
            save({"bert.bias": WEIGHTS["bert.bias"]}),
            "1 tensors that only one has, first bert.weight",
        ),
        *(("m.safetensors", save({"a": old}), save({"a": new}), how) for old, new, how in TENSORS.values()),
        ("m.onnx", b"abc", b"ab", "other bytes (3 → 2)"),
        ("t.parquet", b"no table", ROWS, "no readable parquet file, other bytes"),
    ],
)
def test_what_differs_is_said_in_the_words_of_the_format(
    name: str, old: Any, new: Any, how: str, tmp_path: Path
) -> None:
    assert told(tmp_path, name, old, new).startswith(how)


def test_a_folder_with_a_file_more_less_or_other(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "inner").mkdir(parents=True)
    (old / "inner" / "config.json").write_text('{"a": 1}')
    (old / "vocab.txt").write_text("x")
    shutil.copytree(old, new)
    assert difference(old, new) == ""
    (new / "inner" / "config.json").write_text('{"a": 2}')
    assert difference(old, new) == "inner/config.json: a differs"
    (new / "extra.bin").write_bytes(b"1")
    assert difference(old, new) == "extra.bin: only one of the two files is here (and 1 more files)"
    assert difference(old, tmp_path / "nowhere") == "only one of the two files is here"


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = b"cos\nsystem\n(S'touch " + str(tmp_path / "trapped").encode() + b"'\ntR."
    for name in ("model.pkl", "training_args.bin", "model.safetensors", "t.parquet"):
        assert told(tmp_path, name, trap, trap + b" ")
    assert not (tmp_path / "trapped").exists()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted({*KINDS, ".bin"})), st.binary(max_size=40), st.binary(max_size=40))
def test_two_files_differ_if_and_only_if_their_bytes_do(suffix: str, old: bytes, new: bytes) -> None:
    with TemporaryDirectory() as folder:
        assert bool(told(Path(folder), f"file{suffix}", old, new)) == (old != new)
