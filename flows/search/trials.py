"""A trial: the finetune stage in a folder of its own, with other params or other rows, watched epoch by epoch.

The folder is named after all that the training depends on, so a trial that is finished is never run again, and one that
was cut short goes on from its checkpoint. Trials run one after the other: two trainings on one machine slow each other.
"""

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from stages.common.stage import WORK, alone
from stages.common.tracking.live import LIVE, TRIAL_RUN
from stages.common.tracking.nested import absolute_uri

TRIALS = WORK / "trials"
CURVE = Path("reports/plots/validation.csv")  # the stage's last out: with it, all are in place
MODEL = Path("models/finetuned")
LAST_LINES = 15
OUTPUT, PROCESS = Path("logs/output.txt"), Path("process")
LOOK_SECONDS = 0.2


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
        enough: is asked after each epoch; at the first True the training is ended.

    Raises:
        TrialFailed: with its last lines, if the training stopped with an error.
    """
    seen: list[Epoch] = []

    def ended(new: Iterator[Epoch]) -> bool:
        for epoch in new:
            if not seen or epoch.step > seen[-1].step:
                seen.append(epoch)
                if enough(epoch):
                    return True
        return False

    if not trial.finished(keep_model):
        (trial.folder / LIVE).unlink(missing_ok=True)
        process = _start(trial, run_id)
        try:
            while process.poll() is None:
                if ended(_live(trial)):
                    return seen
                time.sleep(LOOK_SECONDS)
        finally:
            end_group(process)
            _tidy(trial, keep_model, finished=process.returncode == 0)
        if process.returncode:
            raise TrialFailed(_last_words(trial, process.returncode))
    ended(_read_curve(trial))
    return seen


@contextmanager
def trials_alone() -> Iterator[None]:
    """Hold the right to run trials in this checkout, without any that an earlier program left running.

    Raises:
        AttuneError: if another program runs trials here.
    """
    with alone("trials"):
        _end_orphans()
        yield


def _end_orphans() -> None:
    """End trainings whose starter was killed before it could: their stage's lock is still held."""
    for lock in sorted(TRIALS.glob(f"*/{WORK}/finetune.lock")):
        number = lock.parent.parent / PROCESS
        while _is_held(lock) and number.exists():
            try:
                os.killpg(int(number.read_text(encoding="utf-8")), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                break
            time.sleep(LOOK_SECONDS)


def _start(trial: Trial, run_id: str) -> "subprocess.Popen[bytes]":
    paths = [str(Path.cwd()), *(str(Path(path).absolute()) for path in _python_path())]
    with (trial.folder / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.finetune"],
            cwd=trial.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONSAFEPATH": "1",  # the code is the project's; the folder's `stages` are there to be hashed
                "PYTHONUNBUFFERED": "1",
                "MLFLOW_TRACKING_URI": absolute_uri(),
                TRIAL_RUN: run_id,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (trial.folder / PROCESS).write_text(str(process.pid), encoding="utf-8")
    return process


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _live(trial: Trial) -> Iterator[Epoch]:
    """Yield the epochs that a running training has told of; a line that is being written waits for the next look."""
    path = trial.folder / LIVE
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n") and "validation_loss" in (point := json.loads(line)):
                yield Epoch.of(point)


def _read_curve(trial: Trial) -> Iterator[Epoch]:
    with trial.curve.open(newline="", encoding="utf-8") as file:
        yield from map(Epoch.of, csv.DictReader(file))


def _last_words(trial: Trial, code: int) -> str:
    lines = (trial.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line.strip()][-LAST_LINES:]
    if code < 0:
        lines.append(f"ended by {signal.Signals(-code).name}" + (": out of memory?" if code == -signal.SIGKILL else ""))
    return "\n".join(lines)


def _tidy(trial: Trial, keep_model: bool, *, finished: bool) -> None:
    """Remove the weights of a finished trial; checkpoints stay for one that was cut short."""
    if finished:
        shutil.rmtree(trial.folder / WORK, ignore_errors=True)
        if not keep_model:
            shutil.rmtree(trial.folder / MODEL, ignore_errors=True)


def forget_checkpoints(trial: Trial) -> None:
    """Remove the checkpoints of a trial that will not go on."""
    shutil.rmtree(trial.folder / WORK, ignore_errors=True)


def _is_held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
