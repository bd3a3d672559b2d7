"""The stage that registers: a better, an equal and a worse model beside the champion, with real weights and MLflow."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import polars as pl
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoTokenizer

from stages.common.digests import sha256_path
from stages.common.errors import AttuneError
from stages.common.params import load_params
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import Run
from stages.register import __main__ as register
from stages.register.__main__ import _register, check_parts
from stages.register.champion_comparison import compare_with_champion
from stages.register.gates import Verdict
from stages.serving.backends import Package
from stages.tasks.inference import load_classifier
from stages.tracking import store
from stages.tracking.package import SEEN_FILES
from stages.tracking.registry import CHALLENGER, CHAMPION, VERDICT_TAG, Overtaken, champion_number, promote, roll_back
from stages.tracking.runs import MODEL_TAG
from tests.models import FILLER, TELLING, build_model, outspoken, put_tokenizer
from tests.projects import Project, empty_project
from tests.unit.small_decisions import label_decision, probabilities
from tests.unit.small_records import make_records

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = ["bad", "good"]
ROWS = 200
NAME = "tests"
OUTS = ("reports/registration.json", "reports/model_card.md", "logs/registered.model")


class Home(NamedTuple):
    """Models, test rows, and a registry for each of two of the models in which it is the champion."""

    models: dict[str, Path]
    test: pl.DataFrame
    stores: dict[str, Path]


def build(base: Path, folder: Path) -> dict[str, Path]:
    """Three models: one, an equal with other weights and the same answers, and one that answers otherwise."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [" ".join([word, *FILLER[:count]]) for words in TELLING.values() for word in words for count in range(5)]
    models = {}
    for name, seed, scale in (("good", 1, 1.0), ("equal", 1, 1.25), ("poor", 2, 1.0)):
        network = build_model(base, LABELS, None, seed)
        outspoken(network, tokenizer, texts)
        with torch.no_grad():
            network.classifier.weight.mul_(scale)
            network.classifier.bias.mul_(scale)
        network.save_pretrained(folder / name)
        models[name] = put_tokenizer(base, folder / name)
    return models


def answers(model: Path, rows: pl.DataFrame) -> list[str]:
    names = load_classifier(model).config.id2label
    return [names[index] for index in probabilities(model, rows, 64).argmax(axis=1)]


def made_up_rows(model: Path) -> pl.DataFrame:
    """Rows of which the model gets four of five right."""
    generator = np.random.default_rng(3)
    words = [word for some in TELLING.values() for word in some]
    texts = [" ".join(generator.choice([*FILLER, *words], generator.integers(2, 9))) for _ in range(ROWS)]
    rows = make_records([{"text": text} for text in texts]).with_columns(fold=pl.lit(None, pl.Int16))
    labels = answers(model, rows)
    labels[::5] = [{"bad": "good", "good": "bad"}[label] for label in labels[::5]]
    return rows.with_columns(label=pl.Series(labels))


def lay_out(project: Project, model: Path, test: pl.DataFrame) -> None:
    """Put everything that is needed to register a model into a project's folder."""
    root = project.root
    for folder in ("data/clean", "data/augmented", "models/exported"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "models/finetuned", ignore_errors=True)
    shutil.copytree(model, root / "models/finetuned")
    label_decision(LABELS, 1.5).write(root / "models/serving")
    test.write_parquet(root / "data/clean/test.parquet")
    for path in SEEN_FILES:
        pl.DataFrame({"id": ["trained"]}).write_parquet(root / path)
    predicted = test.select("id", "label", prediction=pl.Series(answers(model, test)))
    predicted.sample(fraction=1.0, shuffle=True, seed=2).write_parquet(root / "data/predictions.parquet")
    digest = sha256_path(root / "models/finetuned")
    project.file("reports/scores.json", {"model": {"digest": digest, "serving": sha256_path(root / "models/serving")}})
    forms = {name: {"sha256": None} for name in ("onnx", "int8", "bf16")}
    project.file("reports/export.json", {"model": digest, **forms})


