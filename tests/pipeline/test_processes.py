"""Several training processes: the result of one with as much larger batches, whatever happens to them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import polars.testing
import psutil
import pytest
from safetensors.numpy import load

from stages.tracking.runs import TRAININGS
from tests.pipeline.training_project import OUTS, ChatTraining, Training, make_training
from tests.waiting import until

WEIGHTS, TRAINING, VALIDATION = OUTS
STAGE = ("-m", "stages.finetune")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """33 rows in batches of 16: in the last batch, one of two processes has no row."""
    made = make_training(tmp_path_factory.mktemp("processes") / "project", rows=33)
    set_params(made)
    return made


def set_params(project: Training, **knobs: object) -> None:
    few = {"num_train_epochs": 2, "logging_steps": 1, "save_steps": 2}
    project.knobs(**few | {"per_device_train_batch_size": 8, "dropout": 0.0} | knobs)


@pytest.fixture(scope="module")
def two(project: Training) -> dict[str, bytes]:
    done = project.train("torchrun", "--nproc-per-node", "2", *STAGE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finetune: ") == 2  # what it does, and that it is done: one process speaks
    assert project.checkpoints() == []
    return project.outs()


def test_two_processes_give_the_curve_of_one_with_twice_the_batch(project: Training, two: dict[str, bytes]) -> None:
    set_params(project, per_device_train_batch_size=16)
    assert project.train(sys.executable, *STAGE).returncode == 0
    one = project.outs()
    for name in (TRAINING, VALIDATION):
        pl.testing.assert_frame_equal(*(pl.read_csv(outs[name]) for outs in (one, two)), abs_tol=1e-4)
    weights, others = load(one[WEIGHTS]), load(two[WEIGHTS])
    assert all(abs(weights[name] - others[name]).max() < 1e-3 for name in weights)
    notes = (project.root / TRAININGS).glob("*.json")
    assert {json.loads(note.read_text())["attune.processes"] for note in notes} == {"1", "2"}


def test_two_processes_give_a_language_model_the_curve_of_one(tmp_path: Path) -> None:
    """Rows have other numbers of learnt tokens: a mean of means would be another loss."""
    project = make_training(tmp_path / "project", 25, ChatTraining)
    curves = []
    for size, command in ((8, ("torchrun", "--nproc-per-node", "2", *STAGE)), (16, (sys.executable, *STAGE))):
        set_params(project, per_device_train_batch_size=size)
        done = project.train(*command)
        assert done.returncode == 0, done.stderr
        curves.append([pl.read_csv(project.outs()[name]) for name in (TRAINING, VALIDATION)])
    for two, one in zip(*curves, strict=True):
        pl.testing.assert_frame_equal(two, one, abs_tol=1e-4)


def test_one_of_two_processes_that_dies_ends_both_and_the_next_run_goes_on(
    project: Training, two: dict[str, bytes]
) -> None:
    set_params(project, nproc_per_node=2)
    done = project.train(KILL_AT="step 5.", KILL_RANK="1")
    assert done.returncode != 0
    assert "process 1 of 2 was killed by signal 9" in done.stderr
    assert "finetune.nproc_per_node" in done.stderr
    resumed = project.train()
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step 4" in resumed.stdout
    assert project.outs() == two


def test_what_goes_wrong_in_all_of_them_is_told_once(project: Training) -> None:
    set_params(project, nproc_per_node=2)
    done = project.train(sys.executable, *STAGE, SPOIL_AT="2")
    assert done.returncode == 1
    assert done.stderr.count("the training has diverged") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends the others, and only Linux does")
def test_nothing_survives_the_process_that_started_the_others(project: Training) -> None:
    set_params(project, nproc_per_node=2, num_train_epochs=1000)
    lines = project.root / "logs" / "finetune.jsonl"
    lines.unlink(missing_ok=True)
    own = {"PYTHONPATH": "", "OMP_NUM_THREADS": "1", "ATTUNE_TRIAL_RUN": ""}
    started = subprocess.Popen(
        [sys.executable, *STAGE], cwd=project.root, env=os.environ | own, stdout=subprocess.DEVNULL
    )
    until(lambda: lines.exists() and lines.stat().st_size > 0)
    assert len(processes_in(project.root)) == 3
    started.send_signal(signal.SIGKILL)
    started.wait(30)
    until(lambda: not processes_in(project.root))


def processes_in(folder: Path) -> list[psutil.Process]:
    processes, cwd = psutil.process_iter(["cwd", "status"]), str(folder.resolve())
    return [process for process in processes if process.info["cwd"] == cwd and process.info["status"] != "zombie"]
