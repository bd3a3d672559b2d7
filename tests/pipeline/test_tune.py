"""The search: what it finds, what it survives, and what it leaves behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import optuna
import psutil

from tests.pipeline.searched import NOWHERE, started
from tests.projects import Project
from tests.waiting import until

RATES = {"finetune.learning_rate": {"low": 1.0e-6, "high": 0.1, "log": True}}
Make = Callable[..., Project]


def search(project: Project, *arguments: str, uri: str = NOWHERE) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.tune", *arguments]
    return project.run(*command, MLFLOW_TRACKING_URI=uri, OMP_NUM_THREADS="1")


def asks_for(project: Project, **tune: Any) -> Project:
    project.change(lambda params: params.update(tune={"pruner": {"kind": "none"}, **tune}))
    return project


def trials_of(project: Project) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{project.root / '.attune/tune/studies.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def test_trials_are_trained_and_stand_in_mlflow_but_not_as_models_of_the_pipeline(copied: Make) -> None:
    project = asks_for(copied(), trials=1, space=RATES)
    search(project, uri="sqlite:///mlflow.db")

    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{project.root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("my-classifier").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (child,) = [run for run in runs if run is not parent]
    assert child.data.params["finetune.learning_rate"] == "1e-05"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["attune.trial_state"] == "complete" and child.info.status == "FINISHED"
    assert len(client.get_metric_history(child.info.run_id, "validation_macro_f1")) == 2
    assert "attune.model" not in child.data.tags
    assert parent.data.metrics["best_validation_macro_f1"] == child.data.metrics["best_validation_macro_f1"]
    assert not list(project.root.glob(".attune/trials/*/mlflow.db")), "trials report to the project's store"


def test_better_values_go_into_a_file_or_into_params_yaml_and_other_data_begin_another_study(pretending: Make) -> None:
    project = asks_for(pretending(), trials=2, space={"finetune.learning_rate": {"choices": [0.002]}})
    before = (project.root / "params.yaml").read_text()
    assert "-  learning_rate: 1e-05\n+  learning_rate: 0.002" in search(project).stdout
    assert (project.root / "params.yaml").read_text() == before
    tuned = (project.root / "params.tuned.yaml").read_text()
    assert tuned == before.replace("learning_rate: 1e-05", "learning_rate: 0.002")

    with (project.root / "data/tokenized/encoding.json").open("a") as file:
        file.write(" ")
    assert "params.yaml has these values now" in search(project, "--apply").stdout
    assert (project.root / "params.yaml").read_text() == tuned
    names = optuna.get_all_study_names(f"sqlite:///{project.root / '.attune/tune/studies.db'}")
    assert len(names) == 2 and len(started(project)) == 4


def test_a_search_killed_in_the_middle_loses_no_finished_trial_and_suggests_the_same(pretending: Make) -> None:
    whole, project = (asks_for(pretending(name), trials=4, space=RATES) for name in ("whole", "killed"))
    search(whole)
    (project.root / "hangs").write_text("start 3\n")
    command = [sys.executable, "-m", "flows.tune"]
    killed = subprocess.Popen(
        command, cwd=project.root, env={**os.environ, "MLFLOW_TRACKING_URI": NOWHERE}, stdout=subprocess.DEVNULL
    )
    until(lambda: len(started(project)) == 3)
    folders = {path.parents[2] for path in project.root.glob(".attune/trials/*/reports/plots/validation.csv")}
    (hanging,) = {*project.root.glob(".attune/trials/*")} - folders
    (orphan,) = [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(hanging)]
    killed.kill()
    killed.wait()
    until(lambda: not psutil.pid_exists(orphan))  # a training that nobody waits for any more ends too
    assert [trial.state.name for trial in trials_of(project)] == ["COMPLETE", "RUNNING"]

    (project.root / "hangs").unlink()
    search(project)
    finished, expected = (
        [trial.user_attrs["settings"] for trial in trials_of(folder) if trial.state.name == "COMPLETE"]
        for folder in (project, whole)
    )
    assert finished == expected, "one before, two after, the first of them with its values"
    rates = started(whole)
    assert started(project) == [*rates[:3], rates[2], *rates[3:]], "only the one that was cut short ran twice"


def test_a_hopeless_trial_is_ended(pretending: Make) -> None:
    project = asks_for(pretending(), trials=4, space={"finetune.learning_rate": {"choices": [1.0e-3, 1.0e-6]}})
    project.change(lambda params: params["tune"].update(pruner={"kind": "median", "startup_trials": 1}))
    project.change(lambda params: params.update(seed=2))  # suggests 1e-3 first, then 1e-6
    (project.root / "hangs").write_text("1e-06\n")
    done = search(project)
    assert "pruned: after epoch 1 worse than half of the others were by then" in done.stdout
    ended = [trial for trial in trials_of(project) if trial.state.name == "PRUNED"]
    assert {trial.user_attrs["settings"]["finetune.learning_rate"] for trial in ended} == {1e-6}
    assert all(trial.last_step == 1 for trial in ended)
    assert "+  learning_rate: 0.001" in done.stdout


def test_trials_that_fail_or_contradict_themselves_are_passed_over_with_the_reason(pretending: Make) -> None:
    rates = {"finetune.learning_rate": {"low": 0.6, "high": 0.9}}
    project = asks_for(pretending(), trials=3, space={"finetune.momentum": {"low": 0.0, "high": 0.9}})
    done = search(project)
    assert done.stdout.count("pruned:") == 2 and "finetune.momentum" in done.stdout
    assert len(started(project)) == 1, "nothing is trained with them"
    done = search(asks_for(project, trials=3, space=rates))
    assert done.stdout.count("the loss is not a number any more") == 2
    assert "0 trials finished, 0 pruned, 2 failed; nothing beats params.yaml as it is" in done.stdout
