"""The promises of the README, on a few hundred real reviews with the real MiniLM."""

import csv
import json
import re
import time
from pathlib import Path

import polars as pl
import pytest

from stages.common.pipeline.graph import read_graph
from tests.projects import PROJECT, Project, pipeline_project


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Project:
    project = pipeline_project(tmp_path_factory.mktemp("end_to_end") / "project", downloads)

    def few_rows(params):
        params["ingest"]["limit"] = 500
        params["finetune"]["num_train_epochs"] = 1
        params["finetune"]["logging_steps"] = 5
        params["evaluate"]["bootstrap"]["resamples"] = 200
        params["evaluate"]["behaviour"]["rows"] = 40
        params["evaluate"]["attributions"] = {"errors": 2, "sample": 2, "steps": 8}
        params["register"]["gates"] = {"minimum": {"accuracy": 0.2}, "beat_baselines": []}

    project.change(few_rows)
    done = project.repro()
    first = ["ingest", "clean", "augment", "tokenize"]
    assert project.stages_run(done) == [*first, "finetune", "export", "evaluate", "register"]
    return project


def report(project: Project, name: str) -> dict:
    return json.loads((project.root / "reports" / name).read_text(encoding="utf-8"))


def client(project: Project):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{project.root / 'mlflow.db'}")


def test_no_row_disappears_between_source_and_splits(trained: Project) -> None:
    raw = pl.read_parquet(trained.root / "data/raw/records.parquet").height
    rejected = pl.read_parquet(trained.root / "data/raw/rejected.parquet").height
    manifest = json.loads((trained.root / "data/raw/manifest.json").read_text())
    assert raw + rejected == manifest["rows_read"] == 13905
    splits = [pl.read_parquet(trained.root / f"data/clean/{name}.parquet") for name in ("train", "validation", "test")]
    out = pl.read_parquet(trained.root / "data/clean/rejected.parquet").height
    assert sum(rows.height for rows in splits) + out == raw == 500
    films = [set(rows["group"]) for rows in splits]
    assert not films[0] & films[1] and not films[0] & films[2] and not films[1] & films[2]


def test_scores_stand_beside_baselines_with_intervals(trained: Project) -> None:
    metrics = report(trained, "scores.json")
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    assert set(metrics["baselines"]) == {"majority", "tfidf", "base_model"}
    test = pl.read_parquet(trained.root / "data/clean/test.parquet")
    predictions = pl.read_parquet(trained.root / "data/predictions.parquet")
    assert metrics["rows"] == test.height == predictions.height
    hits = predictions.filter(pl.col("label") == pl.col("prediction")).height
    assert metrics["accuracy"] == pytest.approx(hits / test.height, abs=1e-6)
    assert metrics["per_class"].keys() == {"negative", "positive"}
    headline = report(trained, "metrics.json")
    assert [*headline][:4] == ["rows", "macro_f1", "macro_f1_low", "macro_f1_high"] and len(headline) <= 15
    assert {name: metrics[name] for name in [*headline][:7]} == {name: headline[name] for name in [*headline][:7]}


def test_what_changed_decides_what_runs(trained: Project) -> None:
    done = trained.repro()
    assert trained.stages_run(done) == []
    assert "up to date" in done.stdout
    before = (trained.root / "params.yaml").read_text()
    trained.change(lambda params: params["tracking"].update(experiment_name="elsewhere"))
    assert trained.stages_run(trained.repro()) == []
    (trained.root / "params.yaml").write_text(before)
    trained.change(lambda params: params["evaluate"]["bootstrap"].update(resamples=150))
    assert trained.stages_run(trained.repro()) == ["evaluate", "register"]


def test_the_same_inputs_give_the_same_bytes_by_dvc_repro_and_by_the_flow(trained: Project) -> None:
    before = (trained.root / "dvc.lock").read_bytes()
    reports = {path: path.read_bytes() for path in (trained.root / "reports").rglob("*") if path.is_file()}
    home = {"PREFECT_HOME": str(trained.root.parent / "prefect"), "PREFECT_LOGGING_LEVEL": "INFO"}
    done = trained.run("python", "-m", "flows.pipeline", "--force", **home)
    assert "  ".join(f"{stage}: success" for stage in read_graph(PROJECT)) in done.stdout + done.stderr
    assert (trained.root / "dvc.lock").read_bytes() == before
    assert {path: path.read_bytes() for path in reports} == reports
    # and trained once more, it is still the same model: one run, one version
    assert len(client(trained).search_model_versions("name = 'rotten-tomatoes'")) == 1
    experiment = client(trained).get_experiment_by_name("attune")
    assert len(client(trained).search_runs([experiment.experiment_id])) == 1


def test_dvc_shows_metrics_plots_params_and_graph(trained: Project) -> None:
    assert "accuracy" in trained.run("dvc", "metrics", "show").stdout
    assert "finetune" in trained.run("dvc", "dag").stdout
    trained.commit("run")
    before = (trained.root / "params.yaml").read_text()
    trained.change(lambda params: params["finetune"].update(learning_rate=5e-5))
    changed = trained.run("dvc", "params", "diff").stdout
    (trained.root / "params.yaml").write_text(before)
    assert "finetune.learning_rate" in changed and "5e-05" in changed
    trained.run("dvc", "plots", "show")
    page = (trained.root / "dvc_plots" / "index.html").read_text()
    for plot in ("training", "validation", "confusion", "ROC", "reliability", "score by slice"):
        assert f'"text": "{plot}"' in page


def test_the_run_in_mlflow_tells_the_whole_story(trained: Project) -> None:
    store = client(trained)
    experiment = store.get_experiment_by_name("attune")
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["finetune.learning_rate"] == "0.00015"
    with (trained.root / "reports/plots/training.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert [point.step for point in store.get_metric_history(run.info.run_id, "loss")] == steps
    assert run.data.metrics["test_accuracy"] == report(trained, "scores.json")["accuracy"]
    artifacts = {item.path for item in store.list_artifacts(run.info.run_id, "reports")}
    assert {"reports/scores.json", "reports/model_card.md", "reports/clean.json"} <= artifacts


def test_no_out_holds_a_path_or_a_time_of_this_machine(trained: Project) -> None:
    today = time.strftime("%Y-%m-%d")
    made = [f"models/{name}" for name in ("finetuned", "exported", "serving")]
    files = [path for folder in ("data", "reports", *made) for path in (trained.root / folder).rglob("*")]
    for path in filter(Path.is_file, files):
        content = path.read_bytes()
        assert str(trained.root).encode() not in content, path
        assert today.encode() not in content, path
        assert not re.search(rb"\"(epoch_time|train_runtime|train_samples_per_second)\"", content), path


def test_a_failed_gate_ends_with_an_error_only_if_asked(trained: Project) -> None:
    trained.change(lambda params: params["register"]["gates"].update(minimum={"accuracy": 1.0}))
    trained.repro()
    stated = (trained.root / "reports/registration.json").read_bytes()
    (gate,) = report(trained, "registration.json")["gates"]
    assert not gate["passed"] and gate["reason"].endswith("is under 1.0000")
    assert '"promoted": false' in (trained.root / "logs/registered.json").read_text()
    trained.change(lambda params: params["register"].update(fail_on_gate=True))
    done = trained.repro(check=False)
    assert done.returncode != 0 and "the model did not pass: minimum accuracy" in done.stderr
    assert (trained.root / "reports/registration.json").read_bytes() == stated
