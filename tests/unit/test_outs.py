"""Outs held against `dvc.lock`: what a commit keeps, with real DVC, and what a rebuild makes, with the real graph."""

import json
import shutil
from dataclasses import replace
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from safetensors.numpy import save
from small_checkout import dvc, make_checkout, repro
from small_project import ROOT

from flows.reviewing.compared.outs import check_recorded, compare_outs
from flows.reviewing.compared.tolerance import Environments, trained_stages
from flows.reviewing.findings import Rebuild
from flows.reviewing.revision import Revision
from stages.common.graph import read_graph, read_lock
from stages.common.params.review import ReviewParams
from stages.common.tracking.registry import STAMP

GRAPH = read_graph(ROOT)
OUTS = [out for node in GRAPH.values() for out in node.outs]

# ── what a commit and DVC's cache keep ────────────────────────────────────────────────────────────────────────────────
GRAPH_WITH_A_FOLDER = """stages:
  make:
    cmd:
      - mkdir -p data/model
      - cp params.yaml data/model/weights
      - cp dvc.yaml data/model/config
      - cp params.yaml data/rows
    params: [seed]
    outs: [data/model, data/rows]
  judge:
    cmd: mkdir -p reports logs && cp data/rows reports/metrics.json && cp data/rows logs/registered.model
    deps: [data/rows]
    metrics: [reports/metrics.json: {cache: false, persist: true}]
    outs: [logs/registered.model: {cache: false, persist: true}]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the pipeline has run. For copies of it alone."""
    checkout = make_checkout(tmp_path_factory.mktemp("made") / "project")
    checkout.write("dvc.yaml", GRAPH_WITH_A_FOLDER)
    repro(checkout.root)
    checkout.commit()
    return checkout.root


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A copy, to be tampered with."""
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    (tmp_path / "project" / STAMP).unlink()  # neither Git nor DVC's cache has it
    return tmp_path / "project"


def of(folder: Path) -> Revision:
    return Revision("HEAD", "a" * 40, "mine", folder, read_graph(folder), read_lock(folder), {})


def tamper(path: Path) -> None:
    """Flip a bit and leave everything else as it was: DVC takes a file of its cache that is read-only for whole."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    path.chmod(mode)


def in_cache(folder: Path, path: str) -> Path:
    """Return where DVC's cache keeps an out, or a file of a folder."""
    hashes = {entry["path"]: entry["md5"] for stage in read_lock(folder).values() for entry in stage["outs"]}
    cache = folder / ".dvc" / "cache" / "files" / "md5"
    if path not in hashes:
        parent = hashes[str(Path(path).parent)]
        listed = json.loads((cache / parent[:2] / parent[2:]).read_text())
        hashes[path] = next(entry["md5"] for entry in listed if entry["relpath"] == Path(path).name)
    return cache / hashes[path][:2] / hashes[path][2:]


def checked_out(folder: Path) -> None:
    """Fill the folder from DVC's cache, as a worktree is."""
    shutil.rmtree(folder / "data" / "model")
    (folder / "data" / "rows").unlink()
    try:
        dvc(folder, "checkout")
    except AssertionError as error:
        assert "missing-files" in str(error)


def test_nothing_is_said_of_outs_that_are_what_the_lock_says(kept: Path) -> None:
    checked_out(kept)
    assert check_recorded(of(kept)) == ()


def test_a_weight_that_was_tampered_with_in_the_cache_is_named_though_dvc_sees_nothing(kept: Path) -> None:
    tamper(in_cache(kept, "data/model/weights"))
    checked_out(kept)
    assert "up to date" in dvc(kept, "status") or "data/model" not in dvc(kept, "status")
    found = [check for check in check_recorded(of(kept)) if check.path == "data/model"]
    assert [(check.stage, check.verdict) for check in found] == [("make", "different")]
    assert found[0].how.startswith("weights in it is not what dvc.lock says: its MD5 is ")


def test_a_list_of_a_folder_that_was_tampered_with_is_no_excuse(kept: Path) -> None:
    listing = in_cache(kept, "data/model")
    listed = json.loads(listing.read_text())
    listing.chmod(0o644)
    listing.write_text(json.dumps([entry for entry in listed if entry["relpath"] != "config"]))
    listing.chmod(0o444)
    checked_out(kept)
    (found,) = check_recorded(of(kept))
    assert (found.path, found.verdict) == ("data/model", "different")


