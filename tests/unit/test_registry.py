"""The registry: a version per model, an alias for the one in use, and what a version carries."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

from stages.common.digests import sha256_path
from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.strategies import prepare, save
from stages.serving.backends import Package
from stages.tracking import registry, store
from stages.tracking.package import PACKAGE_TAG, SEEN_FILES, fetch_package, fetch_seen_ids, package_digest
from stages.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    PROMOTED_TAG,
    ChampionComparison,
    Registration,
    RegistryState,
    champion,
    champion_number,
    ensure_registered,
    version_of,
    version_tags,
)
from stages.tracking.runs import MODEL_TAG, create_run
from tests.models import FILLER, build_model, put_tokenizer
from tests.projects import Project, params_of
from tests.unit.mlflow_apart import apart
from tests.unit.small_decisions import probabilities
from tests.unit.small_records import text_rows

CARD = "---\nlibrary_name: transformers\n---\n\n# reviews\n"


def make_package(folder: Path, content: str, decision: str = "") -> Package:
    """Parts of a model that nobody asks anything."""
    put = Project(folder).file
    serving = put("serving/file", decision).parent if decision else None
    return Package(put("model/file", content).parent, None, serving)


def passed(package: Package, name: str = "reviews") -> Registration:
    """What is reported of a model that passed its own gates."""
    return Registration(name, sha256_path(package.model), package_digest(package), True, [])


def register(client: MlflowClient, name: str, package: Package) -> str:
    params = params_of(register={"model_name": name}, tracking={"experiment_name": "trials"})
    run_id = create_run(client, params, {MODEL_TAG: sha256_path(package.model)})
    Path("card.md").write_text(CARD)
    ensure_registered(client, passed(package, name), run_id, package, Path("card.md"))
    return run_id


class Home(NamedTuple):
    """A project with a model that is registered as champion."""

    root: Path
    package: Package
    run: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        apart(patch)
        patch.chdir(root)
        for path, ids in zip(SEEN_FILES, (["t1", "t2"], ["v1"]), strict=True):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame({"id": ids}).write_parquet(path)
        package = make_package(root, "weights")
        return Home(root, package, register(store.connect(), "reviews", package))


@pytest.fixture
def client(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The registry of the home, as a copy that a test may do anything to."""
    apart(monkeypatch)
    shutil.copyfile(home.root / "mlflow.db", tmp_path / "mlflow.db")
    shutil.copytree(home.root / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    Path("card.md").write_text(CARD)
    return store.connect()


def aliases(client: MlflowClient, name: str = "reviews") -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def another_version(client: MlflowClient, home: Home, package: str) -> int:
    """A further version, as a registration would leave it (logging one more model adds nothing here)."""
    source = client.get_model_version("reviews", "1").source
    return int(client.create_model_version("reviews", source, run_id=home.run, tags={PACKAGE_TAG: package}).version)


def again(
    client: MlflowClient, home: Home, package: str = "", *, own: bool = True, beside: bool | None = True
) -> RegistryState:
    """Register a model as the stage does, right after it was compared, or later as `make publish` does.

    Args:
        client: of the registry.
        home: whose model is what is there to register.
        package: what the report calls the model; none: what it is.
        own: whether it passed its own gates.
        beside: whether it passed the comparison with the champion; None: it was not made now.
    """
    digest = package or package_digest(home.package)
    registration = Registration("reviews", sha256_path(home.package.model), digest, own, [])
    comparison = None if beside is None else ChampionComparison(beside, "…", champion_number(client, "reviews"))
    return ensure_registered(client, registration, home.run, home.package, Path("card.md"), comparison)


def test_what_is_known_without_mlflow_is_what_mlflow_says(
    client: MlflowClient, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thresholds = passed(make_package(tmp_path / "thresholds", "weights", "thresholds"))
    registrations = [passed(home.package), thresholds, passed(home.package, "nothing of the name")]

    def known() -> list[bool]:
        result = [registration.known for registration in registrations]
        versions = [version_of(store.connect(), registration) for registration in registrations]
        assert result == [version is not None for version in versions]
        return result

    assert known() == [True, False, False]
    file = tmp_path / "at 100% of it" / "other.db"  # which means something else in an address
    file.parent.mkdir()
    shutil.copyfile("mlflow.db", file)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    assert known() == [True, False, False]
    client = store.connect()
    client.delete_model_version("reviews", "1")
    assert known() == [False] * 3, "MLflow keeps what it said of a version that was deleted"
    client.create_model_version("reviews", "runs:/x/model", tags={PACKAGE_TAG: thresholds.package})
    assert known() == [False, True, False]
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/mlflow.db")  # and runs are kept elsewhere
    assert known() == [True, False, False]


def test_a_store_that_is_not_there_yet_knows_nothing_and_is_not_made_by_asking(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    assert not passed(home.package).known
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "none.db").touch()
    assert not passed(home.package).known


def test_a_champion_whose_files_were_deleted_is_registered_again_and_is_champion(
    client: MlflowClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("UPDATE model_versions SET storage_location = ?", ((Path.cwd() / "mlruns/gone").as_uri(),))
    monkeypatch.setattr(registry, "log_and_register", lambda *_: another_version(client, home, "again"))
    assert not passed(home.package).known and version_of(client, passed(home.package)) is None
    assert again(client, home) == (2, CHAMPION, True)


def test_a_store_that_was_moved_with_its_folder_finds_its_files_again(
    home: Home, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart(monkeypatch)
    first, second = tmp_path / "a folder #1", tmp_path / "ein größerer"
    shutil.copytree(home.root / "data", first / "data")
    shutil.copyfile(empty_store, first / "mlflow.db")
    monkeypatch.chdir(first)
    run_id = register(store.connect(), "reviews", home.package)
    shutil.move(shutil.copytree(first, tmp_path / "copy"), second)  # which no connection of this process holds open
    shutil.rmtree(first)
    monkeypatch.chdir(second)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow has set it
    assert passed(home.package).known
    client = store.connect()
    assert fetch_seen_ids(client, champion(client, "reviews"), tmp_path) == {"t1", "t2", "v1"}
    assert sha256_path(fetch_package("reviews", CHAMPION, tmp_path).model) == sha256_path(home.package.model)
    assert client.get_run(run_id).info.artifact_uri == f"{second.as_uri()}/mlruns/{run_id}/artifacts"
    again = register(client, "more", make_package(tmp_path / "other", "other weights"))
    assert list(second.glob(f"mlruns/{again}/artifacts/data/*")) and not first.exists()


def test_registering_twice_gives_one_version(client: MlflowClient, home: Home) -> None:
    for beside in (True, False, None):
        assert again(client, home, beside=beside) == (1, CHAMPION, False)
    (version,) = client.search_model_versions("name = 'reviews'")
    assert (version.run_id, version.description) == (home.run, CARD)
    assert version.tags[MODEL_TAG] == sha256_path(home.package.model)
    assert len(client.search_logged_models([client.get_experiment_by_name("trials").experiment_id])) == 1


def test_parts_that_are_not_those_of_the_report_are_not_registered(
    client: MlflowClient, home: Home, tmp_path: Path
) -> None:
    package = make_package(tmp_path / "mine", "weights", "thresholds")
    registration = passed(package)
    make_package(tmp_path / "mine", "weights", "others, which no gate has seen")
    with pytest.raises(AttuneError, match="make run"):
        ensure_registered(client, registration, home.run, package, Path("card.md"))
    assert len(client.search_model_versions("name = 'reviews'")) == 1


def test_the_ids_of_training_and_validation_are_kept_and_fetched(
    client: MlflowClient, home: Home, tmp_path: Path
) -> None:
    assert fetch_seen_ids(client, champion(client, "reviews"), tmp_path) == {"t1", "t2", "v1"}


@pytest.mark.parametrize(("own", "beside"), [(False, True), (True, False), (False, None)])
def test_a_model_that_failed_a_gate_of_whichever_kind_is_challenger_and_the_champion_stays(
    client: MlflowClient, home: Home, own: bool, beside: bool | None
) -> None:
    second = another_version(client, home, "second")
    assert again(client, home, "second", own=own, beside=beside) == (second, CHALLENGER, False)
    assert aliases(client) == {CHAMPION: 1, CHALLENGER: second}
    assert PROMOTED_TAG not in version_tags(client, "reviews")[second]
    assert again(client, home, own=False) == (1, CHAMPION, False), "a champion is not its own challenger"


def test_a_promoted_challenger_is_champion_alone_and_another_challenger_stays(client: MlflowClient, home: Home) -> None:
    second, third = another_version(client, home, "second"), another_version(client, home, "third")
    again(client, home, "second", beside=False)
    assert again(client, home, "third") == (third, CHAMPION, True)
    assert aliases(client) == {CHAMPION: third, CHALLENGER: second}
    assert again(client, home, "second") == (second, CHAMPION, True)
    assert again(client, home, "second") == (second, CHAMPION, False), "it is no new champion a second time"
    assert aliases(client) == {CHAMPION: second}


def test_publishing_an_old_report_takes_the_champions_place_from_nobody(client: MlflowClient, home: Home) -> None:
    second = another_version(client, home, "second")
    assert again(client, home, "second", beside=None) == (second, None, False)
    assert aliases(client) == {CHAMPION: 1}
    client.delete_registered_model_alias("reviews", CHAMPION)  # by hand: somebody wants none
    assert again(client, home, "second", beside=None) == (second, None, False)
    assert aliases(client) == {}


def test_publishing_to_a_registry_that_never_had_a_champion_makes_one(client: MlflowClient, home: Home) -> None:
    assert champion(client, "elsewhere") is None
    arguments = (client, passed(home.package, "elsewhere"), home.run, home.package, Path("card.md"))
    assert ensure_registered(*arguments) == (1, CHAMPION, True)
    assert ensure_registered(*arguments) == (1, CHAMPION, False)
    assert aliases(client, "elsewhere") == {CHAMPION: 1}


def test_a_model_with_an_adapter_comes_back_as_it_was_logged(client: MlflowClient, base: Path, tmp_path: Path) -> None:
    """The adapter stays beside the weights; a prefix takes some positions."""
    how = FinetuneParams(strategy="prefix", prefix={"num_virtual_tokens": 4}, merge_adapter=False)
    folder = tmp_path / "finetuned"
    save(prepare(build_model(base, ["bad", "good"], None, 1), how), how, folder)
    put_tokenizer(base, folder, 8)
    rows = text_rows([*FILLER, " ".join(FILLER)])
    register(client, "adapted", Package(folder))
    fetched = fetch_package("adapted", CHAMPION, tmp_path / "fetched").model
    np.testing.assert_array_equal(probabilities(fetched, rows, 8), probabilities(folder, rows, 8))
