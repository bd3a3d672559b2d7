"""The summary of a run: what ran, what came of it and where to look, harmless and without secrets."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mlflow import MlflowClient

from flows import summary as program
from flows.execution.stage_process import Outcome
from flows.reporting import artifact
from flows.reporting.run_summary import Before, new_champion, summary
from stages.tracking.champions import promote
from tests.projects import Project
from tests.unit.small_records import interval

STAGES = ["ingest", "clean", "finetune", "evaluate", "register"]


def metrics(value: float) -> dict[str, Any]:
    return {"rows": 1234, **interval(value, 0.1), "calibration": {"ece": 0.03}}


GAIN = "macro_f1 0.8: gain +0.01, 95% interval [-0.1, +0.2]"


def registration(
    model: str = "new", *, promoted: bool = True, alias: str = "champion", new: bool | None = None, why: str = GAIN
) -> dict[str, Any]:
    """What became of a model, of which both reports tell; promoted, it is a new champion unless `new` says no."""
    own, beside = (
        {"gate": "minimum accuracy", "passed": True, "reason": "fine"},
        {"gate": "champion", "passed": promoted, "value": 0.8, "reason": why},
    )
    here = {"version": 4, "alias": alias, "promoted": promoted, "new_champion": promoted if new is None else new}
    whole = {"model_name": "reviews", "model": model, "package": f"{model} and all", "passed": True}
    return {**whole, **here, "gates": [own, beside]}


file = Project(Path()).file


def put(registration: dict[str, Any]) -> None:
    """Write both reports, as the stage does."""
    own, beside = registration["gates"]
    report = {name: registration[name] for name in ("model_name", "model", "package", "passed")}
    here = {name: value for name, value in registration.items() if name != "passed"}
    file("reports/registration.json", {**report, "gates": [own]})
    file("logs/registered.json", {**here, "gates": [beside]})


CLEAN = {"rows_in": 4000, "rows_kept": 3900, "splits": {"train": {"rows": 3400}, "test": {"rows": 500}}}
MORE = {
    "baselines": {"base_model": {key: value for key, value in metrics(0.6).items() if key != "calibration"}},
    "thresholds": {"coverage": 0.75, "labels": {"good": {"threshold": 0.6}, "odd": {"threshold": None}}},
    "behaviour": {"typos": {"cases": 10, "passed": 7}, "names": {"cases": 0, "passed": 0}},
}
EXPORT = {"onnx": {"offered": True}, "int8": {"offered": False}}
OLD = Before(metrics(0.78), registration("old"))
NEW = Before({**metrics(0.8), **MORE}, registration("new"), CLEAN, EXPORT)
RAN = {name: Outcome("success", 2.5, "stages changed") for name in STAGES}
CACHED = {name: Outcome("cached", 0.0, "nothing changed") for name in STAGES}
BESIDE = {"champion before (version 3, its own test rows)": {"accuracy": 0.79, "macro_f1": 0.81}}


def failed(*lines: str) -> dict[str, Outcome]:
    skipped = {name: Outcome("skipped", reason="clean failed") for name in STAGES[2:]}
    return {"ingest": RAN["ingest"], "clean": Outcome("failed", 1.0, "failed", lines), **skipped}


# ── what it says ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_promotion_is_told_first_with_scores_beside_the_last_run_the_champion_before_and_baselines() -> None:
    text = summary(RAN, OLD, NEW, ["commit: `13699a9`"], BESIDE)
    assert text.startswith("**Promoted: `reviews` version 4 is the champion now.** 5 stages: 5 ran; 12.5 s.")
    assert "4,000 rows, 3,900 kept (`train` 3,400, `test` 500), 100 rejected." in text
    assert "## Scores on 1,234 test rows\n\n| model | accuracy | macro-F1 | ECE |" in text
    assert "| `this model` | 0.8000 [0.7000, 0.9000] | 0.8000 [0.7000, 0.9000] | 0.0300 |" in text
    assert "| `last run` | 0.7800 [" in text
    assert "| `champion before (version 3, its own test rows)` | 0.7900 | 0.8100 | – |" in text
    assert "| `base model` | 0.6000 [0.5000, 0.7000] | 0.6000 [0.5000, 0.7000] | – |" in text
    assert "Offered as `torch`, `onnx`; coverage 75.0%; never answers `odd` (docs/evaluation.md); 7 of 10 behav" in text
    assert "## 2 of 2 gates passed\n\n- `champion`: `macro_f1 0.8: gain +0.01, 95% interval [-0.1, +0.2]`" in text
    assert "- commit: `13699a9`" in text


def test_a_model_that_is_not_promoted_names_the_gates_and_their_reasons() -> None:
    now = Before(metrics(0.7), registration(promoted=False, alias="challenger", why="macro_f1 0.7 is under 0.8"))
    text = summary(RAN, OLD, now)
    assert text.startswith("**`reviews` version 4: not promoted. These gates failed: `champion`.** ")
    assert "## 1 of 2 gates passed\n\n- `champion` **failed**: `macro_f1 0.7 is under 0.8`\n" in text


def test_a_failure_names_stage_last_lines_and_what_to_do() -> None:
    text = summary(failed("clean stopped: no labelled row", "  → name the column of labels", "ERROR"), OLD, OLD)
    assert text.startswith("**Failed at `clean`.** 5 stages: 1 ran, 1 failed, 3 skipped; 3.5 s.")
    assert "```text\nclean stopped: no labelled row\n" in text
    assert "What to do now: `name the column of labels`; then run it again." in text
    assert "| `finetune` | skipped | – | `clean failed` |" in text
    assert "## Scores" not in text, "they would be those of an earlier run"


@pytest.mark.parametrize(
    ("outcomes", "now", "first"),
    [
        (CACHED, OLD, "**Nothing had to run.** 5 stages: 5 up to date"),
        ({**CACHED, "clean": RAN["clean"]}, OLD, "**Done; no model was judged.**"),
        (RAN, OLD, "**`reviews` version 4 stays champion.**"),
        (
            RAN,
            Before(metrics(0.8), registration("old", promoted=False)),
            "**`reviews` version 4: stays champion, but w",
        ),
        ({**CACHED, "finetune": Outcome("cancelled", 3.0)}, OLD, "**Cancelled during `finetune`.**"),
        ({}, Before(), "**Nothing had to run.** 0 stages"),
    ],
)
def test_the_first_line_says_what_came_of_it(outcomes: dict[str, Outcome], now: Before, first: str) -> None:
    assert summary(outcomes, OLD, now).startswith(first)


def test_a_champion_is_new_only_if_this_very_run_made_it_one() -> None:
    assert new_champion(OLD, NEW) and new_champion(Before(), NEW)
    assert not new_champion(NEW, NEW), "so said an earlier run"
    assert not new_champion(OLD, Before(NEW.metrics, registration(new=False))), "in this registry, it was one before"
    challenger = Before(NEW.metrics, registration(promoted=False, alias="challenger"))
    assert not new_champion(OLD, challenger) and new_champion(challenger, NEW)
    assert not new_champion(NEW, Before())


def test_links_lead_to_the_version_without_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter22@mlflow.example/base/?x=1")
    link = "- `models:/reviews@champion`: <https://mlflow.example/base/#/models/reviews/versions/4>"
    assert link in summary(RAN, OLD, NEW)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert "`make ui`, then <http://127.0.0.1:5000/#/models/reviews/versions/4>" in summary(RAN, OLD, NEW)


# ── foreign text ────────────────────────────────────────────────────────────────────────────────────────────────────

EVIL = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![i](https://evil.example/i.png)",
    "[click](javascript:alert(1)) <https://evil.example> https://evil.example www.evil.example",
    "`` ` ``` ```` <b>",
    "| a | b |\n|---|---|",
    "\\`<b>\\`|<b>|\\",
    "# title\n\n* item\n\n---\n\n<b>",
    "```\n<b>\n```",
    "~~~\n</code></pre><b>",
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07\u202e\x00",
)


def foreign(text: str) -> list[str]:
    """Return what a renderer makes of Markdown that is no text, no code and none of the summary's own parts."""
    found, own = [], False  # whether it is the text of a link to MLflow
    for block in MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(text):
        for token in [block, *(block.children or [])]:
            kind = token.type.removesuffix("_open").removesuffix("_close")
            if kind in ("html_block", "html_inline", "image", "code_block", "hr", "lheading", "blockquote", "em"):
                found.append(f"{kind}: {token.content}")
            if kind == "link":
                own = str(token.attrs.get("href")).startswith("http://127.0.0.1:5000/#/models/")
                found += [] if own or token.type == "link_close" else [f"link: {token.attrs}"]
            if token.type == "text" and not own and ("evil" in token.content or "<" in token.content):
                found.append(f"text: {token.content}")
    return found


