"""Outs held against `dvc.lock`: what a commit keeps, with real DVC, and what a rebuild makes, with the real graph."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save, save_file
from small_checkout import dvc, make_checkout, repro
from small_project import ROOT

from flows.reviewing.compared.judged_apart import BESIDE, MEASURED
from flows.reviewing.compared.outs import check_recorded, compare_outs
from flows.reviewing.compared.tolerance import trained_stages
from flows.reviewing.findings import OutCheck, Rebuild
from flows.reviewing.revision import Revision
from stages.common.digests import sha256_path
from stages.common.environment import RECORD
from stages.common.graph import read_graph, read_lock
from stages.common.params.evaluate import Bootstrap
from stages.common.params.register import ChampionGate
from stages.common.params.review import ReviewParams
from stages.common.serving.classifier import FILES, Classifier, Package
from stages.evaluate.scores import with_intervals
from stages.export.files import write_int8, write_onnx
from stages.register import champion, gates
from stages.tasks.scores import class_numbers
from tests.unit.small_served import LABELS, WORDS, make_package

GRAPH = read_graph(ROOT)
OUTS = [out for node in GRAPH.values() for out in node.outs]
MACHINE = {"processor": "A", "threads": 2, "packages": {"torch": "2.13.0"}}
OTHER_MACHINE = {"processor": "B", "threads": 2, "packages": {"torch": "2.13.0"}}
SETTINGS = ChampionGate()
OWN_GATE = {"gate": "max_ece", "value": 0.03, "limit": 0.05, "passed": True, "reason": "0.03 is at most 0.05"}

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
    cmd: mkdir -p reports && cp data/rows reports/metrics.json
    deps: [data/rows]
    metrics: [reports/metrics.json: {cache: false, persist: true}]
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
Make = Callable[..., Revision]


def weights(last: float = 1.0) -> bytes:
    return save({"bert.weight": np.array([0.25, 0.5, last], np.float32)})


def predictions(rows: int = 200) -> bytes:
    return as_parquet(pl.DataFrame({"id": [f"{at:03}" for at in range(rows)], "prediction": ["good"] * rows}))


def clean(label: str = "good") -> bytes:
    return as_parquet(pl.DataFrame({"id": ["a", "b"], "label": ["bad", label]}))


def as_parquet(table: pl.DataFrame) -> bytes:
    from io import BytesIO

    table.write_parquet(buffer := BytesIO())
    return buffer.getvalue()


def registration(*verdicts: gates.Verdict, own: Mapping[str, Any] = OWN_GATE, model: str = "x") -> dict[str, Any]:
    """What register reports of a model that one gate of its own and these beside it were asked about."""
    found = [dict(own), *(verdict.as_report() for verdict in verdicts)]
    promoted = all(gate["passed"] for gate in found)
    alias = "champion" if promoted else "challenger"
    settings = SETTINGS.model_dump()
    return {
        "model_name": "m",
        "model": model,
        "promoted": promoted,
        "champion_gate": settings,
        "alias": alias,
        "gates": found,
    }


def card(*verdicts: gates.Verdict, rows: int = 200) -> str:
    lines = [f"- {verdict.line().replace('  ', ' ')}".replace("_", "\\_") for verdict in verdicts]
    return "\n".join([f"## Scores on {rows} test rows", "", "## Gates", "", *lines, "", "## Limits", ""])


FIRST = champion.no_other_champion(SETTINGS)
BEATEN = replace(FIRST, value=0.8, limit=0.82, passed=False, reason="macro_f1 0.8000 is under 0.8200")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes all outs of the real graph, and the lock that DVC would write."""

    def write(name: str, **files: Any) -> Revision:
        folder = tmp_path / name
        usual: dict[str, Any] = {
            "models/finetuned/model.safetensors": weights(),
            "data/predictions.parquet": predictions(),
            "data/clean/train.parquet": clean(),
            RECORD: MACHINE,
            "reports/metrics.json": {},
            "reports/registration.json": registration(FIRST),
            "reports/model_card.md": card(FIRST),
            **{f"{out}/file": "1" for out in ("models/base", "models/resources", "models/exported", "models/serving")},
        }
        outs = {
            out for node in GRAPH.values() for out in node.outs if any(Path(at).is_relative_to(out) for at in files)
        }
        others = {
            path: value for path, value in usual.items() if not any(Path(path).is_relative_to(out) for out in outs)
        }
        contents = others | files
        lock: dict[str, Any] = {}
        for stage, node in GRAPH.items():
            outs = []
            for out in node.outs:
                of_out = {path: value for path, value in contents.items() if Path(path).is_relative_to(out)} or {
                    out: "1"
                }
                hashed = {path: write_file(folder / path, value) for path, value in of_out.items() if value is not None}
                if hashed and out not in of_out:
                    hashed[out] = md5(json.dumps(sorted(hashed.items())).encode()).hexdigest() + ".dir"
                if hashed:
                    outs.append({"path": out, "hash": "md5", "md5": hashed[out]})
            lock[stage] = {"outs": sorted(outs, key=lambda entry: entry["path"])}  # DVC sorts them
        return Revision(name, "a" * 40, "mine", folder, GRAPH, lock, {})

    return write