@pytest.fixture(scope="module")
def home(base: Path, tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Home:
    root = tmp_path_factory.mktemp("home")
    models = build(base, root)
    test = made_up_rows(models["good"])
    stores = {}
    for name in ("good", "poor"):
        project = empty_project(root / f"project of {name}")
        project.file("mlflow.db", empty_store.read_bytes())
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project.root)
            patch.setenv("MLFLOW_TRACKING_URI", "")
            lay_out(project, models[name], test)
            assert registered() == []
        stores[name] = project.root / "mlflow.db"
    return Home(models, test, stores)


def registered(own: list[Verdict] | None = None) -> list[str]:
    """Run the stage's heart in the working folder; return the names of failed gates."""
    params = load_params()
    staging = Path("staging")
    shutil.rmtree(staging, ignore_errors=True)
    run: Run[Any] = Run(read_graph()["register"], params.register_, params, staging)
    run.output("reports/model_card.md").write_text("# card\n")
    verdicts = [*(own or []), *_register(run, Package.of_project(), own or [])]
    for path in OUTS:
        Path(path).parent.mkdir(exist_ok=True)
        shutil.copyfile(staging / path, path)
    return [verdict.gate for verdict in verdicts if not verdict.passed]


@pytest.fixture
def beside(home: Home, project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MlflowClient]:
    """Return a function that puts a model into the project, beside a champion of the registry."""

    def put(champion: str, model: str, max_latency_ms: float | None = None, **gate: Any) -> MlflowClient:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        gates = {"champion": {"metric": "accuracy", **gate}, "max_latency_ms": max_latency_ms}
        bootstrap = {"bootstrap": {"resamples": 200}}
        project.params(register={"model_name": NAME, "gates": gates}, evaluate=bootstrap)
        shutil.copyfile(home.stores[champion], project.root / "mlflow.db")
        lay_out(project, home.models[model], home.test)
        return store.connect()

    return put


def aliases(client: MlflowClient) -> dict[str, str]:
    """The models that have an alias, by the first letters of their digest."""
    versions = client.get_registered_model(NAME).aliases
    return {alias: client.get_model_version(NAME, str(number)).tags[MODEL_TAG] for alias, number in versions.items()}


def report() -> dict[str, Any]:
    """What Git keeps: the model, and its own gates."""
    return json.loads(Path("reports/registration.json").read_text())


def outcome() -> dict[str, Any]:
    """What became of the model in the registry."""
    return json.loads(Path("logs/registered.json").read_text())


def agree(client: MlflowClient) -> None:
    """Reports, verdicts, version and alias say the same."""
    own, registry = report(), outcome()
    assert own["passed"] == all(gate["passed"] for gate in own["gates"])
    assert registry["promoted"] == all(gate["passed"] for gate in [*own["gates"], *registry["gates"]])
    assert (registry["model_name"], registry["model"]) == (NAME, own["model"])
    assert aliases(client)[registry["alias"]] == registry["model"]
    assert client.get_model_version(NAME, str(registry["version"])).tags[MODEL_TAG] == registry["model"]


@pytest.mark.parametrize(
    ("champion", "model", "gate", "promoted"),
    [
        ("poor", "good", {"significant": True}, True),
        ("good", "equal", {}, True),  # an equal one may take over
        ("good", "equal", {"significant": True}, False),  # unless it has to be better beyond doubt
        ("good", "equal", {"significant": True, "allowed_drop": 0.01}, True),  # or not worse beyond doubt
        ("good", "poor", {}, False),
    ],
)
def test_a_model_becomes_champion_if_it_is_good_enough_beside_the_one_in_use(
    home: Home, beside: Callable[..., MlflowClient], champion: str, model: str, gate: dict[str, Any], promoted: bool
) -> None:
    client = beside(champion, model, **gate)
    assert registered() == ([] if promoted else ["champion"])
    agree(client)
    ours, theirs = (sha256_path(home.models[name]) for name in (model, champion))
    assert aliases(client) == ({CHAMPION: ours} if promoted else {CHAMPION: theirs, CHALLENGER: ours})
    assert (outcome()["promoted"], outcome()["new_champion"], outcome()["version"]) == (promoted, promoted, 2)
    (verdict,) = outcome()["gates"]
    assert f"on the {ROWS} test rows" in verdict["reason"] and "rows fixed" in verdict["reason"]
    assert verdict["reason"] in client.get_model_version(NAME, "2").tags[VERDICT_TAG]