def everywhere(text: str) -> str:
    """Summaries with a foreign text in each place that takes one."""
    odd = registration(promoted=False, alias=text, why=text) | {"model_name": text}
    odd["gates"].append({"gate": text, "passed": False, "reason": text})
    labels = {"labels": {text: {"threshold": None}}}
    now = Before(
        {**metrics(0.8), "baselines": {text: metrics(0.8)}, "thresholds": labels},
        odd,
        {**CLEAN, "splits": {text: {"rows": 1}}},
        {text: {"offered": True}},
    )
    ends = {text: Outcome("failed", 1.0, text, tuple(text.split("\n"))), "register": Outcome("success", 1.0, text)}
    return "\n".join([summary(ends, OLD, now), summary({"register": ends["register"]}, OLD, now)])


@pytest.mark.parametrize("text", EVIL)
def test_foreign_text_is_neither_html_nor_link_nor_image(text: str) -> None:
    assert foreign(everywhere(text)) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(st.text("`\\|<>b[](!)*_~#-=\n \t&;:/w.\x1b[m\u202e", max_size=40))
def test_no_mixture_of_marks_gets_out_of_its_code(text: str) -> None:
    whole = everywhere(text)
    assert foreign(whole) == []
    assert not any(character in whole for character in "\x1b\u202e\x00")