def write_file(path: Path, value: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    path.write_bytes(content)
    return md5(content).hexdigest()


def files(**by_name: Any) -> dict[str, Any]:
    """Contents by path, for short names of outs."""
    names = {
        "model": "models/finetuned/model.safetensors",
        "predictions": "data/predictions.parquet",
        "clean": "data/clean/train.parquet",
        "machine": RECORD,
        "metrics": "reports/metrics.json",
        "registration": "reports/registration.json",
        "card": "reports/model_card.md",
        "page": "reports/evaluation.html",
    }
    return {names[name]: value for name, value in by_name.items()}


def compared(make: Make, recorded: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> Rebuild:
    return compare_outs(make("recorded", **recorded), make("rebuilt", **rebuilt), 0.99)


def other(found: Rebuild) -> dict[str, OutCheck]:
    return {check.path: check for check in found.outs if check.verdict != "identical"}


def test_the_same_bytes_are_identical_and_every_out_is_listed_in_the_order_of_the_graph(make: Make) -> None:
    found = compared(make, {}, {})
    assert (found.verdict, found.first, found.tolerance, found.environment) == ("identical", "", "", ())
    assert [(check.stage, check.path) for check in found.outs] == [
        (stage, out) for stage, node in GRAPH.items() for out in node.outs
    ]
    assert found.environment_known and found.agreement is None


def test_before_the_first_run_there_is_nothing_to_hold_it_against(make: Make) -> None:
    found = compare_outs(replace(make("recorded"), lock={}), make("rebuilt"), 0.99)
    assert found.verdict == "unrecorded"


def test_the_stage_that_trains_and_all_that_need_its_model_are_found_in_the_graph() -> None:
    assert trained_stages(GRAPH) == {"finetune", "export", "evaluate", "register"}
    assert trained_stages({name: GRAPH[name] for name in ("ingest", "clean")}) == frozenset()


def test_one_weight_on_the_same_machine_is_another_model_and_named(make: Make) -> None:
    found = compared(make, {}, files(model=weights(1.5)))
    assert (found.verdict, found.first) == ("different", "finetune")
    told = (
        "models/finetuned: 1 of 1 files differs: model.safetensors: 1 of 1 tensor differs, by up to 0.5 (bert.weight)"
    )
    assert found.how == f"{told}; the machine is of the same kind, where the same training gives the same bytes"
    assert found.agreement == 1.0


# ── a rebuild on another kind of machine ──────────────────────────────────────────────────────────────────────────────
Contents = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """Outs of a tiny model by path, recorded, rebuilt, and of a model whose weights are all zero."""

    recorded: Contents
    rebuilt: Contents
    zeroed: Contents


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Trained:
    """Two trainings of one model whose weights differ a little, and a model whose weights are all zero."""
    folder = tmp_path_factory.mktemp("trained")
    here = make_package(folder / "here")
    texts = [f"{one} {other}" for one in WORDS for other in WORDS][:200]
    said = Classifier(here, "torch").probabilities(texts).argmax(axis=1)
    labels = [LABELS[number if at % 5 else (number + 1) % 3] for at, number in enumerate(said)]
    test = pl.DataFrame({"id": [f"{at:03}" for at in range(200)], "text": texts, "text_pair": None, "label": labels})
    test = test.cast(pl.String)
    there, nothing = (with_weights(here, folder / str(factor), factor) for factor in (1.00001, 0.0))
    return Trained(*(made_with(package, test) for package in (there, here, nothing)))


def with_weights(package: Package, folder: Path, factor: float) -> Package:
    """Return a package whose weights are those of another times a factor."""
    shutil.copytree(package.model.parent, folder)
    file = folder / "model" / "model.safetensors"
    save_file(
        {name: (value * factor).astype(value.dtype) for name, value in load_file(file).items()}, file, {"format": "pt"}
    )
    write_onnx(folder / "model", folder / "exported" / FILES["onnx"])
    write_int8(folder / "exported" / FILES["onnx"], folder / "exported" / FILES["int8"])
    return Package.within(folder)


def made_with(package: Package, test: pl.DataFrame) -> Contents:
    """Return what export and evaluate make of a model."""
    asked = {form: Classifier(package, form) for form in package.variants}
    found = {form: classifier.probabilities(test["text"].to_list()) for form, classifier in asked.items()}
    sure, said = found["torch"], found["torch"].argmax(axis=1)
    rows = test.select("id", "label").with_columns(
        prediction=pl.Series([LABELS[number] for number in said]),
        confidence=pl.Series(sure.max(axis=1)),
        abstained=pl.Series(asked["torch"].decision.abstains(sure)),
        probabilities=pl.Series(sure.tolist()),
    )
    actual = class_numbers(test["label"], LABELS)
    scores = with_intervals(actual, said, len(LABELS), Bootstrap(), 13)
    named = (("finetuned", package.model), ("exported", package.exported), ("serving", package.serving))
    models = {f"models/{name}/{file.name}": file.read_bytes() for name, of in named if of for file in of.iterdir()}
    agreement = {form: {"agreement": float((found[form].argmax(axis=1) == said).mean())} for form in ("onnx", "int8")}
    digest = sha256_path(package.model)
    return models | {
        "data/clean/test.parquet": as_parquet(test),
        "data/predictions.parquet": as_parquet(rows),
        "reports/export.json": {"model": digest, **agreement},
        "reports/metrics.json": {"rows": 200, **scores, "model": {"digest": digest}},
        "reports/plots/slices.csv": f"slice,rows,accuracy\nall,200,{scores['accuracy']}\nnone,50,0.5\n",
        "reports/registration.json": registration(FIRST, model=digest),
    }


def elsewhere(make: Make, trained: Trained, **changes: Any) -> Rebuild:
    """Return what is said of a record that was changed, when it is rebuilt on another kind of machine."""
    return compared(make, trained.recorded | changes, trained.rebuilt | files(machine=OTHER_MACHINE))


def test_on_another_processor_a_model_with_the_same_answers_is_equal(make: Make, trained: Trained) -> None:
    own = registration(
        FIRST, own={**OWN_GATE, "value": 0.031}, model=trained.recorded["reports/metrics.json"]["model"]["digest"]
    )
    found = elsewhere(make, trained, **files(page="other", registration=own, card=card(FIRST, rows=201)))
    assert (found.verdict, found.first) == ("equal", "")
    assert found.agreement and found.agreement >= 0.99
    apart = {RECORD: "apart", "reports/evaluation.html": "apart"}
    assert {path: check.verdict for path, check in other(found).items() if check.verdict != "equal"} == apart
    assert {"models/finetuned", "models/exported", "reports/metrics.json", "reports/registration.json"} <= {
        *other(found)
    }
    assert [(change.name, change.recorded, change.here) for change in found.environment] == [("processor", "A", "B")]
    assert "at least 99% of the test rows" in found.tolerance
    assert "200 of 200 test rows (100.00%)" in found.tolerance
    assert "accuracy 0.8000 is in [0." in found.tolerance


def test_with_other_packages_too(make: Make, trained: Trained) -> None:
    bumped = {**MACHINE, "packages": {"torch": "2.14.0"}}
    found = compare_outs(
        make("recorded", **trained.recorded), make("rebuilt", **trained.rebuilt | files(machine=bumped)), 0.99
    )
    assert found.verdict == "equal"
    assert [(change.name, change.recorded, change.here) for change in found.environment] == [
        ("torch", "2.13.0", "2.14.0")
    ]


def test_a_recorded_model_without_weights_is_another_one_whatever_its_predictions_say(
    make: Make, trained: Trained
) -> None:
    model = "models/finetuned/model.safetensors"
    found = elsewhere(make, trained, **{model: trained.zeroed[model]})
    assert (found.verdict, found.first) == ("different", "finetune")
    assert found.how.startswith("models/finetuned: asked here, its answer is the recorded one for only ")


@pytest.mark.parametrize("form", ["onnx", "int8"])
def test_an_exported_form_of_another_model_is_named(form: str, make: Make, trained: Trained) -> None:
    path = f"models/exported/{FILES[form]}"
    found = elsewhere(make, trained, **{path: trained.zeroed[path]})
    assert (found.verdict, found.first) == ("different", "export")
    told = f"models/exported: {FILES[form]}: asked here, its answer is that of the recorded model for only "
    assert found.how.startswith(told)


def hotter(decision: bytes) -> bytes:
    return decision.replace(b'"temperature": 1.5', b'"temperature": 1.7')


def never_sure(decision: bytes) -> bytes:
    return decision.replace(b"0.5\n", b"0.99\n")


def other_words(content: bytes) -> bytes:
    return content.replace(b'"hidden_size"', b'"_hidden_size"')


def junk(content: Any) -> bytes:
    return b"junk"


def forged(report: Any) -> Any:
    return {**report, **{f"{name}{end}": value for name in ("accuracy", "macro_f1") for end, value in WIDE.items()}}


WIDE = {"": 0.9999, "_low": 0.0, "_high": 1.0}


def a_bit_better(report: Any) -> Any:
    return {**report, "accuracy": report["accuracy"] + 0.005}


def wider(report: Any) -> Any:
    return {**report, "macro_f1_low": report["macro_f1_low"] - 0.02}


def of_another_model(report: Any) -> Any:
    return {**report, "model": {"digest": "f" * 64}}


def relabelled(table: bytes) -> bytes:
    return as_parquet(pl.read_parquet(table).with_columns(label=pl.col("prediction")))


def surer(table: bytes) -> bytes:
    return as_parquet(pl.read_parquet(table).with_columns(confidence=pl.lit(1.0)))


def all_right(table: bytes) -> bytes:
    return as_parquet(pl.read_parquet(table).with_columns(prediction=pl.col("label")))


def one_right(table: bytes) -> bytes:
    first = pl.int_range(pl.len()) == 0
    return as_parquet(
        pl.read_parquet(table).with_columns(
            prediction=pl.when(first).then(pl.col("label")).otherwise(pl.col("prediction"))
        )
    )


def better_slice(table: str) -> str:
    return table.replace("none,50,0.5", "none,50,0.9")


@pytest.mark.parametrize(
    ("path", "spoil", "out", "how"),
    [
        ("models/finetuned/config.json", other_words, "models/finetuned", "config.json: "),
        ("models/finetuned/model.safetensors", junk, "models/finetuned", "cannot be used: "),
        ("models/exported/int8.onnx", junk, "models/exported", "int8.onnx: cannot be used: "),
        ("models/serving/decision.json", hotter, "models/serving", "decision.json: temperature 1.7 → 1.5"),
        ("models/serving/decision.json", never_sure, "models/serving", "decision.json: thresholds."),
        ("models/serving/decision.json", junk, "models/serving", "cannot be used: "),
        ("data/predictions.parquet", relabelled, "data/predictions.parquet", "its rows and labels are not those of"),
        ("data/predictions.parquet", surer, "models/finetuned", "asked here, its answer is the recorded probabilities"),
        ("data/predictions.parquet", all_right, "models/finetuned", "only 160 of 200 test rows (80.00%) get the same"),
        ("reports/metrics.json", forged, "reports/metrics.json", "accuracy is 0.9999, but that of the recorded pred"),
        ("reports/metrics.json", a_bit_better, "reports/metrics.json", "accuracy is 0.8050, but that of the recorded"),
        ("reports/metrics.json", wider, "reports/metrics.json", "macro_f1_low is 0."),
        ("reports/metrics.json", of_another_model, "reports/metrics.json", "model.digest "),
        ("reports/plots/slices.csv", better_slice, "reports/plots/slices.csv", "column accuracy is apart by 0.4"),
    ],
)
def test_whatever_else_of_the_record_is_not_of_its_model_is_named(
    path: str, spoil: Callable[[Any], Any], out: str, how: str, make: Make, trained: Trained
) -> None:
    found = elsewhere(make, trained, **{path: spoil(trained.recorded[path])})
    assert found.verdict == "different"
    assert found.how.startswith(f"{out}: ")
    assert how in found.how


def test_a_page_of_the_same_numbers_has_the_same_bytes_on_every_machine(make: Make, trained: Trained) -> None:
    found = elsewhere(make, replace(trained, recorded=trained.rebuilt), **files(page="forged"))
    assert (found.verdict, found.first) == ("different", "evaluate")
    assert found.how.startswith("reports/evaluation.html: ")


@pytest.mark.parametrize(
    ("spoil", "how"),
    [
        (surer, "models/finetuned: asked here, its answer is the recorded probabilities"),
        (one_right, "reports/metrics.json: "),
    ],
)
def test_predictions_that_are_not_of_the_very_model_that_is_rebuilt_are_named(
    spoil: Callable[[Any], Any], how: str, make: Make, trained: Trained
) -> None:
    path = "data/predictions.parquet"
    found = elsewhere(make, replace(trained, recorded=trained.rebuilt), **{path: spoil(trained.rebuilt[path])})
    assert (found.verdict, found.first) == ("different", "evaluate")
    assert found.how.startswith(f"{path}: {how}")


def test_a_card_with_another_score_is_named(make: Make, trained: Trained) -> None:
    found = elsewhere(make, trained, **files(card=card(FIRST) + "accuracy 0.99\n"))
    assert (found.verdict, found.first) == ("different", "register")


@pytest.mark.parametrize("rows", [predictions(rows=199), b"broken", None], ids=["other rows", "broken", "none"])
def test_predictions_that_cannot_be_compared_agree_on_nothing(rows: bytes | None, make: Make, trained: Trained) -> None:
    found = elsewhere(make, trained, **files(predictions=rows))
    assert (found.verdict, found.agreement) == ("different", None)


def test_where_the_record_is_silent_other_bytes_are_different_and_it_says_why(make: Make) -> None:
    found = compared(make, files(machine=None), files(model=weights(1.001), machine=OTHER_MACHINE))
    assert (found.verdict, found.first, found.environment_known) == ("different", "finetune", False)
    assert "does not say on what kind of machine" in found.how
    assert compared(make, files(machine=None), {}).verdict == "identical"


def test_an_out_of_a_stage_that_was_taken_out_of_the_graph_is_missing(make: Make) -> None:
    recorded, whole = make("recorded"), make("rebuilt")
    graph, lock = ({name: one for name, one in of.items() if name != "register"} for of in (GRAPH, whole.lock))
    found = compare_outs(replace(recorded, graph=graph), replace(whole, graph=graph, lock=lock), 0.99)
    assert (found.verdict, found.first) == ("different", "register")
    assert found.how == "reports/model_card.md: dvc.lock has it, dvc.yaml has no such stage"
    assert {check.path for check in found.outs if check.verdict == "missing"} == {*GRAPH["register"].outs}


def test_nobody_can_ask_for_less_than_nine_rows_in_ten() -> None:
    assert ReviewParams(min_agreement=0.9).min_agreement == 0.9
    with pytest.raises(ValidationError):
        ReviewParams(min_agreement=0.0)


def test_another_machine_excuses_nothing_before_the_training(make: Make, trained: Trained) -> None:
    found = elsewhere(make, trained, **files(clean=clean("bad")))
    assert (found.verdict, found.first) == ("different", "clean")
    assert found.how == "data/clean/train.parquet: 1 of 2 rows differs, first id b, label: 'bad' → 'good'"
    assert other(found)["models/finetuned"].verdict == "equal"


def test_the_machine_alone_is_no_difference(make: Make) -> None:
    found = compared(make, {}, files(machine=OTHER_MACHINE))
    assert found.verdict == "identical"
    assert other(found)[RECORD].verdict == "apart"


def test_an_out_that_only_one_of_both_has_is_missing(make: Make) -> None:
    found = compared(make, {}, files(page=None))
    assert (found.verdict, found.first) == ("different", "evaluate")
    assert found.how == "reports/evaluation.html: the rebuild has no such out"


def test_recorded_bytes_that_are_not_here_are_told_of(make: Make) -> None:
    recorded, rebuilt = make("recorded"), make("rebuilt", **files(clean=clean("bad")))
    (recorded.folder / "data/clean/train.parquet").unlink()
    found = compare_outs(recorded, rebuilt, 0.99)
    assert found.how == "data/clean/train.parquet: the recorded bytes are not here to compare"


def test_no_byte_of_a_recorded_table_can_end_the_review(make: Make) -> None:
    recorded, whole = make("recorded"), predictions()
    for at in range(len(whole)):  # at two of these places, polars would ask for 2 EiB and abort
        broken = bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]])
        (recorded.folder / "data/predictions.parquet").write_bytes(broken)
        table = recorded.table("data/predictions.parquet")
        assert table is None or table.width