def test_a_score_that_somebody_improved_by_hand_is_named(kept: Path) -> None:
    (kept / "reports" / "metrics.json").write_text("seed: 2\n")
    (found,) = check_recorded(of(kept))
    assert (found.stage, found.path, found.verdict) == ("judge", "reports/metrics.json", "different")


def test_a_file_more_in_a_folder_is_named(kept: Path) -> None:
    (kept / "data" / "model" / "extra").write_text("1")
    (found,) = check_recorded(of(kept))
    assert (found.verdict, found.how) == ("different", "extra in it is no file that dvc.lock knows of")


def test_what_the_cache_does_not_have_is_missing_and_no_tampering(kept: Path) -> None:
    in_cache(kept, "data/model/config").unlink()
    for path in ("data/rows", "data/model/weights"):
        in_cache(kept, path).unlink(missing_ok=True)
    checked_out(kept)
    assert {check.path: check.verdict for check in check_recorded(of(kept))} == {
        "data/model": "missing",
        "data/rows": "missing",
    }


def test_of_a_folder_that_is_there_in_part_the_missing_file_is_named(kept: Path) -> None:
    (kept / "data" / "model" / "config").unlink()
    (found,) = check_recorded(of(kept))
    assert found.verdict == "missing"
    assert found.how.startswith("config in it is not here")


def test_a_file_in_the_place_of_a_folder_is_told(kept: Path) -> None:
    shutil.rmtree(kept / "data" / "model")
    (kept / "data" / "model").write_text("1")
    (found,) = check_recorded(of(kept))
    assert found.how == "is not what dvc.lock says: a file, not a folder"


# ── a rebuild ─────────────────────────────────────────────────────────────────────────────────────────────────────────
Files = dict[str, Any]  # content by path; None: there is no such file

MODEL, PREDICTIONS = "models/finetuned/model.safetensors", "data/predictions.parquet"
METRICS, TRAIN, PAGE = "reports/metrics.json", "data/clean/train.parquet", "reports/evaluation.html"
ENDS = {"": 0.8, "_low": 0.78, "_high": 0.82}
SCORES = {f"{name}{end}": value for name in ("accuracy", "macro_f1") for end, value in ENDS.items()}
MACHINE = {"processor": "A", "architecture": "x86_64", "instructions": "AVX2", "device": "cpu", "threads": "2"}
MACHINE |= {"processes": "1", "precision": "float32", "python": "3.11", "torch": "2.13.0"}
SAME, OTHER = (Environments(MACHINE, MACHINE | {"processor": name}) for name in "AB")


def parquet(**columns: Any) -> bytes:
    pl.DataFrame(columns).write_parquet(buffer := BytesIO())
    return buffer.getvalue()


def said(bad: int = 0, rows: int = 200) -> bytes:
    """Predictions, of which so many are bad."""
    return parquet(id=[f"{at:03}" for at in range(rows)], prediction=["bad"] * bad + ["good"] * (rows - bad))


def scored(**scores: Any) -> Files:
    return {METRICS: json.dumps(SCORES | scores).encode()}


WEIGHTS, MOVED = ({MODEL: save({"bert.weight": np.array([1, 1, last], np.float32)})} for last in (1, 1.5))
USUAL = {**WEIGHTS, PREDICTIONS: said(), TRAIN: parquet(id=["a", "b"], label=["bad", "good"]), **scored()}


def made_of(folder: Path, files: Files) -> Revision:
    """Make all outs of the real graph, these and the usual ones, and the lock that DVC would write."""
    others = {out if Path(out).suffix else f"{out}/file": b"1" for out in OUTS if out != "models/finetuned"}
    contents = {path: content for path, content in (others | USUAL | files).items() if content is not None}
    lock: dict[str, Any] = {stage: {"outs": []} for stage in GRAPH}
    for path, content in sorted(contents.items()):  # DVC sorts them, too
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        stage, out = next((name, out) for name in GRAPH for out in GRAPH[name].outs if path.startswith(out))
        lock[stage]["outs"].append({"path": out, "md5": md5(content).hexdigest()})  # a folder has one file here
    return Revision("mine", "a" * 40, "mine", folder, GRAPH, lock, {})


def compared(folder: Path, recorded: Files, rebuilt: Files, where: Environments = OTHER) -> Rebuild:
    """Compare a record with a rebuild, each with what is other than usual."""
    one, other = made_of(folder / "recorded", recorded), made_of(folder / "rebuilt", rebuilt)
    (one.folder / STAMP).unlink()  # neither Git nor DVC's cache has it
    return compare_outs(one, other, where, 0.99)


