"""Tracking: MLflow shows what the files hold, live or afterwards, and never costs a training."""

import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.store.db import utils

from stages.common.digests import sha256_path
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params, read_yaml
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import Run
from stages.tracking import publish, store
from stages.tracking.live import LiveRun
from stages.tracking.publish import publish_live, publish_run, reports_up_to
from stages.tracking.registry import Registration
from stages.tracking.runs import INPUTS_TAG, MODEL_TAG, finish, flatten
from tests.projects import PROJECT, Project
from tests.unit.mlflow_apart import apart
from tests.waiting import free_port

METRICS = {
    "rows": 80,
    "accuracy": 0.9,
    "per_class": {"good": {"f1": 0.8}, "n/a": {"f1": 0.7}},
    "behaviour": {"names": {"kind": "invariance", "cases": 0, "pass_rate": None}},  # MLflow takes numbers alone
    "thresholds": None,
}
report = Project(Path()).file
PARAMS = """
task: text-classification
seed: 13
ingest:
  sources: [{path: data/inbox/a.csv, columns: {text: text, label: label}}]
  labels: {c++: code, n/a: none, "..": dots, "//": slashes}
  base_model: {scratch: {vocab_size: 300}}
register: {model_name: reviews}
tracking: {experiment_name: trials}
"""


