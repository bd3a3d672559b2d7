"""The summary: the last run on one screen, whatever of it exists."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows import summary
from stages.common.tracking.packaging import PACKAGE_TAG
from stages.common.tracking.runs import MODEL_TAG

DVC = """
stages:
  clean: {cmd: "true", outs: [a]}
  finetune: {cmd: "true", deps: [a], outs: [b]}
  evaluate: {cmd: "true", deps: [b]}
"""


def scores(value: float) -> dict[str, float]:
    return {
        f"{name}{bound}": value + shift
        for name in ("accuracy", "macro_f1")
        for bound, shift in (("", 0.0), ("_low", -0.1), ("_high", 0.1))
    }


METRICS = {
    "rows": 1234,
    **scores(0.8),
    "baselines": {"majority": scores(0.3), "base_model": scores(0.6)},
    "calibration": {"ece": 0.0123},
    "thresholds": {"coverage": 0.75},
    "behaviour": {"typos": {"cases": 10, "passed": 7}, "names": {"cases": 0, "passed": 0}},
}
EXPORT = {"onnx": {"offered": True}, "int8": {"offered": False}}
CLEAN = {
    "rows_in": 4000,
    "rows_kept": 3900,
    "splits": {"train": {"rows": 3000}, "validation": {"rows": 400}, "test": {"rows": 500}},
}
REGISTRATION = {
    "model_name": "reviews",
    "model": "0" * 64,
    "package": "1" * 64,
    "passed": True,
    "gates": [{"gate": "minimum accuracy", "passed": True, "reason": "fine"}],
}
REGISTERED = {
    "model_name": "reviews",
    "model": "0" * 64,
    "package": "1" * 64,
    "version": 3,
    "alias": "challenger",
    "new_champion": False,
    "promoted": False,
    "gates": [{"gate": "champion", "passed": False, "reason": "macro_f1 0.8 is under [0.9]"}],
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a graph; the registry asked is one that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("ATTUNE_STARTED", raising=False)
    (tmp_path / "dvc.yaml").write_text(DVC)
    return tmp_path


def report(path: str, content: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def shown(capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert summary.main() == code
    return " ".join(capsys.readouterr().out.split())


def test_before_the_first_run_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "make run" in shown(capsys, code=1)


def test_outside_the_project_it_says_where_to_go(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "dvc.yaml").unlink()
    assert summary.main() == 1
    assert "project's folder" in capsys.readouterr().err


def test_everything_is_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    report("reports/metrics.json", METRICS)
    report("reports/clean.json", CLEAN)
    report("reports/registration.json", REGISTRATION)
    report("logs/registered.json", REGISTERED)
    report("reports/export.json", EXPORT)
    report("data/raw/manifest.json", {"rows_read": 4100})
    report("logs/clean.json", {"seconds": 1.25, "peak_mib": 300, "finished": time.time()})
    text = shown(capsys)
    assert "rows 4,100 read, 3,900 kept (train 3,000, validation 400, test 500), 200 rejected" in text
    assert "Test scores on 1,234 rows" in text
    assert "this model │ 0.8000 [0.7000, 0.9000] │ 0.8000 [0.7000, 0.9000]" in text
    assert "base model │ 0.6000" in text
    assert "calibration error 0.012; sure enough to answer 75.0%; 7 of 10 behavioural cases passed" in text
    assert "offered as torch, onnx" in text
    assert "clean │ 1.2 │ 300" in text
    assert "model reviews version 3, alias challenger; 1 of 2 gates passed" in text
    assert "use it models:/reviews@challenger" in text
    assert "failed champion: macro_f1 0.8 is under [0.9]" in text


def test_what_does_not_exist_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    report("reports/metrics.json", METRICS)
    text = shown(capsys)
    assert "Test scores" in text
    assert "kept" not in text
    assert "registry" not in text
    assert "finetune │ – │ – │ from the cache" in text


def test_without_a_manifest_the_rows_of_clean_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    report("reports/metrics.json", METRICS)
    report("reports/clean.json", CLEAN)
    assert "rows 4,000 read, 3,900 kept" in shown(capsys)


def test_stages_that_did_not_run_this_time_are_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report("reports/metrics.json", METRICS)
    report("logs/clean.json", {"seconds": 1.0, "peak_mib": 300, "finished": 1000.0})
    report("logs/finetune.json", {"seconds": 2.0, "peak_mib": 400, "finished": 2000.0})
    monkeypatch.setenv("ATTUNE_STARTED", "1500")
    text = shown(capsys)
    assert "clean │ 1.0 │ 300 │ unchanged, not run again" in text
    assert "finetune │ 2.0 │ 400 │ run │" in text


def test_a_missing_registry_costs_no_more_than_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    report("reports/metrics.json", METRICS)
    report("reports/registration.json", REGISTRATION)
    started = time.monotonic()
    assert "model reviews not in the registry (make register); 1 of 1 gates passed" in shown(capsys)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("other", [None, {**REGISTERED, "package": "2" * 64}, {**REGISTERED, "version": None}])
def test_where_this_checkout_has_no_word_of_the_model_the_registry_is_asked(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, store: str, other: Any
) -> None:
    """Another checkout has registered it, or an earlier run; the same weights with other thresholds are another."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    report("reports/metrics.json", METRICS)
    report("reports/registration.json", REGISTRATION)
    if other:
        report("logs/registered.json", other)
    text = shown(capsys)
    assert "model reviews version 2, alias champion; " in text
    assert "use it models:/reviews@champion" in text
    report("reports/registration.json", {**REGISTRATION, "package": "of version 1"})
    text = shown(capsys)
    assert "model reviews version 1; " in text
    assert "use it models:/reviews/1" in text
    report("reports/registration.json", {**REGISTRATION, "package": "of no version"})
    assert "not in the registry" in shown(capsys)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two versions of the same weights, of which the second is champion, and one of other weights."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.create_registered_model("reviews")
    for model, package in (("0", "of version 1"), ("0", "1" * 64), ("2", "1" * 64)):
        tags = {MODEL_TAG: model * 64, PACKAGE_TAG: package}
        client.create_model_version("reviews", "runs:/x/model", tags=tags)
    client.set_registered_model_alias("reviews", "champion", "2")
    return uri


def test_a_registry_that_is_no_registry_does_not_matter(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "broken.db").write_text("this is not a database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/broken.db")
    report("reports/metrics.json", METRICS)
    report("reports/registration.json", REGISTRATION)
    assert "not in the registry" in shown(capsys)
