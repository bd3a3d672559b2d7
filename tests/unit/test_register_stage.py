"""The stage that registers: a better, an equal and a worse model beside the champion, with real weights and MLflow."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
from stages.common.pipeline.stage import Run, write_json
from stages.register.__main__ import _register, check_parts
from stages.register.champion import judge_beside_champion
from stages.register.gates import Verdict
from stages.serving.classifier import Package
from stages.serving.decision import Decision
from stages.tasks.inference import load_classifier
from stages.tasks.text_classification import build_model, probabilities
from stages.tracking import publish, store
from stages.tracking.champions import CHALLENGER, CHAMPION, Overtaken, champion_number, promote, roll_back
from stages.tracking.registry import VERDICT_TAG
from stages.tracking.runs import MODEL_TAG, model_digest
from tests.models import FILLER, TELLING, outspoken, put_tokenizer
from tests.projects import Project, empty_project
from tests.unit.small_records import interval

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = ["bad", "good"]
ROWS = 200
NAME = "tests"
OUTS = ("reports/registration.json", "reports/model_card.md", "logs/registered.model")


@dataclass
class Home:
    """Models, test rows, and a registry for each of two of the models in which it is the champion."""

    models: dict[str, Path]
    test: pl.DataFrame
    stores: dict[str, Path]


def build(base: Path, folder: Path) -> dict[str, Path]:
    """Three models: one, a twin with other weights and the same answers, and one that answers otherwise."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [" ".join([word, *FILLER[:at]]) for words in TELLING.values() for word in words for at in range(5)]
    models = {}
    for name, seed, scale in (("good", 1, 1.0), ("twin", 1, 1.25), ("poor", 2, 1.0)):
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
    return [names[at] for at in probabilities(model, rows, 64).argmax(axis=1)]


def made_up_rows(model: Path) -> pl.DataFrame:
    """Rows of which the model gets four of five right."""
    generator = np.random.default_rng(3)
    words = [word for some in TELLING.values() for word in some]
    texts = [" ".join(generator.choice([*FILLER, *words], generator.integers(2, 9))) for _ in range(ROWS)]
    empty = pl.lit(None, dtype=pl.String)
    rows = pl.DataFrame({"id": [f"row{at}" for at in range(ROWS)], "text": texts}).with_columns(
        pl.lit(None, dtype=pl.Int16).alias("fold"),
        *(empty.alias(name) for name in ("text_pair", "group", "timestamp", "extra")),
        source=pl.lit("s"),
    )
    right = answers(model, rows)
    other = {"bad": "good", "good": "bad"}
    return rows.with_columns(label=pl.Series([other[one] if at % 5 == 0 else one for at, one in enumerate(right)]))


def lay_out(root: Path, model: Path, test: pl.DataFrame) -> None:
    """Put everything that the stage reads into a project's folder."""
    for folder in ("data/raw", "data/clean", "data/augmented", "models/exported", "reports/plots"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "models/finetuned", ignore_errors=True)
    shutil.copytree(model, root / "models/finetuned")
    Decision(LABELS, 1.5).write(root / "models/serving")
    test.write_parquet(root / "data/clean/test.parquet")
    seen = test.head(1).with_columns(id=pl.lit("trained"), parent=pl.col("group"), method=pl.col("group"))
    seen.write_parquet(root / "data/augmented/train.parquet")
    seen.write_parquet(root / "data/clean/validation.parquet")
    predicted = test.select("id", "label", prediction=pl.Series(answers(model, test)))
    predicted.sample(fraction=1.0, shuffle=True, seed=2).write_parquet(root / "data/predictions.parquet")
    accuracy = predicted.select((pl.col("label") == pl.col("prediction")).mean()).item()
    one = {"precision": 0.8, "recall": 0.8, "f1": 0.8, "support": 10}
    per_class = dict.fromkeys(LABELS, one)
    digest = model_digest(root / "models/finetuned")
    size = {"digest": digest, "serving": sha256_path(root / "models/serving")}
    metrics = {"rows": ROWS, **interval(accuracy, 0.0), "per_class": per_class, "baselines": {}, "model": size}
    write_json(metrics, root / "reports/metrics.json")
    write_json({"rows_read": ROWS, "sources": []}, root / "data/raw/manifest.json")
    split = {"rows": ROWS, "groups": 0, "labels": dict.fromkeys(LABELS, 100)}
    splits = dict.fromkeys(("train", "validation", "test"), split)
    write_json({"rows_in": ROWS, "rows_kept": ROWS, "splits": splits}, root / "reports/clean.json")
    write_json({"model": digest}, root / "reports/export.json")
    (root / "reports/plots/slices.csv").write_text("slice,rows,accuracy,macro_f1\n")


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
            lay_out(project.root, models[name], test)
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
    verdicts = [*(own or []), *_register(run, own or [], LABELS)]
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
        lay_out(project.root, home.models[model], home.test)
        return store.connect()

    return put