def verdicts(found: Rebuild) -> dict[str, str]:
    return {check.path: check.verdict for check in found.outs if check.verdict != "identical"}


def test_the_same_bytes_are_identical_whatever_the_machine_and_every_out_is_listed_in_order(tmp_path: Path) -> None:
    found = compared(tmp_path, {}, {})
    assert (found.verdict, found.first, found.tolerance, found.agreement) == ("identical", "", "", None)
    assert [check.path for check in found.outs] == OUTS and str(STAMP) in OUTS
    assert [(one.name, one.recorded, one.here) for one in found.environment] == [("processor", "A", "B")]


def test_before_the_first_run_there_is_nothing_to_hold_it_against(tmp_path: Path) -> None:
    made = made_of(tmp_path, {})
    assert compare_outs(replace(made, lock={}), made, SAME, 0.99).verdict == "unrecorded"


def test_the_stage_that_trains_and_all_that_need_its_model_are_found_in_the_graph() -> None:
    assert trained_stages(GRAPH) == {"finetune", "export", "evaluate", "register"}
    assert trained_stages({name: GRAPH[name] for name in ("ingest", "clean")}) == frozenset()


def test_one_weight_on_the_same_hardware_is_another_model_and_named(tmp_path: Path) -> None:
    found = compared(tmp_path, {}, MOVED, SAME)
    assert (found.verdict, found.first, found.agreement, found.environment) == ("different", "finetune", 1.0, ())
    assert found.how == (
        "models/finetuned: 1 of 1 files differs: model.safetensors: 1 of 1 tensor differs, by up to 0.5 (bert.weight); "
        "both were trained on the same hardware, where the same training gives the same bytes"
    )


def test_on_other_hardware_all_that_is_made_with_the_model_may_have_other_bytes(tmp_path: Path) -> None:
    outs = [out for stage in ("finetune", "export", "evaluate", "register") for out in GRAPH[stage].outs]
    other = {out if Path(out).suffix else f"{out}/file": b"other" for out in outs if out != "models/finetuned"}
    found = compared(tmp_path, {}, other | MOVED | {PREDICTIONS: said(bad=2)} | scored(accuracy=0.78, macro_f1=0.82))
    assert (found.verdict, found.first, found.how, found.agreement) == ("equal", "", "", 0.99)
    assert verdicts(found) == dict.fromkeys(outs, "equal")
    assert found.tolerance == (
        "Other bytes from finetune on count as equal where the model was trained on other hardware, at least 99% of "
        "the test rows get the same prediction, and the rebuilt scores lie within the recorded intervals: here 198 of "
        "200 do (99.00%), accuracy 0.7800 is within [0.7800, 0.8200], macro-F1 0.8200 is within [0.7800, 0.8200]."
    )


@pytest.mark.parametrize("name", MACHINE)
def test_other_packages_are_no_other_hardware(name: str, tmp_path: Path) -> None:
    found = compared(tmp_path, {}, MOVED, Environments(MACHINE, MACHINE | {name: "other"}))
    assert found.verdict == ("different" if name in ("precision", "python", "torch") else "equal")
    assert [(one.name, one.here) for one in found.environment] == [(name, "other")]


@pytest.mark.parametrize("where", [Environments({}, MACHINE), Environments(MACHINE, {"torch": "2.13.0"})])
def test_on_hardware_that_nobody_knows_other_bytes_are_equal_and_it_says_so(where: Any, tmp_path: Path) -> None:
    found = compared(tmp_path, {}, MOVED, where)
    assert (found.verdict, found.environment_known, found.environment) == ("equal", False, ())
    assert found.tolerance.endswith(" Which hardware it was trained on is not recorded in MLflow for both.")


@pytest.mark.parametrize(
    ("recorded", "rebuilt", "told"),
    [
        ({}, {PREDICTIONS: said(bad=3)}, "only 197 of 200 test rows get the same prediction"),
        ({}, scored(accuracy=0.8201), "accuracy 0.8201 is not within [0.7800, 0.8200]"),
        ({}, scored(macro_f1=0.7799), "macro-F1 0.7799 is not within [0.7800, 0.8200]"),
        ({}, scored(macro_f1=float("nan")), "macro-F1 nan is not within [0.7800, 0.8200]"),
        ({}, scored(accuracy=None), "there is no accuracy with an interval to compare"),
        (scored(macro_f1_low="low"), {}, "there is no macro-F1 with an interval to compare"),
    ],
)
def test_a_model_with_other_predictions_or_scores_is_another_one(
    recorded: Files, rebuilt: Files, told: str, tmp_path: Path
) -> None:
    found = compared(tmp_path, recorded, MOVED | rebuilt)
    assert (found.verdict, found.first) == ("different", "finetune")
    assert found.how.endswith(f"(bert.weight); {told}")