# ── what register says ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_verdict_against_another_champion_is_no_difference(make: Make) -> None:
    found = compared(make, {}, files(registration=registration(BEATEN), card=card(BEATEN)))
    assert found.verdict == "identical"
    registered, told = (other(found)[f"reports/{name}"] for name in ("registration.json", "model_card.md"))
    assert (registered.verdict, told.verdict) == ("apart", "apart")
    assert registered.how == "judged against another champion; the other gates agree"


def test_a_latency_that_the_clock_judged_otherwise_is_no_difference(make: Make) -> None:
    quick, slow = gates.within_latency(10, 9), gates.within_latency(10, 11)
    here, there = ({**files(registration=registration(one), card=card(one))} for one in (quick, slow))
    found = compared(make, here, there)
    assert found.verdict == "identical"
    assert "latency" in other(found)["reports/registration.json"].how
    assert other(found)["reports/model_card.md"].verdict == "apart"


@pytest.mark.parametrize(
    ("recorded", "how"),
    [
        (registration(FIRST, own={**OWN_GATE, "value": 0.01}), "gates.max_ece.value 0.01 → 0.03"),
        (registration(FIRST) | {"model": "y"}, "model 'y' → 'x'"),
        (registration(BEATEN) | {"promoted": True}, "the recorded one says promoted, though the gate champion failed"),
        (registration(FIRST) | {"promoted": False}, "the recorded one says not promoted, though no gate failed"),
        (registration(FIRST) | {"gates": None}, "gates.0.gate is new"),
        ("[]", "the whole is gone, model_name is new"),
    ],
)
def test_anything_else_in_the_registration_counts(recorded: Any, how: str, make: Make) -> None:
    found = compared(make, files(registration=recorded), {})
    assert (found.verdict, found.first) == ("different", "register")
    assert how in found.how


def test_a_gate_that_another_machine_turns_is_a_difference(make: Make, trained: Trained) -> None:
    failed = {**OWN_GATE, "value": 0.06, "passed": False}
    found = elsewhere(make, trained, **files(registration=registration(FIRST, own=failed)))
    assert (found.verdict, found.first) == ("different", "register")
    assert found.how == "reports/registration.json: gate max_ece failed in the record and passes here"


@pytest.mark.parametrize("written", [card(FIRST, rows=201), card(FIRST) + "- passed champion: by far\n"])
def test_a_card_that_says_more_than_another_verdict_counts(written: str, make: Make) -> None:
    found = compared(make, {}, files(card=written))
    assert (found.verdict, found.first) == ("different", "register")


def test_the_gates_that_are_left_aside_are_those_that_ask_registry_or_clock() -> None:
    asking = [
        champion.no_other_champion(SETTINGS),
        champion.unknown_champion(),
        champion.other_labels(),
        champion.too_few_fresh_rows(1, 2, 3),
        champion.not_rolled_back(1, "it was bad"),
        champion.overtaken(),
        champion.not_recorded(),
    ]
    assert {verdict.gate for verdict in asking} == set(BESIDE)
    assert gates.within_latency(1.0, 1.0).gate in MEASURED
