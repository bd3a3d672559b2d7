"""Tracking: MLflow shows what the files hold, live or afterwards, and never costs a training."""

import csv
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from stages.common.errors import AttuneError
from stages.common.params import Params, check_params, read_yaml
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import Run
from stages.tracking import publish, store
from stages.tracking.live import LiveRun
from stages.tracking.publish import publish_live, publish_run, reports_up_to, trained_params
from stages.tracking.runs import DATA_SETS, INPUTS_TAG, MODEL_TAG, finish, flatten, model_digest
from tests.projects import PROJECT, Project
from tests.unit.mlflow_apart import apart
from tests.waiting import free_port

MD5 = {"train": "1" * 32, "validation": "2" * 32, "test": "3" * 32}
METRICS = {
    "rows": 80,
    "accuracy": 0.9,
    "per_class": {"good": {"f1": 0.8}, "n/a": {"f1": 0.7}},
    "behaviour": {"names": {"kind": "invariance", "cases": 0, "pass_rate": None}},  # MLflow takes numbers alone
    "thresholds": None,
}
PARAMS = """
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
    (tmp_path / "params.yaml").write_text(PARAMS)
    sections = {key: value for key, value in read_yaml(tmp_path / "params.yaml").items() if key != "tracking"}
    outs = [{"path": f"data/clean/{name}.parquet", "md5": md5, "size": 10} for name, md5 in MD5.items()]
    stages = {
        "clean": {"outs": outs, "params": {"params.yaml": {"seed": 13}}},
        "finetune": {"params": {"params.yaml": {**sections, "finetune": {"num_train_epochs": 3}}}},
    }
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    trained_model("first")
    return check_params(read_yaml(tmp_path / "params.yaml"))


def trained_model(content: str) -> Path:
    folder = Path("models/finetuned")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(content)
    return folder


TRAINING = {step: {"epoch": step / 4, "loss": 1 / step, "learning_rate": 0.1 * step} for step in range(1, 9)}
VALIDATION = {
    step: {"epoch": step / 4, "validation_loss": 0.5, "validation_accuracy": step / 10, "validation_macro_f1": 0.3}
    for step in (4, 8)
}


def curve_files() -> list[Path]:
    """The curves of a whole training, as files in the project."""
    files = []
    for name, points in (("training", TRAINING), ("validation", VALIDATION)):
        files.append(Path(f"reports/plots/{name}.csv"))
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        with files[-1].open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *points[4]])
            writer.writeheader()
            writer.writerows({"step": step, **point} for step, point in points.items())
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
    live.finish(model_digest(trained_model(content)), curve_files())
    return live


report = Project(Path()).file


@dataclass
class Record:
    """All that an MLflow run shows, without ids and times."""

    status: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    points: dict[str, list[tuple[int, float]]]
    artifacts: dict[str, bytes]
    data_sets: dict[str, tuple[str, str]]


def runs(uri: str = "", experiment: str = "trials") -> list[Record]:
    """The runs of the experiment that are not deleted."""
    client = MlflowClient(uri or f"sqlite:///{Path.cwd()}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return [record(client, run) for run in client.search_runs([found.experiment_id])] if found else []


def record(client: MlflowClient, run: Any) -> Record:
    def files(folder: str = "") -> Iterator[str]:
        for item in client.list_artifacts(run.info.run_id, folder or None):
            yield from files(item.path) if item.is_dir else [item.path]

    def content(path: str) -> bytes:
        from mlflow.artifacts import download_artifacts

        where = f"{run.info.artifact_uri}/{path}"
        return Path(download_artifacts(where, tracking_uri=client.tracking_uri)).read_bytes()

    return Record(
        status=run.info.status,
        name=run.info.run_name,
        params=run.data.params,
        tags={key: value for key, value in run.data.tags.items() if key.startswith("attune.")},
        points={
            key: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
        },
        artifacts={path: content(path) for path in files()},
        data_sets={
            given.tags[0].value: (given.dataset.name, given.dataset.digest) for given in run.inputs.dataset_inputs
        },
    )


def expected_points() -> dict[str, list[tuple[int, float]]]:
    every: dict[str, set[tuple[int, float]]] = {}
    for points in (TRAINING, VALIDATION):
        for step, point in points.items():
            for key, value in point.items():
                every.setdefault(key, set()).add((step, value))
    every.pop("epoch")  # says where on a curve a point is
    return {key: sorted(points) for key, points in every.items()}


# ── a run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_watched_live_is_one_finished_run_with_every_point_once(params: Params) -> None:
    train_watched(params)
    (found,) = runs()
    assert found.status == "FINISHED"
    assert found.points == expected_points()
    assert found.tags[INPUTS_TAG] == "inputs-1"
    assert found.tags[MODEL_TAG] == model_digest(Path("models/finetuned"))
    assert found.tags["attune.threads"] == "2"
    assert found.data_sets == {name: (split, MD5[split]) for split, name in DATA_SETS.items()}


def test_the_run_holds_every_param_under_its_dotted_name_and_is_called_after_some(params: Params) -> None:
    train_watched(params)
    (found,) = runs()
    assert found.name == "full lr=0.0001 epochs=2 seed=13 scratch"
    assert found.params["finetune.learning_rate"] == "0.0001"
    assert found.params["ingest.sources.0.columns.text"] == "text"
    assert found.params["ingest.labels.c__"] == "code"
    assert found.params["register.model_name"] == "reviews"
    assert not any(key.startswith("tracking") for key in found.params)
    assert found.params["finetune.dropout"] == "None"  # which says: the base model's own
    assert "ingest.sources.0.url" not in found.params  # of the kinds of sources, each is only one
    sections = dict(flatten(params.model_dump(by_alias=True, exclude={"tracking", "tune", "review", "ingest"})))
    assert [key for key in found.params if not key.startswith("ingest.")] == list(sections)


def test_a_runs_beginning_stays_as_it_was_first_told(params: Params) -> None:
    run_id = publish_run(store.connect(), params, Path("models/finetuned"), {})
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    finish(client, run_id, {"attune.commit": "first"}, {"attune.stage.evaluate": "first"})
    finish(client, run_id, {"attune.commit": "later", "attune.threads": "4"}, {"attune.stage.evaluate": "later"})
    tags = client.get_run(run_id).data.tags
    assert (tags["attune.commit"], tags["attune.threads"], tags["attune.stage.evaluate"]) == ("first", "4", "later")


@settings(max_examples=300)
@given(st.text(min_size=1, max_size=300))
def test_whatever_a_label_is_mlflow_takes_its_name(label: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    for key, _ in flatten({"test_per_class": {label: {"precision": 1.0}}}):
        _validate_metric_name(key)
        _validate_param_name(key)


# ── twice is once ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_training_again_from_the_same_inputs_changes_nothing_not_even_the_end(params: Params) -> None:
    train_watched(params)
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    experiment = client.get_experiment_by_name("trials").experiment_id
    before, ended = runs(), client.search_runs([experiment])[0].info.end_time
    time.sleep(0.01)
    train_watched(params)
    assert runs() == before
    assert client.search_runs([experiment])[0].info.end_time == ended


def test_publishing_twice_changes_nothing(params: Params) -> None:
    curve_files()
    report("reports/metrics.json", METRICS)
    report("reports/clean.json", {"rows": 1})
    found = []
    for _ in range(2):
        publish_run(store.connect(), params, Path("models/finetuned"), reports_up_to())
        found.append(runs())
    assert len(found[0]) == 1
    assert found[0] == found[1]
    assert found[0][0].points["test_accuracy"] == [(0, 0.9)]
    assert found[0][0].points["test_per_class.n_a.f1"] == [(0, 0.7)], "whatever a label is called"
    plots = {f"reports/plots/{name}.csv" for name in ("training", "validation")}
    assert set(found[0][0].artifacts) == {"reports/metrics.json", "reports/clean.json"} | plots


def test_a_training_cut_short_goes_on_in_its_run_without_doubled_points(params: Params) -> None:
    watch(LiveRun(params, "inputs-1", {}), range(1, 7))  # killed after step 6; its last checkpoint is of step 4
    again = LiveRun(params, "inputs-1", {})
    watch(again, range(5, 9))
    again.finish(model_digest(Path("models/finetuned")), curve_files())
    (found,) = runs()
    assert found.status == "FINISHED"
    assert found.points == expected_points()


def test_each_model_has_one_run_whatever_inputs_it_is_trained_from(params: Params) -> None:
    """Another number of threads gives other bytes; going back to the first number gives the first model again."""
    for inputs, content in (("1", "first"), ("1", "second"), ("1", "first"), ("2", "second"), ("2", "third")):
        train_watched(params, inputs, content)
    found = runs()
    assert len({one.tags[MODEL_TAG] for one in found}) == len(found) == 3
    assert [one.points for one in found] == [expected_points()] * 3


def test_a_model_published_from_files_has_one_run_also_after_it_is_trained_again(params: Params) -> None:
    curve_files()
    publish_run(store.connect(), params, Path("models/finetuned"), reports_up_to())
    train_watched(params)
    (found,) = runs()
    assert found.tags[INPUTS_TAG] == "inputs-1"
    assert found.points == expected_points()


# ── where MLflow is ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_id_in_the_environment_does_not_capture_the_run(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    client = store.connect()
    other = client.create_run(client.create_experiment("somebody else's")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", other)
    train_watched(params)
    assert len(runs()) == 1
    assert client.get_run(other).data.metrics == {}
    assert client.get_run(other).info.status == "RUNNING"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:secret@host:5000/path", "https://me:***@host:5000/path"),
        ("http://me:se@cret@host:port", "http://me:***@host:port"),
        ("sqlite:////somewhere/mlflow.db", "sqlite:////somewhere/mlflow.db"),
        ("http://token@host", "http://token@host"),
    ],
)
def test_a_uri_is_shown_without_its_password(uri: str, shown: str) -> None:
    assert store.without_password(uri) == shown


# ── a server that is away, dies, comes back ─────────────────────────────────────────────────────────────────────────


def test_a_server_away_costs_a_training_a_warning_within_seconds_and_publishing_fails(
    params: Params, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:geheim@127.0.0.1:{free_port()}")
    started = time.monotonic()
    train_watched(params)
    run = Run(node=read_graph()["evaluate"], params=params.evaluate, all_params=params, staging=Path("staging"))
    assert publish_live(run, Path("models/finetuned")) is None
    assert publish.main() == 1
    assert time.monotonic() - started < 5
    said = capfd.readouterr()
    assert said.err.count("MLflow cannot be reached") == 3
    assert "make publish" in said.err
    assert "geheim" not in said.out + said.err


def test_a_catch_up_gives_what_live_tracking_would_have_given(
    params: Params, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report("reports/metrics.json", METRICS)
    run = Run(node=read_graph()["evaluate"], params=params.evaluate, all_params=params, staging=Path("staging"))
    train_watched(params)
    publish_live(run, Path("models/finetuned"))
    live = runs()
    assert live[0].points | expected_points() == live[0].points
    assert "reports/metrics.json" in live[0].artifacts
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
        live.finish(model_digest(Path("models/finetuned")), curve_files())
    said = capfd.readouterr()
    assert said.err.count("warning") == 1 and "make publish" in said.err
    assert "http://me:***@127.0.0.1 is dead" in said.err
    (half,) = runs()
    assert (half.status, len(half.points["loss"])) == ("RUNNING", 3)
    for _ in range(2):
        assert publish.main() == 0
        (whole,) = runs()
        assert (whole.status, whole.points) == ("FINISHED", expected_points())
        assert whole.tags[MODEL_TAG] == model_digest(Path("models/finetuned"))


# ── publishing from the files ───────────────────────────────────────────────────────────────────────────────────────


def test_params_are_those_of_the_last_run_not_of_a_later_edit(params: Params) -> None:
    Path("params.yaml").write_text(PARAMS.replace("seed: 13", "seed: 99").replace("trials", "renamed"))
    found = trained_params()
    assert found.seed == 13
    assert found.finetune.num_train_epochs == 3
    assert found.tracking.experiment_name == "renamed"  # belongs to no stage


def test_before_the_first_run_there_is_nothing_to_publish(params: Params, capfd: pytest.CaptureFixture[str]) -> None:
    Path("dvc.lock").unlink()
    with pytest.raises(AttuneError, match="no trained model yet"):
        trained_params()
    assert publish.main() == 1
    assert "make run" in capfd.readouterr().err


def test_reports_are_taken_staged_first_and_no_further_than_the_stage(params: Params) -> None:
    report("reports/metrics.json", "old")
    report("reports/registration.json", "of the last run")
    report("staging/reports/metrics.json", "new")
    found = reports_up_to("evaluate", Path("staging"))
    assert found["reports/metrics.json"].read_text() == "new"
    report("logs/registered.model", "reviews 1111\n")
    assert "reports/registration.json" not in found
    assert "reports/registration.json" in reports_up_to()
    assert "logs/registered.model" not in reports_up_to(), "it says where a model is registered, and nothing of it"


def test_a_registration_of_an_earlier_attune_costs_the_version_and_not_the_run(
    params: Params, capfd: pytest.CaptureFixture[str]
) -> None:
    report("reports/metrics.json", METRICS)
    report("reports/registration.json", {"model_name": "reviews", "model": "x", "alias": "champion", "gates": []})
    assert publish.main() == 1
    assert "reports/registration.json is not understood" in (said := capfd.readouterr().err) and "make register" in said
    assert "Traceback" not in said
    (found,) = runs()
    assert (found.status, found.points["test_accuracy"]) == ("FINISHED", [(0, 0.9)])
    assert MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db").search_registered_models() == []
