"""Outs of a rebuild compared with `dvc.lock`, with the real graph; and how two files of any kind differ, in a line."""

import json
import shutil
from hashlib import md5
from io import BytesIO
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

from flows.reviewing.findings import Machine, Rebuild
from flows.reviewing.outs import KINDS, compare_outs, difference
from flows.reviewing.revision import Revision
from stages.common.pipeline.graph import read_graph
from stages.tracking.registry import STAMP
from tests.projects import PROJECT

GRAPH = read_graph(PROJECT)
OUTS = [out for node in GRAPH.values() for out in node.outs]

Files = dict[str, Any]  # content by path

MODEL, PREDICTIONS = "models/finetuned/model.safetensors", "data/predictions.parquet"
METRICS, TRAIN = "reports/scores.json", "data/clean/train.parquet"
ENDS = {"": 0.8, "_low": 0.78, "_high": 0.82}
SCORES = {f"{name}{end}": value for name in ("accuracy", "macro_f1") for end, value in ENDS.items()}
MACHINE = {"processor": "A", "architecture": "x86_64", "instructions": "AVX2", "device": "cpu", "threads": "2"}
MACHINE |= {"processes": "1", "precision": "float32", "python": "3.11", "torch": "2.13.0"}
SAME, OTHER = ((MACHINE, MACHINE | {"processor": name}) for name in "AB")


def parquet(**columns: Any) -> bytes:
    pl.DataFrame(columns).write_parquet(buffer := BytesIO())
    return buffer.getvalue()


def predicted(bad: int = 0, rows: int = 200) -> bytes:
    """Predictions, of which so many are bad."""
    return parquet(id=[f"{row:03}" for row in range(rows)], prediction=["bad"] * bad + ["good"] * (rows - bad))


def scored(**scores: Any) -> Files:
    return {METRICS: json.dumps(SCORES | scores).encode()}


WEIGHTS, MOVED = ({MODEL: save({"bert.weight": np.array([1, 1, last], np.float32)})} for last in (1, 1.5))
USUAL = {**WEIGHTS, PREDICTIONS: predicted(), TRAIN: parquet(id=["a", "b"], label=["bad", "good"]), **scored()}


def made_of(folder: Path, files: Files) -> Revision:
    """Make all outs of the real graph, these and the usual ones, and the lock that DVC would write."""
    others = {out if Path(out).suffix else f"{out}/file": b"1" for out in OUTS if out != "models/finetuned"}
    lock: dict[str, Any] = {stage: {"outs": []} for stage in GRAPH}
    for path, content in sorted((others | USUAL | files).items()):  # DVC sorts them, too
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        stage, out = next((name, out) for name in GRAPH for out in GRAPH[name].outs if path.startswith(out))
        lock[stage]["outs"].append({"path": out, "md5": md5(content).hexdigest()})  # a folder has one file here
    return Revision("mine", "a" * 40, "mine", folder, GRAPH, lock, {})


def compared(folder: Path, rebuilt: Files, where: tuple[Machine, Machine] = OTHER) -> Rebuild:
    """Compare a record with a rebuild, each with what is other than usual."""
    old, new = made_of(folder / "recorded", {}), made_of(folder / "rebuilt", rebuilt)
    (old.folder / STAMP).unlink()  # neither Git nor DVC's cache has it
    return compare_outs(old, new, where, 0.99)


def verdicts(result: Rebuild) -> dict[str, str]:
    return {check.path: check.verdict for check in result.outs if check.verdict != "identical"}


def test_the_same_bytes_are_identical_whatever_the_machine_and_every_out_is_listed(tmp_path: Path) -> None:
    result = compared(tmp_path, {})
    assert (result.verdict, result.first, result.agreement) == ("identical", "", "")
    assert sorted(check.path for check in result.outs) == sorted(OUTS) and str(STAMP) in OUTS
    assert result.environment == (("processor", "A", "B"),)


def test_one_weight_on_the_same_hardware_is_another_model_and_named(tmp_path: Path) -> None:
    result = compared(tmp_path, MOVED, SAME)
    assert (result.verdict, result.first, result.environment) == ("different", "finetune", ())
    assert result.how == (
        "models/finetuned: model.safetensors: 1 of 1 tensors differ, by up to 0.5 (bert.weight); "
        "the hardware is the same, where the same training gives the same bytes"
    )


def test_on_other_hardware_all_that_is_made_with_the_model_may_have_other_bytes(tmp_path: Path) -> None:
    outs = [out for stage in ("finetune", "export", "evaluate", "register") for out in GRAPH[stage].outs]
    other = {out if Path(out).suffix else f"{out}/file": b"other" for out in outs if out != "models/finetuned"}
    rebuilt = other | MOVED | {PREDICTIONS: predicted(bad=2)} | scored(accuracy=0.78, macro_f1=0.82)
    result = compared(tmp_path, rebuilt)
    assert (result.verdict, result.first, result.how) == ("equal", "", "")
    assert verdicts(result) == dict.fromkeys(outs, "equal")
    assert result.agreement == (
        "Other bytes of a trained model count as equal on other hardware, if at least 99 % of the test predictions are "
        "the same and the scores lie within the recorded intervals: 198 of 200 predictions are the same, macro-F1 "
        "0.8200 is within [0.7800, 0.8200], accuracy 0.7800 is within [0.7800, 0.8200]"
    )


