"""A trial: the finetune stage in a folder of its own, with other params or other rows, watched epoch by epoch.

The folder is named after all that the training depends on, so a trial that is finished is never run again, and one that
was cut short goes on from its checkpoint. Trials run one after the other: two trainings on one machine slow each other.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.running.stage_process import end_group
from flows.search.epochs import Epoch
from stages.common.digests import sha256_path, sha256_value
from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.params import Params, check_params
from stages.common.stage import WORK
from stages.common.tracking.live import LIVE, TRIAL_RUN
from stages.common.tracking.nested import absolute_uri

TRIALS = WORK / "trials"
CURVE = Path("reports/plots/validation.csv")  # the stage's last out: with it, all are in place
MODEL = Path("models/finetuned")
LAST_LINES = 15
OUTPUT = Path("logs/output.txt")
LOOK_SECONDS = 0.2
STAGE = """
import runpy
from stages.common.ranks import end_with_parent
end_with_parent()  # also after a kill -9: nobody would wait for this training
runpy.run_module("stages.finetune", run_name="__main__", alter_sys=True)
"""


class TrialFailed(AttuneError):
    """The training stopped by itself."""


@dataclass(frozen=True)
class Trial:
    """A training and its folder."""

    params: Params
    digest: str  # of all that the training depends on
    folder: Path

    @property
    def curve(self) -> Path:
        """The validation curve, once the trial is finished."""
        return self.folder / CURVE

    def finished(self, keep_model: bool) -> bool:
        """Whether it has run to its end (and its weights are still there, if they are wanted)."""
        return self.curve.exists() and (not keep_model or (self.folder / MODEL).exists())


def prepare_trial(data: Mapping[str, Any], inputs: Mapping[str, Path] | None = None) -> Trial:
    """Check a trial's params and lay out its folder.

    Args:
        data: the whole of its params.
        inputs: files to take in the place of dependencies of finetune, by their path in dvc.yaml.

    Raises:
        AttuneError: if the params contradict each other, or an earlier stage has not run yet.
    """
    params = check_params(data)
    node = read_graph()["finetune"]
    deps = {dep: (inputs or {}).get(dep, Path(dep)).absolute() for dep in node.deps}
    dumped = params.model_dump(mode="json", by_alias=True)
    digest = sha256_value([{name: dumped[name] for name in node.params}, digests(deps)])
    folder = TRIALS / digest[:16]
    for name in ("logs", "reports"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(dumped, file)
    shutil.copyfile("dvc.yaml", folder / "dvc.yaml")
    for dep, path in deps.items():
        link = folder / dep
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return Trial(params, digest, folder)


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file or folder that a training reads.

    Raises:
        AttuneError: if one of them is missing.
    """
    if missing := [name for name, path in files.items() if not path.exists()]:
        raise AttuneError(f"{missing[0]} is missing", "make it: dvc repro tokenize")
    return {name: sha256_path(path) for name, path in files.items()}


def run_trial(
    trial: Trial, run_id: str = "", *, keep_model: bool = False, enough: Callable[[Epoch], bool] = lambda _: False
) -> list[Epoch]:
    """Train, unless the trial is finished; return its epochs.

    Whether it is ended early depends on the scores alone, not on how soon they are seen.

    Args:
        trial: a prepared one.
        run_id: of the MLflow run that the training reports to; empty: to none.
        keep_model: leave the weights in the folder.
        enough: is called after each epoch; at the first True the training is ended.

    Raises:
        TrialFailed: with its last lines, if the training stopped with an error.
    """
    epochs: list[Epoch] = []

    def ended(all_so_far: list[Epoch]) -> bool:
        for epoch in all_so_far[len(epochs) :]:
            epochs.append(epoch)
            if enough(epoch):
                return True
        return False

    if not trial.finished(keep_model):
        (trial.folder / LIVE).unlink(missing_ok=True)
        process = _start(trial, run_id)
        try:
            while process.poll() is None:
                if ended(_live(trial)):
                    return epochs
                time.sleep(LOOK_SECONDS)
        finally:
            end_group(process)
        if process.returncode:
            raise TrialFailed(_last_lines(trial, process.returncode))
        forget_checkpoints(trial)
        if not keep_model:
            shutil.rmtree(trial.folder / MODEL, ignore_errors=True)
    with trial.curve.open(newline="", encoding="utf-8") as file:
        ended([Epoch.of(row) for row in csv.DictReader(file)])
    return epochs


def _start(trial: Trial, run_id: str) -> "subprocess.Popen[bytes]":
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    with (trial.folder / OUTPUT).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", STAGE],
            cwd=trial.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *paths]),
                "PYTHONSAFEPATH": "1",  # the code is the project's; the folder's `stages` are there to be hashed
                "PYTHONUNBUFFERED": "1",
                "MLFLOW_TRACKING_URI": absolute_uri(),
                TRIAL_RUN: run_id,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _live(trial: Trial) -> list[Epoch]:
    """Return the epochs that a running training has reported; a half-written line waits for the next look."""
    path = trial.folder / LIVE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    points = [json.loads(line) for line in lines if line.endswith("\n")]
    return [Epoch.of(point) for point in points if "validation_loss" in point]


def _last_lines(trial: Trial, code: int) -> str:
    lines = (trial.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line.strip()][-LAST_LINES:]
    if code < 0:
        lines.append(f"ended by {signal.Signals(-code).name}" + (": out of memory?" if code == -signal.SIGKILL else ""))
    return "\n".join(lines)


def forget_checkpoints(trial: Trial) -> None:
    """Remove the checkpoints of a trial that will not go on."""
    shutil.rmtree(trial.folder / WORK, ignore_errors=True)
