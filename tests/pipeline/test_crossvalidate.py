"""Cross-validation: each row held out once, nothing trained twice, and what comes of it."""

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl
import pytest

from flows import crossvalidate as crossvalidation
from flows.crossvalidate import read_rows
from stages.common.errors import AttuneError
from stages.common.params import check_params, read_yaml
from tests.pipeline.searched import NOWHERE, pretending, started
from tests.projects import Project

FOLDS = 3


@pytest.fixture(scope="module")
def validated(tokenized_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose folds have been run once, with the store in its folder."""
    project = pretending(tokenized_project.copy(tmp_path_factory.mktemp("folds") / "project"))
    done = crossvalidate(project, uri="sqlite:///mlflow.db")
    assert done.stdout.count("(trained)") == FOLDS
    return project


def crossvalidate(project: Project, check: bool = True, uri: str = NOWHERE) -> Any:
    command = [sys.executable, "-m", "flows.crossvalidate"]
    return project.run(*command, check=check, MLFLOW_TRACKING_URI=uri, OMP_NUM_THREADS="1")


def test_each_row_outside_test_is_held_out_once_with_its_group_and_without_its_children(validated: Project) -> None:
    validation = pl.read_parquet(validated.root / "data/clean/validation.parquet")
    augmented = pl.read_parquet(validated.root / "data/augmented/train.parquet")
    rows = pl.concat([validation, augmented], how="diagonal")
    group, parent = dict(rows.select("id", "group").iter_rows()), dict(rows.select("id", "parent").iter_rows())
    columns = pl.read_parquet_schema(validated.root / "data/tokenized/train.parquet").names()
    folders = [*validated.root.glob(".attune/trials/*/data/tokenized")]
    folds = [[pl.read_parquet(folder / f"{name}.parquet") for name in ("train", "validation")] for folder in folders]
    assert len(folds) == FOLDS
    held = [row for _, held_out in folds for row in held_out["id"]]
    assert sorted(held) == sorted(row for row in parent if parent[row] is None)
    for train, held_out in folds:
        assert train.columns == held_out.columns == columns
        assert not {group[row] for row in train["id"]} & {group[row] for row in held_out["id"]}
        parents = {parent[row] for row in train["id"] if parent[row]}
        assert parents, "children are trained on where their parent is"
        assert parents <= set(train["id"])


def test_mean_and_spread_stand_in_the_report_and_in_mlflow(validated: Project) -> None:
    import mlflow

    report = json.loads((validated.root / "reports/crossvalidation.json").read_text())
    summary = report["kept_epoch"]["accuracy"]
    assert summary["mean"] == pytest.approx(mean(fold["kept_epoch"]["accuracy"] for fold in report["folds"]), abs=1e-6)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{validated.root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("my-classifier").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    metrics = parent.data.metrics
    assert (metrics["mean_accuracy"], metrics["sd_accuracy"]) == (summary["mean"], summary["sd"])
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name for run in children} == {f"fold {number}" for number in range(FOLDS)}
    assert all(run.info.status == "FINISHED" for run in runs)


def test_only_other_params_train_again_and_a_fold_that_fails_is_named_with_its_last_lines(validated: Project) -> None:
    report = (validated.root / "reports/crossvalidation.json").read_bytes()
    before = (validated.root / "params.yaml").read_text()
    assert crossvalidate(validated).stdout.count("(finished before)") == FOLDS == len(started(validated))
    assert (validated.root / "reports/crossvalidation.json").read_bytes() == report
    validated.change(lambda params: params["finetune"].update(learning_rate=0.7))
    done = crossvalidate(validated, check=False)
    (validated.root / "params.yaml").write_text(before)
    assert done.returncode == 1
    assert "fold 0 failed" in done.stderr and "lower finetune.learning_rate" in done.stderr
    assert started(validated)[FOLDS:] == [0.7], "the others are not begun"
    assert (validated.root / "reports/crossvalidation.json").read_bytes() == report


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"clean": {}}, "the rows have no folds"),
        ({"clean": {"split": {"folds": 4}}}, "data/ was made with other params"),
        ({"finetune": {"train_on": "train_and_validation", "early_stopping_patience": None}}, "would train on"),
    ],
)
def test_folds_that_are_not_there_are_asked_for(
    validated: Project, sections: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(validated.root)
    with pytest.raises(AttuneError, match=message):
        read_rows(check_params({**read_yaml(Path("params.yaml")), **sections}))


def test_the_final_model_learns_from_all_rows_outside_test(
    validated: Project, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(validated.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    before = Path("params.yaml").read_text()
    assert crossvalidation.main(["--final"]) == 0
    assert "now: make run" in capsys.readouterr().out
    after = Path("params.yaml").read_text()
    Path("params.yaml").write_text(before)
    added = [line.strip() for line in after.splitlines() if line not in before.splitlines()]
    assert sorted(added) == ["early_stopping_patience: null", "train_on: train_and_validation"]
