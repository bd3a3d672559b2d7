"""A training killed with SIGKILL goes on with the next `dvc repro`, and ends with the bytes of one that was not."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.pipeline.training_project import ALONE, ChatTraining, make_training

KILLED_AT = {  # and the step of the checkpoint that is left
    "step 3.": 2,  # in the middle of an epoch (steps are counted from where a run begins)
    "open checkpoint-6/trainer_state.json": 5,  # while the first checkpoint of the second epoch is being written
    "open checkpoint-8/complete": 6,  # when nothing but the mark that it is complete is missing
    "shutil.rmtree checkpoint-6": 8,  # while an older checkpoint is being removed
}


def test_a_training_killed_again_and_again_ends_as_an_uninterrupted_one_and_never_takes_a_stale_checkpoint(
    tmp_path: Path,
) -> None:
    project = make_training(tmp_path / "project")
    project.knobs(save_steps=2, num_train_epochs=1)
    assert project.train(KILL_AT="step 3.").returncode == -signal.SIGKILL
    (stale,) = project.checkpoints()
    project.knobs(save_steps=2, dropout=0.1)
    resumed_at = []
    for moment in (*KILLED_AT, None):
        done = project.train(**({"KILL_AT": moment} if moment else {}))
        assert done.returncode == (-signal.SIGKILL if moment else 0), f"{moment}\n{done.stdout}\n{done.stderr}"
        resumed_at += [int(step) for step in re.findall(r"going on from step (\d+)", done.stdout)]
    assert resumed_at == list(KILLED_AT.values())
    assert project.checkpoints() == [stale]  # the latest of the others stays for a while: params may be set back

    live = project.root / "logs" / "finetune.jsonl"
    outs, lines = project.outs(), live.read_text()
    whole = project.train(*ALONE, "--force")
    assert whole.returncode == 0, whole.stderr
    assert "going on" not in whole.stdout
    assert (project.outs(), live.read_text()) == (outs, lines)
    assert len([line for line in lines.splitlines() if "validation_loss" in json.loads(line)]) == 3


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_language_model_that_is_killed_ends_as_an_uninterrupted_one(tmp_path: Path, strategy: str) -> None:
    project = make_training(tmp_path / "project", 40, ChatTraining)
    project.knobs(save_steps=2, num_train_epochs=2, strategy=strategy)
    assert project.train(KILL_AT="step 3.").returncode == -signal.SIGKILL
    done = project.train()
    assert done.returncode == 0, done.stderr
    assert "going on from step 2" in done.stdout and "memory: about 0.0 GiB" in done.stdout
    outs = project.outs()
    assert project.train(*ALONE, "--force").returncode == 0
    assert project.outs() == outs