@pytest.mark.parametrize(
    ("seen_rows", "labels", "reason"),
    [
        (100, LABELS, "on the 100 test rows"),
        (180, LABELS, "20 of the 200 test rows were not seen by the champion"),
        (0, [*LABELS, "odd"], "the champion has another task or other labels"),
    ],
)
def test_rows_that_the_champion_has_seen_do_not_count_and_other_labels_cannot_be_compared(
    home: Home, beside: Callable[..., MlflowClient], seen_rows: int, labels: list[str], reason: str
) -> None:
    client = beside("good", "equal")
    first = client.get_model_version(NAME, "1")
    run_id = client.create_run(client.get_run(first.run_id).info.experiment_id).info.run_id
    home.test.head(seen_rows).select("id").write_parquet("seen_ids.parquet")
    client.log_artifact(run_id, "seen_ids.parquet", "data")
    version = client.create_model_version(NAME, first.source, run_id=run_id, tags=first.tags)
    client.set_registered_model_alias(NAME, CHAMPION, version.version)
    params = load_params()
    run: Run[Any] = Run(read_graph()["register"], params.register_, params, Path("staging"))
    package = Package.of_project()
    config = package.model / "config.json"
    named = {"id2label": dict(enumerate(labels))}
    config.write_text(json.dumps(json.loads(config.read_text()) | named))
    verdicts, number = compare_with_champion(run, "new", package)
    assert reason in verdicts[0].reason and number == int(version.version)
    assert verdicts[0].passed is (seen_rows == 100)