NAMES, GOOD = [f"{at:03}" for at in range(200)], ["good"] * 200
ODD = {
    "a row less": said(rows=199),
    "a row more": said(rows=201),
    "broken": b"no",
    "none": None,
    "one row": parquet(id=["000"] * 200, prediction=GOOD),
    "numbers": parquet(id=NAMES, prediction=[1] * 200),
    "other ids": parquet(id=list(range(200)), prediction=GOOD),
    "no predictions": parquet(id=NAMES, label=GOOD),
}


@pytest.mark.parametrize("rows", ODD.values(), ids=ODD)
@pytest.mark.parametrize("side", ["recorded", "rebuilt"])
def test_predictions_that_cannot_be_compared_agree_on_nothing(rows: Any, side: str, tmp_path: Path) -> None:
    odd = {PREDICTIONS: rows}
    found = compared(tmp_path, odd, MOVED) if side == "recorded" else compared(tmp_path, {}, MOVED | odd)
    assert (found.verdict, found.first, found.agreement) == ("different", "finetune", None)
    assert found.how.endswith("(bert.weight); the predictions cannot be compared")


def test_other_hardware_excuses_nothing_before_the_training(tmp_path: Path) -> None:
    found = compared(tmp_path, {}, MOVED | {TRAIN: parquet(id=["a", "b"], label=["bad", "bad"])})
    assert (found.verdict, found.first) == ("different", "clean")
    assert found.how == f"{TRAIN}: 1 of 2 rows differs, first id b, label: 'good' → 'bad'"
    assert verdicts(found) == {TRAIN: "different", "models/finetuned": "equal"}


@pytest.mark.parametrize(("files", "whose"), [([{PAGE: None}, {}], "record"), ([{}, {PAGE: None}], "rebuild")])
def test_an_out_that_only_one_of_both_has_is_missing(files: list[Files], whose: str, tmp_path: Path) -> None:
    found = compared(tmp_path, *files)
    assert (found.verdict, found.how) == ("different", f"{PAGE}: the {whose} has no such out")
    assert verdicts(found) == {PAGE: "missing"}


def test_what_differs_in_a_stage_is_told_before_what_is_missing(tmp_path: Path) -> None:
    found = compared(tmp_path, {}, {PREDICTIONS: None, PAGE: b"other"}, SAME)
    assert found.first == "evaluate" and found.how.startswith(f"{PAGE}: ")


def test_an_out_of_a_stage_that_was_taken_out_of_the_graph_is_missing(tmp_path: Path) -> None:
    whole = made_of(tmp_path, {})
    graph, lock = ({name: one for name, one in of.items() if name != "register"} for of in (GRAPH, whole.lock))
    found = compare_outs(replace(whole, graph=graph), replace(whole, graph=graph, lock=lock), OTHER, 0.99)
    assert (found.verdict, found.first) == ("different", "register")
    assert found.how.endswith(": dvc.lock has it, dvc.yaml has no such stage")
    assert verdicts(found) == dict.fromkeys(GRAPH["register"].outs, "missing")


@pytest.mark.parametrize("path", [TRAIN, PAGE])
def test_recorded_bytes_that_are_not_here_are_never_equal(path: str, tmp_path: Path) -> None:
    recorded, rebuilt = made_of(tmp_path / "recorded", {}), made_of(tmp_path / "rebuilt", {path: b"other"})
    (recorded.folder / path).unlink()
    found = compare_outs(recorded, rebuilt, OTHER, 0.99)
    assert (found.verdict, found.how) == ("different", f"{path}: the recorded bytes are not here to compare")


def test_no_byte_of_a_recorded_table_can_end_the_review(tmp_path: Path) -> None:
    recorded, whole = made_of(tmp_path, {}), said()
    for at in range(len(whole)):  # at two of these places, polars would ask for 2 EiB and abort
        (recorded.folder / PREDICTIONS).write_bytes(bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]))
        table = recorded.table(PREDICTIONS)
        assert table is None or table.width


def test_nobody_can_ask_for_less_than_nine_rows_in_ten() -> None:
    assert ReviewParams(min_agreement=0.9).min_agreement == 0.9
    with pytest.raises(ValidationError):
        ReviewParams(min_agreement=0.89)