@pytest.fixture
def params(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project with a trained model, its curves and a DVC lock; MLflow is the default store in its folder."""
    apart(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    shutil.copyfile(PROJECT / "dvc.yaml", tmp_path / "dvc.yaml")
    report("params.yaml", PARAMS)
    sections = {key: value for key, value in read_yaml(Path("params.yaml")).items() if key != "tracking"}
    stages = {
        "clean": {"params": {"params.yaml": {"seed": 13}}},
        "finetune": {"params": {"params.yaml": {**sections, "finetune": {"num_train_epochs": 3}}}},
    }
    report("dvc.lock", {"schema": "2.0", "stages": stages})
    trained_model("first")
    return check_params(read_yaml(Path("params.yaml")))


def evaluate_run(params: Params) -> Run[Any]:
    return Run(read_graph()["evaluate"], params.evaluate, params, Path("staging"))


def trained_model(content: str) -> Path:
    return report("models/finetuned/model.safetensors", content).parent


TRAINING = {step: {"epoch": step / 4, "loss": 1 / step, "learning_rate": 0.1 * step} for step in range(1, 9)}
VALIDATION = {
    step: {"epoch": step / 4, "validation_loss": 0.5, "validation_accuracy": step / 10, "validation_macro_f1": 0.3}
    for step in (4, 8)
}


def curve_files() -> list[Path]:
    """The curves of a whole training, as files in the project."""
    files = []
    for name, points in (("training", TRAINING), ("validation", VALIDATION)):
        table = pl.DataFrame([{"step": step, **point} for step, point in points.items()])
        table = table.unpivot(index=["step", "epoch"], variable_name="name")  # a curve after the other
        table = table.with_columns(pl.col("name").str.strip_prefix("validation_"))
        files.append(report(f"reports/plots/{name}.csv", table.write_csv()))
    return files


def watch(live: LiveRun, steps: range = range(1, 9)) -> None:
    """Send the points of some steps, as the training does."""
    for step in steps:
        live.log(TRAINING[step], step)
        if step in VALIDATION:
            live.log(VALIDATION[step], step)


def train_watched(params: Params, inputs: str = "inputs-1", content: str = "first") -> LiveRun:
    live = LiveRun(params, inputs, {"attune.threads": "2"})
    watch(live)
    live.finish(sha256_path(trained_model(content)), curve_files())
    return live


def runs(uri: str = "") -> list[SimpleNamespace]:
    """All that the runs of the experiment show that are not deleted, without ids and times."""
    client = MlflowClient(uri or f"sqlite:///{Path.cwd()}/mlflow.db")
    experiment = client.get_experiment_by_name("trials")
    return [record(client, run) for run in client.search_runs([experiment.experiment_id])]


def record(client: MlflowClient, run: Any) -> SimpleNamespace:
    def files(folder: str = "") -> Iterator[str]:
        for item in client.list_artifacts(run.info.run_id, folder or None):
            yield from files(item.path) if item.is_dir else [item.path]

    return SimpleNamespace(
        status=run.info.status,
        name=run.info.run_name,
        params=run.data.params,
        tags={key: value for key, value in run.data.tags.items() if key.startswith("attune.")},
        points={
            key: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
        },
        artifacts={path: Path(client.download_artifacts(run.info.run_id, path)).read_bytes() for path in files()},
    )


def expected_points() -> dict[str, list[tuple[int, float]]]:
    return {
        name: [(step, point[name]) for step, point in points.items()]
        for points in (TRAINING, VALIDATION)
        for name in points[4]
        if name != "epoch"  # says where on a curve a point is
    }


def test_a_training_watched_live_is_one_finished_run_with_every_point_once_and_its_params(params: Params) -> None:
    train_watched(params)
    (run,) = runs()
    assert run.status == "FINISHED"
    assert run.points == expected_points()
    assert run.tags[INPUTS_TAG] == "inputs-1"
    assert run.tags[MODEL_TAG] == sha256_path(Path("models/finetuned"))
    assert run.tags["attune.threads"] == "2"
    assert run.name == "full lr=0.0001 epochs=2 seed=13 scratch"
    assert run.params["finetune.learning_rate"] == "0.0001"
    assert run.params["ingest.sources.0.columns.text"] == "text"
    assert run.params["ingest.labels.c__"] == "code"
    assert "ingest.sources.0.url" not in run.params  # of the kinds of sources, each is only one
    sections = dict(flatten(params.model_dump(by_alias=True, exclude={"tracking", "tune", "review", "ingest"})))
    assert [key for key in run.params if not key.startswith("ingest.")] == list(sections)


def test_labels_have_names_of_their_own_in_mlflow() -> None:
    def names(*labels: str) -> list[str]:
        return [name for name, _ in flatten({"f1": dict.fromkeys(labels, 0.5)})]

    assert names("c++", "a b", "好") == ["f1.c__", "f1.a b", "f1.好"]
    assert names("a_b", "a;b", "good") == ["f1.a_b", "f1.a_b-2e62a3", "f1.good"]
    assert names("a;b", "a!b") == [names("a!b", "a;b")[1], names("a_b", "a!b")[1]], "whatever the others are"
    long = "x" * 100
    for labels in (("<5", ">5"), ("😀", "😡"), (f"{long}1", f"{long}2"), ("की", "का")):
        assert len({*names(*labels)}) == len(labels)
        assert all(re.fullmatch(r"[\w. :-]{1,250}", name) for name in names(*labels)), "what MLflow takes"


def test_tags_of_a_runs_beginning_stay_as_they_were_first_set(params: Params) -> None:
    client = store.connect()
    run_id = publish_run(client, params, Path("models/finetuned"), {})
    finish(client, run_id, {"attune.commit": "first"}, {"attune.stage.evaluate": "first"})
    finish(client, run_id, {"attune.commit": "later", "attune.threads": "4"}, {"attune.stage.evaluate": "later"})
    tags = client.get_run(run_id).data.tags
    assert (tags["attune.commit"], tags["attune.threads"], tags["attune.stage.evaluate"]) == ("first", "4", "later")


def test_publishing_twice_changes_nothing_and_training_again_adds_no_run(params: Params) -> None:
    curve_files()
    report("reports/scores.json", METRICS)
    report("reports/clean.json", {"rows": 1})
    publish_live(evaluate_run(params), Path("models/finetuned"), costs={"int8_file_mib": 2.5})
    (run,) = runs()
    assert run.points["cost_int8_file_mib"] == [(0, 2.5)]
    assert run.points["test_accuracy"] == [(0, 0.9)]
    assert run.points["test_per_class.n_a.f1"] == [(0, 0.7)], "whatever a label is called"
    plots = {f"reports/plots/{name}.csv" for name in ("training", "validation")}
    assert set(run.artifacts) == {"reports/scores.json", "reports/clean.json"} | plots
    publish_run(store.connect(), params, Path("models/finetuned"), reports_up_to())
    assert runs() == [run]
    train_watched(params)
    (trained,) = runs()
    assert (trained.tags[INPUTS_TAG], trained.points) == ("inputs-1", run.points)


def test_a_training_cut_short_goes_on_in_its_run_without_doubled_points(params: Params) -> None:
    watch(LiveRun(params, "inputs-1", {}), range(1, 7))  # killed after step 6; its last checkpoint is of step 4
    again = LiveRun(params, "inputs-1", {})
    watch(again, range(5, 9))
    again.finish(sha256_path(Path("models/finetuned")), curve_files())
    (run,) = runs()
    assert (run.status, run.points) == ("FINISHED", expected_points())


def test_each_model_has_one_run_whatever_inputs_it_is_trained_from(params: Params) -> None:
    """Another number of threads gives other bytes; going back to the first number gives the first model again."""
    for inputs, content in (("1", "first"), ("1", "second"), ("1", "first"), ("2", "second"), ("2", "third")):
        train_watched(params, inputs, content)
    assert len({run.tags[MODEL_TAG] for run in runs()}) == 3
    assert [run.points for run in runs()] == [expected_points()] * 3


def test_a_run_id_in_the_environment_does_not_capture_the_run(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    client = store.connect()
    other = client.create_run(client.create_experiment("somebody else's")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", other)
    train_watched(params)
    assert len(runs()) == 1
    assert client.get_run(other).data.metrics == {}
    assert client.get_run(other).info.status == "RUNNING"


def test_a_server_away_costs_a_training_a_warning_within_seconds_and_publishing_fails(
    params: Params, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:geheim@127.0.0.1:{free_port()}")
    started = time.monotonic()
    train_watched(params)
    assert publish_live(evaluate_run(params), Path("models/finetuned")) is None
    assert publish.main() == 1
    assert time.monotonic() - started < 5
    output = capfd.readouterr()
    assert output.err.count("MLflow cannot be reached") == 3
    assert "make publish" in output.err
    assert "geheim" not in output.out + output.err


def test_a_catch_up_gives_what_live_tracking_would_have_given(
    params: Params, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report("reports/scores.json", METRICS)
    run = evaluate_run(params)
    train_watched(params)
    publish_live(run, Path("models/finetuned"))
    live = runs()
    assert live[0].points | expected_points() == live[0].points
    assert "reports/scores.json" in live[0].artifacts
    shutil.rmtree(".attune")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    train_watched(params)
    publish_live(run, Path("models/finetuned"))
    shutil.copyfile(empty_store, tmp_path / "later.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/later.db")
    publish_run(store.connect(), params, Path("models/finetuned"), reports_up_to("evaluate"))
    assert runs(f"sqlite:///{tmp_path}/later.db") == live


def test_a_server_that_dies_while_training_is_caught_up_with_in_the_same_run(
    params: Params, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    live = LiveRun(params, "inputs-1", {"attune.threads": "2"})
    watch(live, range(1, 4))

    def dead(*_: object, **__: object) -> None:
        raise ConnectionError("http://me:geheim@127.0.0.1 is dead")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", dead)
        watch(live, range(4, 9))
        live.finish(sha256_path(Path("models/finetuned")), curve_files())
    errors = capfd.readouterr().err
    assert errors.count("warning") == 1 and "make publish" in errors
    assert "http://me:***@127.0.0.1 is dead" in errors
    (half,) = runs()
    assert (half.status, len(half.points["loss"])) == ("RUNNING", 3)
    for _ in range(2):
        assert publish.main() == 0
        (whole,) = runs()
        assert (whole.status, whole.points) == ("FINISHED", expected_points())
        assert whole.tags[MODEL_TAG] == sha256_path(Path("models/finetuned"))


def test_params_are_those_of_the_last_run_not_of_a_later_edit(params: Params) -> None:
    Path("params.yaml").write_text(PARAMS.replace("seed: 13", "seed: 99").replace("trials", "trials, run_name: mine"))
    assert publish.main() == 0
    (run,) = runs()
    assert (run.params["seed"], run.params["finetune.num_train_epochs"]) == ("13", "3")
    assert run.name == "mine", "no stage of the lock has it"


def test_reports_are_taken_staged_first_and_no_further_than_the_stage(params: Params) -> None:
    report("reports/scores.json", "old")
    report("reports/registration.json", "of the last run")
    report("staging/reports/scores.json", "new")
    report("logs/registered.model", "reviews 1111\n")
    reports = reports_up_to("evaluate", Path("staging"))
    assert reports["reports/scores.json"].read_text() == "new"
    assert "reports/registration.json" not in reports
    assert "reports/registration.json" in reports_up_to()
    assert "logs/registered.model" not in reports_up_to(), "it says where a model is registered, and nothing of it"


def test_a_registration_of_an_earlier_attune_costs_the_version_and_not_the_run(
    params: Params, capfd: pytest.CaptureFixture[str]
) -> None:
    report("reports/scores.json", METRICS)
    report("reports/registration.json", {"model_name": "reviews", "model": "x", "alias": "champion", "gates": []})
    assert publish.main() == 1
    errors = capfd.readouterr().err
    assert "reports/registration.json is not understood" in errors and "make register" in errors
    assert "Traceback" not in errors
    (run,) = runs()
    assert (run.status, run.points["test_accuracy"]) == ("FINISHED", [(0, 0.9)])
    assert store.connect().search_registered_models() == []


# ── a database that is not whole ──────────────────────────────────────────────────────────────────────────────────────
def test_a_new_database_is_there_whole_or_not_at_all(
    params: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mlflow.db").write_bytes(b"")  # as who began to make one left it, with a journal of something else
    report("mlflow.db-journal", "x")

    def killed(engine: Any) -> None:
        Path(engine.url.database).write_bytes(empty_store.read_bytes()[:9000])
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "_initialize_tables", killed)
    with pytest.raises(KeyboardInterrupt):
        store.connect()
    assert [file.name for file in Path().glob("mlflow.db*") if file.read_bytes()] == []
    monkeypatch.setattr(utils, "_initialize_tables", lambda engine: shutil.copyfile(empty_store, engine.url.database))
    report("mlflow.db.new", "left by one who could not clean up")
    assert store.connect().search_registered_models() == []
    assert [file.name for file in Path().glob("mlflow.db*")] == ["mlflow.db"]


def statement(text: str) -> Callable[[Path], None]:
    def execute(file: Path) -> None:
        with closing(sqlite3.connect(file)) as database:
            database.executescript(text)

    return execute


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:20_000]), "malformed"),
        (lambda file: file.write_bytes(file.read_bytes()[:50]), "malformed"),
        (lambda file: file.write_bytes(b"<html>no database at all</html>" * 99), "not a database"),
        (statement("DELETE FROM alembic_version"), "lacks tables"),
        (statement("DROP TABLE alembic_version"), "lacks tables"),
        (statement("DROP TABLE model_version_tags"), "lacks tables"),
        (statement("UPDATE alembic_version SET version_num = '2b4d017a5e9b'; DROP TABLE jobs"), "already exists"),
    ],
)
def test_a_broken_database_is_named_with_the_way_out_and_stays_as_it_is(
    params: Params, damage: Callable[[Path], None], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path("mlflow.db")
    damage(file)
    left = file.read_bytes()
    train_watched(params)
    assert publish.main() == 1
    errors = capfd.readouterr().err
    assert errors.count("mlflow.db is no whole database of MLflow: ") == 2 and words in errors
    assert errors.count("mkdir -p broken && mv mlflow.db* broken; make publish") == 2 and "Traceback" not in errors
    if words != "already exists":  # MLflow alone can tell, by trying
        assert file.read_bytes() == left
        with pytest.raises(AttuneError, match="no whole database"):
            assert Registration("reviews", "0", "1", True, []).known


def test_what_a_database_refuses_is_one_line(params: Params, capfd: pytest.CaptureFixture[str]) -> None:
    """As on a full disk: MLflow logs what it raises, with a traceback."""
    statement("CREATE TRIGGER full BEFORE INSERT ON runs BEGIN INSERT INTO nowhere VALUES (1); END")(Path("mlflow.db"))
    train_watched(params)
    errors = capfd.readouterr().err
    assert errors.startswith("  warning: MLflow failed: ") and errors.count("\n") == 1
