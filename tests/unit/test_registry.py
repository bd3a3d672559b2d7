"""The registry: a version per model, an alias for the one in use, and a model that answers as it did at home."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput
from transformers import AutoTokenizer

from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.params import FinetuneParams, Params, check_params
from stages.common.params.sources import Scratch
from stages.common.serving.classifier import Package
from stages.common.serving.decision import Decision
from stages.common.stage import Run
from stages.common.tracking import packaging, store
from stages.common.tracking.champions import (
    CHALLENGER,
    CHAMPION,
    PROMOTED_TAG,
    Overtaken,
    champion,
    champion_number,
    version_tags,
)
from stages.common.tracking.packaging import PACKAGE_TAG, fetch_model, fetch_seen_ids, package_digest
from stages.common.tracking.registry import (
    VERDICT_TAG,
    ChampionVerdicts,
    Registered,
    Registration,
    ensure_registered,
    version_of,
)
from stages.common.tracking.runs import MODEL_TAG, create_run, model_digest
from stages.finetune.strategies import prepare, save
from stages.ingest.scratch import build_scratch_model
from stages.register.champion import judge_beside_champion
from stages.tasks.text_classification import build_model, labels_of, probabilities

PROJECT = Path(__file__).resolve().parents[2]
WORDS = [
    f"{start}{end}" for start in ("ba", "do", "mi", "ru", "se", "ta") for end in ("lo", "ka", "ni", "pe", "sh", "tu")
]
CARD = "---\nlibrary_name: transformers\n---\n\n# reviews\n"
LONGEST = 16
NAMES = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
)


def params(name: str = "reviews", **gates: Any) -> Params:
    source = {"path": "data/inbox/a.csv", "columns": {"text": "text", "label": "label"}}
    return check_params(
        {
            "ingest": {"sources": [source], "base_model": {"scratch": {}}},
            "register": {"model_name": name, "gates": gates},
            "tracking": {"experiment_name": "trials"},
        }
    )


def make_model(folder: Path, labels: list[str], seed: int) -> Path:
    """A model whose head was not trained, but whose answers differ much from text to text."""
    base = folder / "base"
    scratch = Scratch(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=LONGEST
    )
    build_scratch_model([" ".join(WORDS)] * 3, scratch, base, seed=0)
    model = build_model(base, labels, None, seed)
    with torch.no_grad():
        model.classifier.weight.mul_(3000)
        centre = torch.from_numpy(_logits(model, base)).mean(0)
        model.classifier.bias.sub_(centre)  # every label comes up
    target = folder / "finetuned"
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.model_max_length = LONGEST
    tokenizer.save_pretrained(target)
    return target


def _logits(model: torch.nn.Module, base: Path) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model.eval()
    with torch.inference_mode():
        return model(**tokenizer(WORDS, return_tensors="pt", padding=True)).logits.numpy()


def rows(texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"text": texts, "text_pair": [None] * len(texts)}, schema={"text": pl.String, "text_pair": pl.String}
    )


def answers(model: Path, texts: list[str] = WORDS) -> list[str]:
    labels = labels_of(model)
    return [labels[at] for at in probabilities(model, rows(texts), 8).argmax(axis=1)]


@dataclass
class Home:
    """A project with a model of two labels and one of three, both registered as champions of their names."""

    root: Path
    two: Path
    three: Path
    run_two: str


def register(client: MlflowClient, name: str, model: Path) -> tuple[str, int]:
    run_id = create_run(client, params(name), {MODEL_TAG: model_digest(model)})
    Path("card.md").write_text(CARD)
    package = Package(model)
    return run_id, ensure_registered(client, passed(package, name), run_id, package, Path("card.md")).version


def passed(package: Package, name: str = "reviews") -> Registration:
    """What is reported of a model that passed its own gates."""
    return Registration(name, model_digest(package.model), package_digest(package), True, [])


def good_enough(client: MlflowClient, name: str = "reviews") -> ChampionVerdicts:
    """What is said of a model that may take the place of whoever is champion now."""
    return ChampionVerdicts(True, "better than that one", champion_number(client, name))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setenv(name, "")
            patch.delenv(name)
        patch.chdir(root)
        for path, ids in zip(packaging.SEEN, (["t1", "t2"], ["v1"]), strict=True):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame({"id": ids, "text": ["x"] * len(ids)}).write_parquet(path)
        two = make_model(root / "two", ["bad", "good"], seed=1)
        three = make_model(root / "three", ["b", "a", "c"], seed=2)
        client = store.connect()
        run_two, _ = register(client, "reviews", two)
        register(client, "triples", three)
    yield Home(root, two, three, run_two)


@pytest.fixture
def client(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The registry of the home, as a copy that a test may do anything to."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    shutil.copyfile(home.root / "mlflow.db", tmp_path / "mlflow.db")
    shutil.copytree(home.root / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return store.connect()


def aliases(client: MlflowClient, name: str = "reviews") -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def another_version(client: MlflowClient, home: Home, digest: str) -> int:
    """A further version, as a registration would leave it (logging one more real model adds nothing here)."""
    source = client.get_model_version("reviews", "1").source
    tags = {MODEL_TAG: digest, PACKAGE_TAG: package_digest(Package(home.two))}
    return int(client.create_model_version("reviews", source, run_id=home.run_two, tags=tags).version)


def again(
    client: MlflowClient, home: Home, digest: str, *, own: bool = True, beside: bool | None = True, why: str = "…"
) -> Registered:
    """Register a model as the stage does, right after it was judged, or later as `make publish` does.

    Args:
        client: of the registry.
        home: whose model of two labels is what is there to register.
        digest: what the report calls the model.
        own: whether it passed its own gates.
        beside: whether it passed those beside the champion; None: it was not judged now.
        why: what is said of it beside the champion.
    """
    package = Package(home.two)
    registration = Registration("reviews", digest, package_digest(package), own, [])
    judged = None if beside is None else ChampionVerdicts(beside, why, champion_number(client, "reviews"))
    return ensure_registered(client, registration, home.run_two, package, Path("card.md"), judged)


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_models_page_shows_params_scores_with_their_rows_and_its_version(home: Home, client: MlflowClient) -> None:
    run_id = create_run(client, params(), {MODEL_TAG: model_digest(home.two)})
    rows = Dataset("test", "d" * 32, source_type="dvc", source="{}")
    client.log_inputs(run_id, [DatasetInput(rows, [])])
    for key, value, step in (("loss", 0.5, 3), ("test_accuracy", 0.7, 0), ("test_accuracy", 0.8, 0), ("cost_ms", 2, 0)):
        client.log_metric(run_id, key, value, timestamp=int(value * 10), step=step)
    client.set_terminated(run_id)
    ended = client.get_run(run_id).info.end_time
    Path("card.md").write_text(CARD)
    ensure_registered(client, passed(Package(home.two), "shown"), run_id, Package(home.two), Path("card.md"))
    model = client.get_logged_model(str(client.get_model_version("shown", "1").source).rpartition("/")[2])
    assert {(one.key, one.value, one.dataset_name, one.dataset_digest) for one in model.metrics} == {
        ("test_accuracy", 0.8, "test", "d" * 32),
        ("cost_ms", 2, None, None),
    }
    assert model.params["finetune.learning_rate"] == "0.0001"
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "shown", "version": 1}]
    assert client.get_run(run_id).info.end_time == ended, "a training does not end again when it is registered"


def test_a_version_is_found_by_its_models_digest(client: MlflowClient, home: Home) -> None:
    assert version_of(client, "reviews", model_digest(home.two)) == 1
    assert version_of(client, "reviews", model_digest(home.three)) is None
    assert version_of(client, "nothing of the name", model_digest(home.two)) is None


def test_what_is_known_without_mlflow_is_what_mlflow_says(
    client: MlflowClient, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, thresholds = passed(Package(home.two)), passed(Package(home.two, None, home.root / "data"))

    def known() -> list[bool]:
        found = []
        for one in (two, thresholds, passed(Package(home.three)), passed(Package(home.two), "nothing of the name")):
            found.append(one.known)
            version = version_of(store.connect(), one.model_name, one.model, one.package)
            assert found[-1] is (version is not None)
        return found

    assert known() == [True, False, False, False]
    file = tmp_path / "at 100% of it" / "other.db"  # which means something else in an address
    file.parent.mkdir()
    shutil.copyfile("mlflow.db", file)
    for uri in (f"sqlite:///{file}", "sqlite:///at 100% of it/other.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert known() == [True, False, False, False]
    client = store.connect()
    client.delete_model_version("reviews", "1")
    assert known() == [False] * 4, "MLflow keeps what it said of a version that was deleted"
    again_there = client.create_model_version("reviews", "runs:/x/model", tags={MODEL_TAG: two.model})
    assert known() == [False] * 4
    client.set_model_version_tag("reviews", again_there.version, PACKAGE_TAG, thresholds.package)
    assert known() == [False, True, False, False]
    client.delete_registered_model("reviews")
    assert known() == [False] * 4
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/mlflow.db")  # and runs are kept elsewhere
    assert known() == [True, False, False, False]


def test_a_store_that_is_not_there_yet_knows_nothing_and_is_not_made_by_asking(
    client: MlflowClient, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    assert not passed(Package(home.two)).known
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "none.db").touch()
    assert not passed(Package(home.two)).known
    assert (tmp_path / "none.db").read_bytes() == b""
    (tmp_path / "none.db").write_text("this is no database")
    with pytest.raises(sqlite3.DatabaseError):
        _ = passed(Package(home.two)).known


def test_registering_twice_gives_one_version(client: MlflowClient, home: Home) -> None:
    before = client.search_logged_models([client.get_experiment_by_name("trials").experiment_id])
    for beside in (True, False, None):
        assert again(client, home, model_digest(home.two), beside=beside) == (1, CHAMPION, False)
    assert len(version_tags(client, "reviews")[1][PROMOTED_TAG].split()) == 1
    assert len(client.search_model_versions("name = 'reviews'")) == 1
    after = client.search_logged_models([client.get_experiment_by_name("trials").experiment_id])
    assert len(after) == len(before) == 2


def test_a_version_leads_back_to_its_run_and_carries_its_card(client: MlflowClient, home: Home) -> None:
    version = client.get_model_version("reviews", "1")
    assert version.run_id == home.run_two
    assert version.tags[MODEL_TAG] == model_digest(home.two)
    assert version.description == CARD


def test_a_folder_that_is_not_the_model_of_the_report_is_not_registered(client: MlflowClient, home: Home) -> None:
    with pytest.raises(AttuneError, match="make run"):
        again(client, home, "0" * 64)
    assert len(client.search_model_versions("name = 'reviews'")) == 1


def test_parts_that_are_not_those_of_the_report_are_not_registered(
    client: MlflowClient, home: Home, tmp_path: Path
) -> None:
    """Other thresholds, say, which no gate has seen; publishing twice would give two versions more."""
    Decision(["bad", "good"], 1.5).write(tmp_path / "serving")
    judged = Package(home.two, None, tmp_path / "serving")
    registration = passed(judged)
    Decision(["bad", "good"], 0.5).write(tmp_path / "serving")
    with pytest.raises(AttuneError, match="make run"):
        ensure_registered(client, registration, home.run_two, judged, home.root / "card.md")
    assert len(client.search_model_versions("name = 'reviews'")) == 1


def test_a_registration_is_read_as_it_was_written_and_its_stamp_names_the_model(tmp_path: Path) -> None:
    gate = {"gate": "beat tfidf", "value": 0.8, "limit": 0.7, "passed": True, "reason": "„gut“ …"}
    report, stamp = tmp_path / "registration.json", tmp_path / "logs" / "registered.model"
    for found in (True, False):
        registration = Registration("reviews", "0" * 64, "1" * 64, found, [gate])
        registration.write(report, stamp)
        assert Registration.read(report) == registration
    assert "„gut“" in report.read_text(encoding="utf-8")
    assert stamp.read_text() == f"reviews {'1' * 64}\n"
    Registration("reviews", "0" * 64, "2" * 64, False, [gate]).stamp(stamp)
    assert stamp.read_text() == f"reviews {'2' * 64}\n", "the same weights with other thresholds have another one"


@pytest.mark.parametrize(
    "content",
    [
        '{"model_name": "reviews", "model": "x", "promoted": true, "champion_gate": null, "alias": "a", "gates": []}',
        '{"model_name": "reviews"}',
        '{"model_name"',
        "[1]",
        "null",
        "\udcff",
    ],
)
def test_a_report_of_another_format_says_how_to_make_it_again(tmp_path: Path, content: str) -> None:
    """Such as that of an earlier Attune, which said who was champion."""
    (tmp_path / "registration.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(AttuneError, match="is not understood") as told:
        Registration.read(tmp_path / "registration.json")
    assert "make register" in told.value.fix


def test_other_thresholds_make_another_version_of_the_same_weights(
    client: MlflowClient, home: Home, tmp_path: Path
) -> None:
    Decision(["bad", "good"], 1.5).write(tmp_path / "serving")
    package = Package(home.two, None, tmp_path / "serving")
    arguments = (client, passed(package), home.run_two, package, home.root / "card.md")
    assert ensure_registered(*arguments, good_enough(client)) == (2, CHAMPION, True)
    assert ensure_registered(*arguments, good_enough(client)) == (2, CHAMPION, False)
    assert aliases(client) == {CHAMPION: 2}


# ── aliases ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_before_the_first_promotion_there_is_no_champion(client: MlflowClient) -> None:
    assert champion(client, "nothing of the name") is None
    client.create_registered_model("empty")
    assert champion(client, "empty") is None
    assert champion(client, "reviews").version == 1


@pytest.mark.parametrize(("own", "beside"), [(False, True), (True, False), (False, None)])
def test_a_model_that_failed_a_gate_of_whichever_kind_is_challenger_and_the_champion_stays(
    client: MlflowClient, home: Home, own: bool, beside: bool | None
) -> None:
    second = another_version(client, home, "second")
    assert again(client, home, "second", own=own, beside=beside) == (second, CHALLENGER, False)
    assert aliases(client) == {CHAMPION: 1, CHALLENGER: second}
    assert PROMOTED_TAG not in version_tags(client, "reviews")[second]


def test_a_promoted_challenger_is_champion_alone(client: MlflowClient, home: Home) -> None:
    second = another_version(client, home, "second")
    again(client, home, "second", beside=False)
    assert again(client, home, "second") == (second, CHAMPION, True)
    assert again(client, home, "second") == (second, CHAMPION, False), "it is no new champion a second time"
    assert aliases(client) == {CHAMPION: second}


def test_promoting_another_model_leaves_the_challenger_alone(client: MlflowClient, home: Home) -> None:
    second, third = another_version(client, home, "second"), another_version(client, home, "third")
    again(client, home, "second", own=False)
    again(client, home, "third")
    assert aliases(client) == {CHAMPION: third, CHALLENGER: second}


def test_a_champion_is_not_its_own_challenger(client: MlflowClient, home: Home) -> None:
    assert again(client, home, model_digest(home.two), own=False) == (1, CHAMPION, False)
    assert aliases(client) == {CHAMPION: 1}


def test_a_model_that_was_judged_beside_a_champion_of_the_past_is_not_promoted(
    client: MlflowClient, home: Home
) -> None:
    another_version(client, home, "second")
    third, before = another_version(client, home, "third"), good_enough(client)
    again(client, home, "third")
    registration = Registration("reviews", "second", package_digest(Package(home.two)), True, [])
    with pytest.raises(Overtaken):
        ensure_registered(client, registration, home.run_two, Package(home.two), Path("card.md"), before)
    assert aliases(client) == {CHAMPION: third}


def test_a_version_says_what_became_of_it_beside_the_champion_and_a_champion_how_it_became_one(
    client: MlflowClient, home: Home
) -> None:
    second = another_version(client, home, "second")

    def said() -> str | None:
        return client.get_model_version("reviews", str(second)).tags.get(VERDICT_TAG)

    again(client, home, "second", beside=None)
    assert said() is None, "it was not judged"
    again(client, home, "second", beside=False, why="FAILED  champion: too poor")
    assert said() == "FAILED  champion: too poor"
    again(client, home, "second", why="passed  champion: good enough now")
    again(client, home, "second", why="passed  champion: its weights are the champion's own")
    assert said() == "passed  champion: good enough now"


def test_publishing_an_old_report_takes_the_champions_place_from_nobody(client: MlflowClient, home: Home) -> None:
    second = another_version(client, home, "second")
    assert again(client, home, "second", beside=None) == (second, None, False)
    assert aliases(client) == {CHAMPION: 1}
    client.delete_registered_model_alias("reviews", CHAMPION)  # by hand: somebody wants none
    assert again(client, home, "second", beside=None) == (second, None, False)
    assert aliases(client) == {}


def test_publishing_to_a_registry_that_never_had_a_champion_makes_one(client: MlflowClient, home: Home) -> None:
    package = Package(home.two)
    arguments = (client, passed(package, "elsewhere"), home.run_two, package, home.root / "card.md")
    assert ensure_registered(*arguments) == (1, CHAMPION, True)
    assert ensure_registered(*arguments) == (1, CHAMPION, False)
    assert aliases(client, "elsewhere") == {CHAMPION: 1}


# ── the model that was registered ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "which"), [("reviews", "two"), ("triples", "three")])
def test_the_champion_answers_strings_with_the_right_labels(
    client: MlflowClient, home: Home, name: str, which: str
) -> None:
    import mlflow

    model = getattr(home, which)
    expected = answers(model)
    assert set(expected) == set(labels_of(model))
    loaded = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    found = loaded.predict(WORDS)
    assert list(found["label"]) == expected
    best = probabilities(model, rows(WORDS), 8).max(axis=1)
    np.testing.assert_allclose(found["score"], best, atol=1e-5)
    assert list(loaded.predict([WORDS[0]])["label"]) == expected[:1]


ALONE = """
import sys
from mlflow import pyfunc
answers = pyfunc.load_model(sys.argv[1]).predict(sys.argv[2:])
print("|".join(f"{label} {score:.6f}" for label, score in zip(answers["label"], answers["score"])))
"""


def with_adapter(home: Home, folder: Path, strategy: str) -> Path:
    """A model whose adapter lies beside its weights, and answers differently from text to text."""
    prefix = {"num_virtual_tokens": 4} if strategy == "prefix" else None
    params = FinetuneParams(strategy=strategy, prefix=prefix, merge_adapter=False)
    model = prepare(build_model(home.root / "two" / "base", ["bad", "good"], None, 1), params)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.requires_grad:
                weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    save(model, params, folder)
    tokenizer = AutoTokenizer.from_pretrained(home.two)
    tokenizer.model_max_length = 8
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("strategy", ["lora", "prefix"])
def test_a_model_with_an_adapter_serves_from_what_is_logged(
    client: MlflowClient, home: Home, tmp_path: Path, strategy: str
) -> None:
    """The adapter stays beside the weights, with the lines of Python that load both."""
    import mlflow

    model = with_adapter(home, tmp_path / "finetuned", strategy)
    texts = [*WORDS, " ".join(WORDS)]  # the last is longer than the model takes
    expected = probabilities(model, rows(texts), 8)
    register(client, "adapted", model)
    fetched = fetch_model("adapted", CHAMPION, tmp_path / "fetched")
    assert labels_of(fetched) == ["bad", "good"]
    np.testing.assert_allclose(probabilities(fetched, rows(texts), 8), expected, atol=1e-5)

    if strategy == "prefix":
        logged = mlflow.artifacts.download_artifacts("models:/adapted@champion", dst_path=str(tmp_path / "elsewhere"))
        served = where_attune_is_not(Path(logged), texts)
    else:
        found = mlflow.pyfunc.load_model("models:/adapted@champion").predict(texts)
        served = list(zip(found["label"], found["score"], strict=True))
    assert [label for label, _ in served] == [("bad", "good")[at] for at in expected.argmax(axis=1)]
    np.testing.assert_allclose([score for _, score in served], expected.max(axis=1), atol=1e-5)


def where_attune_is_not(logged: Path, texts: list[str]) -> list[tuple[str, float]]:
    """Ask a logged model from a process that can import nothing of the checkout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE, str(logged), *texts]
    done = subprocess.run(command, cwd=logged, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [answer.split() for answer in done.stdout.strip().split("\n")[-1].split("|")]
    return [(label, float(score)) for label, score in answers]


# ── what a model has seen ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_ids_of_training_and_validation_are_kept_and_fetched(client: MlflowClient, tmp_path: Path) -> None:
    assert fetch_seen_ids(client, champion(client, "reviews"), tmp_path) == {"t1", "t2", "v1"}


def test_a_version_without_a_list_has_seen_nothing_known(client: MlflowClient, home: Home, tmp_path: Path) -> None:
    run_id = create_run(client, params(), {})
    source = client.get_model_version("reviews", "1").source
    version = client.create_model_version("reviews", source, run_id=run_id)
    assert fetch_seen_ids(client, version, tmp_path) == set()


# ── beside the champion ─────────────────────────────────────────────────────────────────────────────────────────────


def compare(
    home: Home,
    right: float,
    seen: int = 0,
    labels: list[str] | None = None,
    digest: str = "new",
    significant: bool = False,
) -> tuple:
    """Judge a model whose test predictions are right for a share of the rows, beside the registered champion.

    The champion's own answers are the truth for three rows of four, so its accuracy is 0.75.
    """
    shutil.copyfile(PROJECT / "dvc.yaml", "dvc.yaml")
    texts = (WORDS * 2)[:60]
    names = labels or ["bad", "good"]
    by_champion = answers(home.two, texts)
    other = {"bad": "good", "good": "bad"}
    actual = [other[one] if at % 4 == 0 else one for at, one in enumerate(by_champion)]
    mine = [one if at < right * len(actual) else other[one] for at, one in enumerate(actual)]
    ids = [f"row{at}" for at in range(60)]
    empty = pl.lit(None, dtype=pl.String)
    Path("data/clean").mkdir(exist_ok=True)
    test = pl.DataFrame({"id": ids, "text": texts, "label": actual, "source": "s"})
    test.with_columns(text_pair=empty, group=empty, extra=empty).write_parquet("data/clean/test.parquet")
    shuffled = pl.DataFrame({"id": ids, "label": actual, "prediction": mine}).sample(fraction=1, shuffle=True, seed=1)
    shuffled.write_parquet("data/predictions.parquet")
    if seen:
        client = store.connect()
        Path("seen_ids.parquet").unlink(missing_ok=True)
        run_id = create_run(client, params(), {})
        pl.DataFrame({"id": ids[:seen]}).write_parquet("seen_ids.parquet")
        client.log_artifact(run_id, "seen_ids.parquet", "data")
        version = client.create_model_version(
            "reviews", client.get_model_version("reviews", "1").source, run_id=run_id, tags={MODEL_TAG: "old"}
        )
        client.set_registered_model_alias("reviews", CHAMPION, version.version)
    whole = params(champion={"metric": "accuracy", "significant": significant})
    run = Run(node=read_graph()["register"], params=whole.register_, all_params=whole, staging=Path("staging"))
    (verdict,) = judge_beside_champion(run, Package(home.two), digest, names).verdicts
    return verdict.passed, verdict.value, verdict.limit, verdict.reason


@pytest.mark.parametrize(("right", "passed"), [(0.9, True), (0.75, True), (0.7, False)])
def test_a_model_is_judged_by_the_champions_score_on_the_same_rows(
    client: MlflowClient, home: Home, right: float, passed: bool
) -> None:
    found = compare(home, right)
    assert found[:3] == (passed, pytest.approx(right), pytest.approx(0.75))
    assert "60 test rows" in found[3]


@pytest.mark.parametrize(("right", "passed"), [(1.0, True), (0.8, False), (0.75, False), (0.5, False)])
def test_where_significance_is_asked_for_a_little_better_is_not_enough(
    client: MlflowClient, home: Home, right: float, passed: bool
) -> None:
    found = compare(home, right, significant=True)
    assert found[0] is passed
    assert found[2] == 0.0
    assert (found[1] > 0.0) is passed, "the lower end of the interval decides"
    assert "McNemar's p" in found[3]
    assert "rows fixed" in found[3]


def test_rows_that_the_champion_has_seen_do_not_count(client: MlflowClient, home: Home) -> None:
    passed, value, limit, reason = compare(home, right=0.5, seen=28)
    assert "32 test rows" in reason
    assert value == pytest.approx(2 / 32)  # the right ones are the first thirty
    assert limit == pytest.approx(0.75)
    assert not passed


def test_too_few_unseen_rows_compare_nothing(client: MlflowClient, home: Home) -> None:
    passed, value, _, reason = compare(home, right=1.0, seen=31)
    assert (passed, value) == (False, None)
    assert "all but 29 of the 60" in reason


def test_a_champion_with_other_labels_cannot_be_compared(client: MlflowClient, home: Home) -> None:
    passed, value, _, reason = compare(home, right=1.0, labels=["bad", "good", "neutral"])
    assert (passed, value) == (False, None)
    assert "other labels" in reason


def test_a_model_with_the_champions_own_weights_is_not_compared_with_it(client: MlflowClient, home: Home) -> None:
    passed, value, _, reason = compare(home, right=0.1, digest=model_digest(home.two))
    assert (passed, value) == (True, None)
    assert reason == "its weights are the champion's own"


def test_a_registry_that_is_away_promotes_nothing(
    client: MlflowClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    passed, value, _, reason = compare(home, right=1.0)
    assert (passed, value) == (False, None)
    assert "make register" in reason
