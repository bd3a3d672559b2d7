"""Trials: their folders and names, what is read of them, and scores over folds."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML
from small_project import ROOT, Project

from flows.search import trials
from flows.search.epochs import Epoch, best_epoch
from flows.search.fold_rows import split_fold
from flows.search.fold_scores import summarize
from flows.search.trials import Trial, TrialFailed, prepare_trial, run_trial
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.stage import Run
from stages.common.tracking.nested import absolute_uri


@pytest.fixture
def data(project: Project) -> Any:
    """The params of a project that holds all that finetune reads."""
    for name in ("train.parquet", "validation.parquet", "encoding.json"):
        project.file(f"data/tokenized/{name}", name)
    project.file("models/base/config.json", "{}")
    for code in ("finetune", "tasks"):
        project.file(f"stages/{code}/__init__.py", "")
    return YAML().load((project.root / "params.yaml").read_text())


def test_a_trial_is_named_after_its_inputs_as_the_stage_itself_computes_them(data: Any) -> None:
    from stages.common.graph import read_graph

    trial = prepare_trial(data)
    run = Run(read_graph()["finetune"], trial.params.finetune, trial.params, Path("staging"))
    assert trial.digest == run.inputs_digest()
    assert trial.folder == Path(".attune/trials") / trial.digest[:16]
    other = prepare_trial({**data, "finetune": {"learning_rate": 1e-3}})
    assert other.digest != trial.digest
    assert prepare_trial({**data, "tracking": {"experiment_name": "other"}}).digest == trial.digest


def test_the_folder_holds_what_the_stage_reads_and_checked_params(data: Any, project: Project) -> None:
    given = project.file("elsewhere/train.parquet", "other rows")
    plain, trial = prepare_trial(data), prepare_trial(data, {"data/tokenized/train.parquet": given})
    assert trial.digest != plain.digest
    assert (trial.folder / "data/tokenized/train.parquet").read_text() == "other rows"
    assert (trial.folder / "data/tokenized/validation.parquet").read_text() == "validation.parquet"
    assert check_params(YAML().load((trial.folder / "params.yaml").read_text())) == trial.params
    assert (trial.folder / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    prepare_trial(data)  # once more, over what is there


def test_what_is_missing_is_asked_for_and_wrong_params_make_no_folder(data: Any, project: Project) -> None:
    (project.root / "data/tokenized/encoding.json").unlink()
    with pytest.raises(AttuneError, match=r"(?s)encoding.json is missing.*dvc repro tokenize"):
        prepare_trial(data)
    with pytest.raises(AttuneError, match="momentum"):
        prepare_trial({**data, "finetune": {"momentum": 0.5}})
    assert not Path(".attune").exists()


def curve(trial: Trial, scores: list[float]) -> None:
    trial.curve.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{at * 5},{at}.0,{1 - score},{score},{score}" for at, score in enumerate(scores, 1)]
    header = "step,epoch,validation_loss,validation_accuracy,validation_macro_f1"
    trial.curve.write_text("\n".join([header, *rows]) + "\n")


def test_a_finished_trial_is_read_and_not_run(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("started")

    trial = prepare_trial(data)
    curve(trial, [0.5, 0.8, 0.7])
    monkeypatch.setattr(trials.subprocess, "Popen", refuse)
    epochs = run_trial(trial)
    assert [epoch.accuracy for epoch in epochs] == [0.5, 0.8, 0.7]
    assert [epoch.step for epoch in run_trial(trial, enough=lambda epoch: epoch.accuracy > 0.6)] == [5, 10]
    with pytest.raises(RuntimeError, match="started"):
        run_trial(trial, keep_model=True)  # its weights are gone, and they are wanted


def test_a_training_that_stops_with_an_error_tells_its_last_lines(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("stages/__init__.py").touch()
    trial = prepare_trial(data)
    with pytest.raises(TrialFailed, match=r"No module named 'stages\.common'"):
        run_trial(trial)  # the project's own stages/finetune is empty, and it is the project's code that runs


def test_lines_of_the_training_curve_and_half_lines_are_passed_over(data: Any) -> None:
    trial = prepare_trial(data)
    point = '{"step": 5, "epoch": 1.0, "validation_loss": 0.4, "validation_accuracy": 0.5, "validation_macro_f1": 0.6}'
    (trial.folder / trials.LIVE).write_text('{"step": 5, "epoch": 1.0, "loss": 0.3}\n' + point + "\n" + point[:30])
    assert trials._live(trial) == [Epoch(5, 1.0, loss=0.4, accuracy=0.5, macro_f1=0.6)]


@pytest.mark.parametrize(("metric", "kept"), [("loss", 2), ("accuracy", 1), ("macro_f1", 2)])
def test_the_epoch_kept_is_the_first_of_the_best_by_the_stages_metric(data: Any, metric: str, kept: int) -> None:
    params = check_params({**data, "finetune": {"metric_for_best_model": metric}})
    epochs = [Epoch(5, 1, 0.9, 0.6, 0.5), Epoch(10, 2, 0.9, 0.8, 0.4), Epoch(15, 3, 0.7, 0.8, 0.4)]
    assert best_epoch(epochs, params).epoch == kept


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("https://user:pass@host/x", "https://user:pass@host/x"),
        ("mlruns", "{here}/mlruns"),
        ("", "sqlite:///{here}/mlflow.db"),
    ],
)
def test_a_store_is_the_same_one_in_the_folder_of_a_trial(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert absolute_uri() == meant.format(here=os.path.realpath(tmp_path))


def test_children_of_a_held_out_row_are_nowhere() -> None:
    rows = pl.DataFrame({"id": ["a", "b", "a'", "b'", "c"], "length": [1, 2, 3, 4, 5]})
    placed = pl.DataFrame(
        {"id": ["c", "b'", "a'", "b", "a"], "fold": [1, 1, 0, 1, 0], "original": [True, False, False, True, True]}
    )
    train, held_out = split_fold(rows, placed, 0)
    assert train.to_dict(as_series=False) == {"id": ["b", "b'", "c"], "length": [2, 4, 5]}
    assert held_out.to_dict(as_series=False) == {"id": ["a"], "length": [1]}


def test_the_interval_over_folds_allows_for_what_they_share() -> None:
    found = summarize([0.8, 0.9, 1.0], ratio=0.5, confidence=0.95)
    assert (found["mean"], found["sd"]) == (0.9, 0.1)
    half = 4.302653 * (1 / 3 + 0.5) ** 0.5 * 0.1  # t of 2 degrees of freedom; Nadeau & Bengio's factor
    assert (found["low"], found["high"]) == pytest.approx((0.9 - half, 0.9 + half), abs=1e-6)
    assert summarize([0.8, 0.9, 1.0], ratio=0.5, confidence=0.95, most=1.0)["high"] == 1.0


def test_params_without_a_search_are_complete(project: Project) -> None:
    from stages.common.params import load_params

    project.params(**{name: {} for name in ("clean", "augment", "finetune", "export", "evaluate", "tracking")})
    assert isinstance(load_params(complete=True), Params)