def test_report_and_stamp_have_the_same_bytes_whoever_is_champion_and_however_slow_the_machine(
    beside: Callable[..., MlflowClient], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [Verdict("minimum accuracy", 0.8, 0.7, True, "accuracy 0.8000 is at least 0.7000")]
    reports, outcomes = [], []
    for champion, limit, uri in (("poor", None, ""), ("good", 0.000001, ""), ("good", 0.000001, "http://127.0.0.1:9")):
        beside(champion, "equal", limit, significant=True)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        registered(own)
        reports.append([Path(path).read_bytes() for path in OUTS])
        outcomes.append((outcome()["promoted"], outcome()["alias"], [gate["gate"] for gate in outcome()["gates"]]))
    assert reports == [reports[0]] * 3
    assert outcome()["gates"][0]["value"] is None and "ms (torch, 95th percentile)" in capsys.readouterr().out
    assert report()["gates"] == [asdict(verdict) for verdict in own]
    assert outcomes == [
        (True, CHAMPION, ["champion"]),
        (False, CHALLENGER, ["max_latency_ms", "champion"]),
        (False, None, ["max_latency_ms", "champion"]),
    ]


def test_registering_again_changes_nothing_and_a_model_that_was_rolled_back_does_not_come_back_by_itself(
    home: Home, beside: Callable[..., MlflowClient]
) -> None:
    client = beside("poor", "good")
    assert registered() == []
    first = [Path(path).read_bytes() for path in OUTS]
    assert registered() == []
    assert [Path(path).read_bytes() for path in OUTS] == first
    agree(client)
    assert (outcome()["new_champion"], outcome()["gates"][0]["reason"]) == (False, "its weights are the champion's own")
    roll_back(client, NAME, reason="it swears")
    assert registered() == ["not rolled back"]
    agree(client)
    reason = outcome()["gates"][0]["reason"]
    assert "it swears" in reason and "make rollback ARGS='--to 2'" in reason
    assert aliases(client)[CHAMPION] == sha256_path(home.models["poor"])


def test_a_model_that_was_overtaken_is_judged_again_beside_the_new_champion(
    beside: Callable[..., MlflowClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage fails in passing, so that the flow tries it again; all that stood before stands."""
    client = beside("poor", "equal", significant=True)
    publish_live = register.publish_live

    def late(*arguments: Any) -> Any:
        source = client.get_model_version(NAME, "1")
        other = client.create_model_version(NAME, source.source, run_id=source.run_id, tags=source.tags)
        promote(client, NAME, int(other.version), champion_number(client, NAME))
        return publish_live(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(register, "publish_live", late)
        with pytest.raises(Overtaken) as overtaken:
            registered()
    assert overtaken.value.passing and "make register" in overtaken.value.fix
    assert champion_number(client, NAME) == 2 and not Path("logs/registered.model").exists()
    assert registered() == []  # the other has the champion's weights, and so is beaten as well
    agree(client)


@pytest.mark.parametrize("breaks", [False, True])
def test_while_the_registry_is_away_or_breaks_nothing_is_promoted_and_nothing_lost(
    home: Home, beside: Callable[..., MlflowClient], monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    client = beside("poor", "good")

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("the line is dead")

    with monkeypatch.context() as patch:
        if breaks:
            patch.setattr(MlflowClient, "create_model_version", broken)
        else:
            patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert registered() == ["promotion" if breaks else "champion"]
    assert (outcome()["promoted"], outcome()["version"], outcome()["alias"]) == (False, None, None)
    assert (outcome()["model"], report()["passed"]) == (report()["model"], True)
    assert "make register" in outcome()["gates"][-1]["reason"]
    assert aliases(client) == {CHAMPION: sha256_path(home.models["poor"])}
    store.connect()
    assert registered() == []
    agree(client)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (".", "No such artifact: 'MLmodel'"),
        ("artifacts/finetuned/model.safetensors", "others than were registered"),
    ],
)
def test_a_champion_whose_files_are_gone_is_named_with_the_way_on_and_the_next_model_is_registered(
    home: Home, beside: Callable[..., MlflowClient], tmp_path: Path, lost: str, reason: str
) -> None:
    client = beside("poor", "good")
    files = tmp_path / "files"
    shutil.copytree(unquote(urlsplit(client.get_model_version_download_uri(NAME, "1")).path), files)
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("UPDATE model_versions SET storage_location = ?", (files.as_uri(),))
    if lost == ".":
        shutil.rmtree(files)
    else:
        (files / lost).write_bytes(b"cut off")
    assert registered() == ["champion"]
    why = outcome()["gates"][0]["reason"]
    assert why.startswith(f"the files of {NAME} version 1 are not to be had at {files.as_uri()}: {reason}; "), why
    assert "put them back, or set gates.champion: null once; then `make register`" in why
    assert aliases(client) == {CHAMPION: sha256_path(home.models["poor"]), CHALLENGER: report()["model"]}
    Project(Path()).change(lambda params: params["register"]["gates"].update(champion=None))
    assert registered() == []
    agree(client)
    assert aliases(client) == {CHAMPION: report()["model"]} and outcome()["version"] == 2


@pytest.mark.parametrize("part", ["model", "decision", "form"])
def test_parts_that_were_not_scored_together_are_not_registered(home: Home, project: Project, part: str) -> None:
    lay_out(project, home.models["good"], home.test)
    package = Package.of_project()
    form = project.file("models/exported/model.onnx", b"a graph")
    metrics, export = (json.loads(Path(f"reports/{name}.json").read_text()) for name in ("scores", "export"))
    export["onnx"]["sha256"] = sha256_path(form)
    check_parts(package, metrics, export)
    if part == "model":
        shutil.copytree(home.models["poor"], package.model, dirs_exist_ok=True)
    elif part == "decision":
        label_decision(LABELS, 0.5).write(Path("models/serving"))
    else:
        form.unlink()
    with pytest.raises(AttuneError, match=r"does not speak of models/.* as it is now"):
        check_parts(package, metrics, export)