def aliases(client: MlflowClient) -> dict[str, str]:
    """The models that have an alias, by the first letters of their digest."""
    found = client.get_registered_model(NAME).aliases
    return {alias: client.get_model_version(NAME, str(at)).tags[MODEL_TAG] for alias, at in found.items()}


def report() -> dict[str, Any]:
    """What Git keeps: the model, and its own gates."""
    return json.loads(Path("reports/registration.json").read_text())


def here(root: Path = Path()) -> dict[str, Any]:
    """What became of the model in the registry here."""
    return json.loads((root / "logs/registered.json").read_text())


def agree(client: MlflowClient) -> None:
    """Reports, verdicts, version and alias say the same."""
    own, said = report(), here()
    assert own["passed"] == all(gate["passed"] for gate in own["gates"])
    assert said["promoted"] == all(gate["passed"] for gate in [*own["gates"], *said["gates"]])
    assert (said["model_name"], said["model"]) == (NAME, own["model"])
    assert aliases(client)[said["alias"]] == said["model"]
    assert client.get_model_version(NAME, str(said["version"])).tags[MODEL_TAG] == said["model"]


# ── better, equal and worse ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("champion", "model", "gate", "promoted"),
    [
        ("poor", "good", {"significant": True}, True),
        ("good", "twin", {}, True),  # an equal one may take over
        ("good", "twin", {"significant": True}, False),  # unless it has to be better beyond doubt
        ("good", "twin", {"significant": True, "allowed_drop": 0.01}, True),  # or not worse beyond doubt
        ("good", "poor", {}, False),
        ("good", "poor", {"allowed_drop": 0.8}, True),
    ],
)
def test_a_model_becomes_champion_if_it_is_good_enough_beside_the_one_in_use(
    home: Home, beside: Callable[..., MlflowClient], champion: str, model: str, gate: dict[str, Any], promoted: bool
) -> None:
    client = beside(champion, model, **gate)
    assert registered() == ([] if promoted else ["champion"])
    agree(client)
    ours, theirs = (model_digest(home.models[name]) for name in (model, champion))
    assert aliases(client) == ({CHAMPION: ours} if promoted else {CHAMPION: theirs, CHALLENGER: ours})
    assert (here()["promoted"], here()["new_champion"], here()["version"]) == (promoted, promoted, 2)
    (found,) = here()["gates"]
    assert f"on the {ROWS} test rows" in found["reason"] and "rows fixed" in found["reason"]
    reached = found["value"] == found["limit"] and "significant" not in gate
    assert (found["value"] > found["limit"] or reached) is promoted
    assert found["reason"] in client.get_model_version(NAME, "2").tags[VERDICT_TAG]


@pytest.mark.parametrize(
    ("seen", "labels", "said"),
    [
        (100, LABELS, "on the 100 test rows"),
        (180, LABELS, "20 of the 200 test rows were not seen by the champion, and a comparison needs 30"),
        (0, [*LABELS, "odd"], "the champion has other labels"),
    ],
)
def test_rows_that_the_champion_has_seen_do_not_count_and_other_labels_cannot_be_compared(
    home: Home, beside: Callable[..., MlflowClient], seen: int, labels: list[str], said: str
) -> None:
    client = beside("good", "twin")
    first = client.get_model_version(NAME, "1")
    run_id = client.create_run(client.get_run(first.run_id).info.experiment_id).info.run_id
    home.test.head(seen).select("id").write_parquet("seen_ids.parquet")
    client.log_artifact(run_id, "seen_ids.parquet", "data")
    version = client.create_model_version(NAME, first.source, run_id=run_id, tags={MODEL_TAG: "old"})
    client.set_registered_model_alias(NAME, CHAMPION, version.version)
    params = load_params()
    run: Run[Any] = Run(read_graph()["register"], params.register_, params, Path("staging"))
    verdicts, number = judge_beside_champion(run, "new", labels)
    assert (said in verdicts[0].reason, number) == (True, int(version.version))
    assert verdicts[0].passed is (seen == 100)


def test_registering_again_changes_nothing(beside: Callable[..., MlflowClient]) -> None:
    client = beside("poor", "good")
    registered()
    assert here()["new_champion"]
    first, versions = outs(), len(client.search_model_versions(f"name = '{NAME}'"))
    assert registered() == []
    assert outs() == first
    agree(client)
    assert (here()["new_champion"], here()["gates"][0]["reason"]) == (False, "its weights are the champion's own")
    assert len(client.search_model_versions(f"name = '{NAME}'")) == versions == 2