@pytest.mark.parametrize("name", ["processor", "threads", "precision", "torch"])
def test_other_packages_are_no_other_hardware(name: str, tmp_path: Path) -> None:
    result = compared(tmp_path, MOVED, (MACHINE, MACHINE | {name: "other"}))
    assert result.verdict == ("different" if name in ("precision", "torch") else "equal")
    assert [(changed, new) for changed, _, new in result.environment] == [(name, "other")]


@pytest.mark.parametrize("where", [({}, MACHINE), (MACHINE, {"torch": "2.13.0"})])
def test_on_hardware_that_nobody_knows_other_bytes_are_equal_and_it_says_so(where: Any, tmp_path: Path) -> None:
    result = compared(tmp_path, MOVED, where)
    assert (result.verdict, result.environment) == ("equal", ()) and result.agreement.endswith("is not known")


@pytest.mark.parametrize(
    ("rebuilt", "why"),
    [
        ({PREDICTIONS: predicted(bad=3)}, "only 197 of 200 predictions are the same"),
        (scored(accuracy=0.8201), "accuracy 0.8201 is not within [0.7800, 0.8200]"),
        (scored(macro_f1=float("nan")), "macro-F1 nan is not within [0.7800, 0.8200]"),
        (scored(accuracy=None), "there is no accuracy with an interval to compare"),
        ({PREDICTIONS: predicted(rows=199)}, "only 0 of 0 predictions are the same"),
    ],
)
def test_other_predictions_or_scores_are_another_model(rebuilt: Files, why: str, tmp_path: Path) -> None:
    result = compared(tmp_path, MOVED | rebuilt)
    assert (result.verdict, result.first) == ("different", "finetune")
    assert result.how.endswith(f"(bert.weight); {why}")


def test_other_hardware_explains_nothing_before_the_training(tmp_path: Path) -> None:
    result = compared(tmp_path, MOVED | {TRAIN: parquet(id=["a", "b"], label=["bad", "bad"])})
    assert (result.verdict, result.first) == ("different", "clean")
    assert result.how == f"{TRAIN}: 1 of 2 rows differ, first row 2, in label"
    assert verdicts(result) == {TRAIN: "different", "models/finetuned": "equal"}


# ── two files ─────────────────────────────────────────────────────────────────────────────────────────────────────────
ROWS = pl.DataFrame({"id": ["a", "b", "c"], "text": ["good film", "bad film", "odd film"], "n": [1, 2, 3]})


def differing(folder: Path, name: str, *contents: Any) -> str:
    """Write two files of one name, and return how they differ."""
    paths = [folder / side / name for side in ("old", "new")]
    for path, content in zip(paths, contents, strict=True):
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return difference(*paths)


ONES = np.ones((2, 3), np.float32)
TENSORS = (
    (0 * ONES, -(0 * ONES), "1 of 1 tensors differ, by up to 0 (a)"),
    (ONES.astype(ml_dtypes.bfloat16), ONES.astype(ml_dtypes.bfloat16) / 2, "1 of 1 tensors differ, by up to 0.5 (a)"),
    (ONES, np.nan * ONES, "1 of 1 tensors differ, by up to inf (a)"),
    (ONES, ONES.reshape(6)[:4].copy(), "other bytes"),
)


@pytest.mark.parametrize(
    ("name", "old", "new", "how"),
    [
        ("t.parquet", ROWS, ROWS.with_columns(n=pl.Series([1, 5, 6])), "2 of 3 rows differ, first row 2, in n"),
        ("t.parquet", ROWS, ROWS.tail(1), "3 → 1 rows"),
        ("t.parquet", ROWS, ROWS.rename({"text": "words"}), "other bytes"),
        ("a.json", '{"f1": {"a.b": 0.7}, "n": 1}', '{"f1": {"a.b": 0.8}, "n": 2}', "f1.a.b differs and 1 more"),
        ("a.json", "[1]", "[1, 2]", "the whole differs"),
        ("m.safetensors", save({"a": ONES, "b": ONES}), save({"a": ONES}), "other bytes"),
        *(("m.safetensors", save({"a": old}), save({"a": new}), how) for old, new, how in TENSORS),
        ("m.onnx", b"abc", b"ab", "other bytes (3 → 2)"),
        ("t.parquet", b"no table", ROWS, "other bytes"),
    ],
)
def test_how_two_files_differ(name: str, old: Any, new: Any, how: str, tmp_path: Path) -> None:
    assert differing(tmp_path, name, old, new).startswith(how)


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


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted({*KINDS, ".bin"})), st.binary(max_size=40), st.binary(max_size=40))
def test_two_files_differ_if_and_only_if_their_bytes_do(suffix: str, old: bytes, new: bytes) -> None:
    with TemporaryDirectory() as folder:
        assert bool(differing(Path(folder), f"file{suffix}", old, new)) == (old != new)