def test_no_secret_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWS_TOKEN", "op3n-sesame")
    said = "GET https://me:hunter22@host/x?token=zz9plural failed: op3n-sesame"
    text = everywhere(said)
    assert "hunter22" not in text and "zz9plural" not in text and "op3n-sesame" not in text


# ── MLflow and the server ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_champion_before_has_a_version_and_scores_unless_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = MlflowClient(uri)
    experiment = client.create_experiment("tests", artifact_location="nowhere")
    client.create_registered_model("reviews")
    for version in (1, 2):
        run_id = client.create_run(experiment).info.run_id
        for key in artifact.METRICS.values():
            client.log_metric(run_id, key, version / 10)
        client.create_model_version("reviews", f"runs:/{run_id}/model", run_id=run_id)
        promote(client, "reviews", version, version - 1 or None)
    assert artifact.previous_champion("reviews") == (1, {"accuracy": 0.1, "macro_f1": 0.1, "ece": 0.1})
    assert artifact.previous_champion("another") == (None, {})


@pytest.fixture
def reported(project: Project) -> Project:
    """A project with reports."""
    project.file("reports/metrics.json", NEW.metrics)
    put(NEW.registration)
    return project


@pytest.mark.parametrize("hangs", [False, True])
def test_mlflow_away_costs_a_warning_and_seconds(
    reported: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter22@127.0.0.1:9")
    if hangs:
        monkeypatch.setattr(artifact, "SECONDS", 0.3)
        monkeypatch.setattr(artifact, "previous_champion", lambda _: time.sleep(30))
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
    found = artifact.before().registration
    assert (found["model"], found["passed"], found["gates"]) == ("new", True, NEW.registration["gates"][:1])
    assert (found["promoted"], found["alias"], found["version"]) == (False, None, None)
    assert not new_champion(OLD, Before(NEW.metrics, found))


@pytest.mark.parametrize("path", ["reports/registration.json", "logs/registered.json", "reports/metrics.json"])
@pytest.mark.parametrize("content", ["{}", '{"gates": 3, "rows": "many"}', "[]", '{"gates": nu'])
def test_a_failure_is_reported_whatever_is_in_the_reports(reported: Project, path: str, content: str) -> None:
    reported.file(path, content)
    artifact.publish(failed("clean stopped: no rows"), artifact.before())
    assert "clean stopped: no rows" in (reported.root / "logs" / "summary.md").read_text()


def test_a_summary_that_cannot_be_made_costs_a_warning(reported: Project, caplog: pytest.LogCaptureFixture) -> None:
    reported.file("reports/metrics.json", '{"rows": "many"}')
    artifact.publish(CACHED, OLD)
    assert "the summary of this run could not be shown" in caplog.text


# ── make summary ────────────────────────────────────────────────────────────────────────────────────────────────────

DVC = """
stages:
  clean: {cmd: "true", outs: [a]}
  register: {cmd: "true", deps: [a], outs: [b]}
  publish: {cmd: "true", deps: [b]}
"""


@pytest.fixture
def graphed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a graph of its own."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("ATTUNE_STARTED", "1500")
    project.file("dvc.yaml", DVC)
    return project


def display(capsys: pytest.CaptureFixture[str]) -> str:
    assert program.main() == 0
    return " ".join(capsys.readouterr().out.split())


def test_before_the_first_run_and_outside_the_project_it_says_what_to_do(
    graphed: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main() == 1
    assert "make run" in capsys.readouterr().err
    (graphed.root / "dvc.yaml").unlink()
    assert program.main() == 1
    assert "project's folder" in capsys.readouterr().err


def test_everything_is_on_one_screen_and_stages_that_did_not_run_are_marked(
    graphed: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    file("reports/metrics.json", NEW.metrics)
    file("reports/clean.json", CLEAN)
    file("data/raw/manifest.json", {"rows_read": 4100})
    put(NEW.registration)
    file("logs/clean.json", {"seconds": 1.25, "peak_mib": 300, "finished": 1000.0})
    file("logs/register.json", {"seconds": 2.5, "peak_mib": 400, "finished": 2000.0})
    text = display(capsys)
    assert "Promoted: reviews version 4 is the champion now." in text
    assert "4,100 rows, 3,900 kept (train 3,400, test 500), 200 rejected" in text
    assert "this model 0.8000 [0.7000, 0.9000] 0.8000 [0.7000, 0.9000] 0.0300" in text
    assert "clean cached 1.2 peak 300 MiB register success 2.5 peak 400 MiB publish cached – from the cache" in text
    assert "models:/reviews@champion: make ui, then" in text


def test_a_model_that_was_not_registered_from_here_is_said_to_be_elsewhere(
    graphed: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another checkout has registered it, or an earlier run; what else does not exist is left out."""
    file("reports/metrics.json", NEW.metrics)
    put(NEW.registration)
    (graphed.root / "logs" / "registered.json").unlink()
    text = display(capsys)
    assert "reviews was not registered from here: make champion shows the registry" in text
    assert "kept" not in text and "models:/" not in text
