"""The summary of a run: what ran, what came of it and where to look, harmless and without secrets."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows import summary as program
from flows.execution.stage_process import Outcome
from flows.reporting import artifact
from flows.reporting.reports import Reports, new_champion, read_reports
from flows.reporting.run_summary import summary
from stages.common.params.tasks import task_spec
from stages.tracking.registry import promote
from tests.projects import Project
from tests.unit.harmless_markdown import NASTY, assert_harmless
from tests.unit.small_records import interval

Output, Patch = pytest.CaptureFixture[str], pytest.MonkeyPatch
STAGES = ["ingest", "clean", "finetune", "evaluate", "register"]


def metrics(value: float) -> dict[str, Any]:
    return {"rows": 1234, **interval(value, 0.1), "calibration": {"ece": 0.03}}


GAIN = "macro_f1 0.8: gain +0.01, 95% interval [-0.1, +0.2]"


def registration(
    model: str = "new", *, promoted: bool = True, alias: str = "champion", new: bool | None = None, why: str = GAIN
) -> dict[str, Any]:
    """What became of a model, of which both reports tell; promoted, it is a new champion unless `new` says no."""
    gates = [
        {"gate": "minimum accuracy", "passed": True, "reason": "fine"},
        {"gate": "champion", "passed": promoted, "value": 0.8, "reason": why},
    ]
    registered = {"version": 4, "alias": alias, "promoted": promoted, "new_champion": promoted if new is None else new}
    names = {"model_name": "reviews", "model": model, "package": f"{model} and all"}
    return {**names, "passed": True, "gates": gates, **registered}


file = Project(Path()).file


def put(registration: dict[str, Any]) -> None:
    """Write both reports, as the stage does."""
    own, beside = registration["gates"]
    report = {name: registration[name] for name in ("model_name", "model", "package", "passed")}
    file("reports/registration.json", {**report, "gates": [own]})
    file("logs/registered.json", {**registration, "gates": [beside]})


CLEAN = {"rows_in": 4000, "rows_kept": 3900, "splits": {"train": {"rows": 3400}, "test": {"rows": 500}}}
MORE = {
    "baselines": {"base_model": {key: value for key, value in metrics(0.6).items() if key != "calibration"}},
    "thresholds": {"coverage": 0.75, "labels": {"good": {"threshold": 0.6}, "odd": {"threshold": None}}},
    "behaviour": {"typos": {"cases": 10, "passed": 7}, "names": {"cases": 0, "passed": 0}},
}
EXPORT = {"onnx": {"offered": True}, "int8": {"offered": False}}
OLD = Reports(metrics(0.78), registration("old"))
NEW = Reports({**metrics(0.8), **MORE}, registration("new"), CLEAN, EXPORT)
REFUSED = Reports(metrics(0.7), registration(promoted=False, alias="challenger", why="macro_f1 0.7 is under 0.8"))
RAN = {name: Outcome("success", 2.5, "stages changed") for name in STAGES}
CACHED = {name: Outcome("cached", 0.0, "nothing changed") for name in STAGES}
BESIDE = {"champion before (version 3, its own test rows)": {"accuracy": 0.79, "macro_f1": 0.81}}


def failed(*lines: str) -> dict[str, Outcome]:
    skipped = {name: Outcome("skipped", reason="clean failed") for name in STAGES[2:]}
    return {"ingest": RAN["ingest"], "clean": Outcome("failed", 1.0, "failed", lines), **skipped}


# ── what it says ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_promotion_comes_first_with_scores_beside_the_last_run_the_champion_before_and_baselines() -> None:
    text = summary(RAN, OLD, NEW, ["commit: `13699a9`"], BESIDE)
    assert text.startswith("**Promoted: `reviews` version 4 is the champion now.** 5 stages: 5 ran; 12.5 s.")
    assert "4,000 rows, 3,900 kept (`train` 3,400, `test` 500), 100 rejected." in text
    assert "## Scores on 1,234 test rows\n\n| model | macro-F1 | accuracy | ECE |" in text
    assert "| `this model` | 0.8000 [0.7000, 0.9000] | 0.8000 [0.7000, 0.9000] | 0.0300 |" in text
    assert "| `last run` | 0.7800 [" in text
    assert "| `champion before (version 3, its own test rows)` | 0.8100 | 0.7900 | – |" in text
    assert "| `base model` | 0.6000 [0.5000, 0.7000] | 0.6000 [0.5000, 0.7000] | – |" in text
    assert "Offered as `torch`, `onnx`; coverage 75.0%; never answers `odd` (docs/evaluation.md); 7 of 10 behav" in text
    assert "## 2 of 2 gates passed\n\n- `champion`: `macro_f1 0.8: gain +0.01, 95% interval [-0.1, +0.2]`" in text
    assert "- commit: `13699a9`" in text
    assert "## 1 of 2 gates passed\n\n- `champion` **failed**: `macro_f1 0.7 is under 0.8`\n" in summary(
        RAN, OLD, REFUSED
    )


def test_a_failure_names_stage_last_lines_and_what_to_do() -> None:
    text = summary(failed("clean stopped: no labelled row", "  → name the column of labels", "ERROR"), OLD, OLD)
    assert text.startswith("**Failed at `clean`.** 5 stages: 1 ran, 1 failed, 3 skipped; 3.5 s.")
    assert "```text\nclean stopped: no labelled row\n" in text
    assert "What to do now: `name the column of labels`; then run it again." in text
    assert "| `finetune` | skipped | – | `clean failed` |" in text
    assert "## Scores" not in text, "they would be those of an earlier run"


@pytest.mark.parametrize(
    ("outcomes", "current", "first"),
    [
        (RAN, REFUSED, "**`reviews` version 4: not promoted. These gates failed: `champion`.** "),
        (CACHED, OLD, "**Nothing had to run.** 5 stages: 5 up to date"),
        ({**CACHED, "clean": RAN["clean"]}, OLD, "**Done; no model was judged.**"),
        (RAN, OLD, "**`reviews` version 4 stays champion.**"),
        (RAN, Reports(metrics(0.8), registration("old", promoted=False)), "**`reviews` version 4: stays champion, but"),
        ({**CACHED, "finetune": Outcome("cancelled", 3.0)}, OLD, "**Cancelled during `finetune`.**"),
        ({}, Reports(), "**Nothing had to run.** 0 stages"),
    ],
)
def test_the_first_line_says_what_came_of_it(outcomes: dict[str, Outcome], current: Reports, first: str) -> None:
    assert summary(outcomes, OLD, current).startswith(first)


def test_a_champion_is_new_only_if_this_very_run_made_it_one() -> None:
    assert new_champion(OLD, NEW) and new_champion(Reports(), NEW)
    assert not new_champion(NEW, NEW), "so said an earlier run"
    assert not new_champion(OLD, Reports(NEW.metrics, registration(new=False))), "in this registry, it was one before"
    assert not new_champion(OLD, REFUSED) and new_champion(REFUSED, NEW)
    assert not new_champion(NEW, Reports())


def test_links_lead_to_the_version_without_a_login(monkeypatch: Patch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter22@mlflow.example/base/?x=1")
    link = "- `models:/reviews@champion`: <https://mlflow.example/base/#/models/reviews/versions/4>"
    assert link in summary(RAN, OLD, NEW)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert "`make ui`, then <http://127.0.0.1:5000/#/models/reviews/versions/4>" in summary(RAN, OLD, NEW)
    elsewhere = Reports(NEW.metrics, {**NEW.registration, "version": None})
    assert "`reviews` was not registered from here: `make champion` shows the registry" in summary(RAN, OLD, elsewhere)


# ── foreign text ────────────────────────────────────────────────────────────────────────────────────────────────────


def everywhere(text: str) -> str:
    """Summaries with a foreign text in each place that takes one."""
    odd = registration(promoted=False, alias=text, why=text) | {"model_name": text}
    odd["gates"].append({"gate": text, "passed": False, "reason": text})
    labels = {"labels": {text: {"threshold": None}}}
    current = Reports(
        {**metrics(0.8), "baselines": {text: metrics(0.8)}, "thresholds": labels},
        odd,
        {**CLEAN, "splits": {text: {"rows": 1}}},
        {text: {"offered": True}},
    )
    ends = {text: Outcome("failed", 1.0, text, tuple(text.split("\n"))), "register": Outcome("success", 1.0, text)}
    text = "\n".join([summary(ends, OLD, current), summary({"register": ends["register"]}, OLD, current)])
    return re.sub(r"<http://127\.0\.0\.1:5000/#/models/[^<> ]*/versions/4>", "", text)  # our own link


@pytest.mark.parametrize("text", NASTY)
def test_foreign_text_does_nothing(text: str) -> None:
    assert_harmless(everywhere(text))


def test_no_secret_is_in_it(monkeypatch: Patch) -> None:
    monkeypatch.setenv("REVIEWS_TOKEN", "op3n-sesame")
    text = everywhere("GET https://me:hunter22@host/x?token=zz9plural failed: op3n-sesame")
    assert "hunter22" not in text and "zz9plural" not in text and "op3n-sesame" not in text


# ── MLflow and the server ───────────────────────────────────────────────────────────────────────────────────────────
def test_the_previous_champion_has_version_and_scores(tmp_path: Path, empty_store: Path, monkeypatch: Patch) -> None:
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = MlflowClient(uri)
    client.create_registered_model("reviews")
    spec = task_spec("text-classification")
    for version in (1, 2):
        run_id = client.create_run("0").info.run_id
        for key in ("accuracy", "macro_f1", "calibration.ece"):
            client.log_metric(run_id, f"test_{key}", version / 10)
        client.create_model_version("reviews", f"runs:/{run_id}/model", run_id=run_id)
        promote(client, "reviews", version, version - 1 or None)
    assert artifact.previous_champion("reviews", spec) == (1, {"accuracy": 0.1, "macro_f1": 0.1, "ece": 0.1})
    assert artifact.previous_champion("another", spec) == (None, {})


@pytest.fixture
def reported(project: Project) -> Project:
    """A project with reports."""
    project.file("reports/scores.json", NEW.metrics)
    put(NEW.registration)
    return project


@pytest.mark.parametrize("hangs", [False, True])
def test_mlflow_may_be_away(
    reported: Project, monkeypatch: Patch, caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter22@127.0.0.1:9")
    if hangs:
        monkeypatch.setattr(artifact, "SECONDS", 0.3)
        monkeypatch.setattr(artifact, "previous_champion", lambda *_: time.sleep(30))
    started = time.monotonic()
    artifact.publish(RAN, OLD)
    assert time.monotonic() - started < 8
    text = (reported.root / "logs" / "summary.md").read_text()
    assert text.startswith("**Promoted: `reviews` version 4 is the champion now.**")
    assert "the champion before is not known" in caplog.text and "hunter22" not in caplog.text


@pytest.mark.parametrize("other", [None, '{"model": "ano', json.dumps({"model": "old", "alias": "champion"})])
def test_without_word_of_this_very_model_nobody_knows_its_alias(reported: Project, other: str | None) -> None:
    """The registry was asked about another one, or never from this checkout."""
    (reported.root / "logs" / "registered.json").unlink()
    if other:
        reported.file("logs/registered.json", other)
    current = read_reports().registration
    assert (current["model"], current["passed"], current["gates"]) == ("new", True, NEW.registration["gates"][:1])
    assert (current["promoted"], current["alias"], current["version"]) == (False, None, None)
    assert not new_champion(OLD, Reports(NEW.metrics, current))


@pytest.mark.parametrize("content", ["{}", '{"gates": 3, "rows": "many"}', "[]", '{"gates": nu'])
def test_a_failure_is_reported_whatever_is_in_the_reports(reported: Project, content: str) -> None:
    for path in ("reports/registration.json", "logs/registered.json", "reports/scores.json"):
        reported.file(path, content)
    artifact.publish(failed("clean stopped: no rows"), read_reports())
    assert "clean stopped: no rows" in (reported.root / "logs" / "summary.md").read_text()


def test_a_summary_that_cannot_be_made_costs_a_warning(reported: Project, caplog: pytest.LogCaptureFixture) -> None:
    reported.file("reports/scores.json", '{"rows": "many"}')
    artifact.publish(CACHED, OLD)
    assert "the summary of this run could not be shown" in caplog.text


# ── make summary ────────────────────────────────────────────────────────────────────────────────────────────────────

DVC = """
stages:
  clean: {cmd: "true", outs: [a]}
  register: {cmd: "true", deps: [a], outs: [b]}
  publish: {cmd: "true", deps: [b]}
"""


def test_everything_is_on_one_screen(project: Project, capsys: Output, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("ATTUNE_STARTED", "1500")
    project.file("dvc.yaml", DVC)
    assert program.main() == 1
    assert "make run" in capsys.readouterr().err, "before the first run"
    file("reports/scores.json", NEW.metrics)
    file("reports/clean.json", CLEAN)
    file("data/raw/manifest.json", {"rows_read": 4100})
    put(NEW.registration)
    for name, seconds, mib, finished in (("clean", 1.25, 300, 1000.0), ("register", 2.5, 400, 2000.0)):
        file(f"logs/{name}.json", {"seconds": seconds, "peak_mib": mib, "finished": finished})
    assert program.main() == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "4,100 rows, 3,900 kept (train 3,400, test 500), 200 rejected" in text
    assert "clean cached 1.2 peak 300 MiB register success 2.5 peak 400 MiB publish cached – from the cache" in text
    assert "models:/reviews@champion: make ui, then" in text