def outs() -> dict[str, bytes]:
    return {path: Path(path).read_bytes() for path in OUTS}


def test_report_and_stamp_have_the_same_bytes_whoever_is_champion_and_however_slow_the_machine(
    beside: Callable[..., MlflowClient], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [Verdict("minimum accuracy", 0.8, 0.7, True, "accuracy 0.8000 is at least 0.7000")]
    said, found = [], []
    for champion, limit, uri in (("poor", None, ""), ("good", 0.000001, ""), ("good", 0.000001, "http://127.0.0.1:9")):
        beside(champion, "twin", limit, significant=True)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        registered(own)
        said.append(outs())
        found.append((here()["promoted"], here()["alias"], [gate["gate"] for gate in here()["gates"]]))
    assert said == [said[0]] * 3
    assert here()["gates"][0]["value"] is None and "ms (torch, 95th percentile)" in capsys.readouterr().out
    assert report()["gates"] == [asdict(verdict) for verdict in own]
    assert found == [
        (True, CHAMPION, ["champion"]),
        (False, CHALLENGER, ["max_latency_ms", "champion"]),
        (False, None, ["max_latency_ms", "champion"]),
    ]


def test_a_champion_that_fails_a_gate_now_is_said_to_be_in_use_all_the_same(
    home: Home, beside: Callable[..., MlflowClient], capsys: pytest.CaptureFixture[str]
) -> None:
    client = beside("good", "good")
    assert registered([Verdict("minimum accuracy", 0.8, 0.9, False, "…")]) == ["minimum accuracy"]
    agree(client)
    assert (report()["passed"], here()["promoted"], here()["alias"]) == (False, False, CHAMPION)
    assert aliases(client) == {CHAMPION: model_digest(home.models["good"])}
    assert "make rollback" in capsys.readouterr().out


def test_a_model_that_was_rolled_back_does_not_come_back_by_itself(
    home: Home, beside: Callable[..., MlflowClient]
) -> None:
    client = beside("poor", "good")
    assert registered() == []
    roll_back(client, NAME, reason="it swears")
    assert registered() == ["not rolled back"]
    agree(client)
    reason = here()["gates"][0]["reason"]
    assert "it swears" in reason
    assert "make rollback ARGS='--to 2'" in reason
    assert aliases(client)[CHAMPION] == model_digest(home.models["poor"])
    roll_back(client, NAME, to=2)
    assert registered() == []
    agree(client)


# ── at once, and away ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_was_overtaken_is_judged_again_beside_the_new_champion(
    beside: Callable[..., MlflowClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage fails in passing, so that the flow tries it again; all that stood before stands."""
    client = beside("poor", "twin", significant=True)
    publish_live = publish.publish_live

    def late(*arguments: Any) -> Any:
        source = client.get_model_version(NAME, "1")
        rival = client.create_model_version(NAME, source.source, run_id=source.run_id, tags={MODEL_TAG: "rival"})
        promote(client, NAME, int(rival.version), champion_number(client, NAME))
        return publish_live(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "publish_live", late)
        with pytest.raises(Overtaken) as told:
            registered()
    assert told.value.passing and "make register" in told.value.fix
    assert aliases(client) == {CHAMPION: "rival"} and not Path("logs/registered.model").exists()
    assert registered() == []  # the rival has the champion's weights, and so is beaten as well
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
    assert (here()["promoted"], here()["version"], here()["alias"]) == (False, None, None)
    assert (here()["model"], report()["passed"]) == (report()["model"], True)
    assert "make register" in here()["gates"][-1]["reason"]
    assert aliases(client) == {CHAMPION: model_digest(home.models["poor"])}
    store.connect()
    assert registered() == []
    agree(client)


@pytest.mark.parametrize("part", ["model", "decision", "form", "missing form"])
def test_parts_that_were_not_scored_together_are_not_registered(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, home.models["good"], home.test)
    package = Package.of_project(tmp_path)
    assert package.exported
    form = package.exported / "model.onnx"
    form.write_bytes(b"a graph")
    metrics, export = (json.loads((tmp_path / f"reports/{name}.json").read_text()) for name in ("metrics", "export"))
    export["onnx"] = {"offered": True, "sha256": sha256_path(form)}
    check_parts(package, metrics, export)
    if part == "model":
        shutil.copytree(home.models["poor"], package.model, dirs_exist_ok=True)
    elif part == "decision":
        Decision(LABELS, 0.5).write(tmp_path / "models/serving")
    elif part == "form":
        form.write_bytes(b"half a")
    else:
        form.unlink()
    with pytest.raises(AttuneError, match=r"does not speak of models/.* as it is now"):
        check_parts(package, metrics, export)
