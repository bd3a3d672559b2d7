"""A trial: the finetune stage in a folder of its own, with other params or other rows, watched epoch by epoch.

The folder is named after all that the training depends on, so a trial that is finished is never run again, and one that
was cut short goes on from its checkpoint. Trials run one after the other: two trainings on one machine slow each other.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.exceptions import TrialPruned
from ruamel.yaml import YAML

from flows.execution.stage_process import LAST_LINES, end_group
from stages.common.digests import sha256_path, sha256_value
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import WORK
from stages.tracking.live import LIVE, TRIAL_RUN, NestedRuns
from stages.tracking.runs import POSITIONS, VALIDATION, read_curve
from stages.tracking.store import tracking_uri

TRIALS = WORK / "trials"
CURVE = Path("reports/plots/validation.csv")  # the stage's last out: with it, all are in place
MODEL = Path("models/finetuned")
OUTPUT = Path("logs/output.txt")
POLL_SECONDS = 0.2
STAGE = """
import runpy
from stages.common.distributed import end_with_parent
end_with_parent()  # also after a kill -9: nobody would wait for this training
runpy.run_module("stages.finetune", run_name="__main__", alter_sys=True)
"""

Epoch = dict[str, float]  # step, epoch, and the validation scores after it


class TrialFailed(AttuneError):
    """The training stopped by itself."""


@dataclass(frozen=True)
class Trial:
    """A training and its folder."""

    params: Params
    digest: str  # of all that the training depends on
    curve: Path  # the validation scores after each epoch: the file is there once the trial is finished
    folder: Path


def prepare_trial(data: Mapping[str, Any], inputs: Mapping[str, Path] | None = None) -> Trial:
    """Check the params of a trial and lay out its folder, with `inputs` in the place of dependencies of finetune.

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
    return Trial(params, digest, folder / CURVE, folder)


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file or folder that a training reads; an AttuneError if one is missing."""
    if missing := [name for name, path in files.items() if not path.exists()]:
        raise AttuneError(f"{missing[0]} is missing", "make it: make run")
    return {name: sha256_path(path) for name, path in files.items()}


def train_trial(
    trial: Trial, runs: NestedRuns, name: str, watch: Callable[[Epoch], None] = lambda _: None
) -> tuple[list[Epoch], Epoch]:
    """Train, unless the trial is finished; return its epochs, and the one that the stage keeps.

    `watch` is called after each epoch, and ends the training if it raises TrialPruned.

    Raises:
        TrialFailed: with its last lines, if the training stopped with an error.
    """
    run_id = runs.begin(trial.params, trial.digest[:16], name)
    epochs: list[Epoch] = []
    try:
        with closing(_epochs(trial, run_id, name)) as running:
            for epoch in running:
                epochs.append(epoch)
                watch(epoch)
    except (TrialPruned, TrialFailed) as error:
        shutil.rmtree(trial.folder / WORK, ignore_errors=True)  # checkpoints of a training that will not go on
        runs.end(run_id, "failed" if isinstance(error, TrialFailed) else "pruned", str(error), trial.curve, {})
        raise
    metric = trial.params.metric_for_best_model
    extreme = max if trial.params.spec.score(metric).greater_is_better else min
    best = extreme(epochs, key=lambda epoch: epoch[metric])  # the first of several
    runs.end(run_id, "complete", "", trial.curve, {f"best_validation_{name}": best[name] for name in names_of(best)})
    return epochs, best


def names_of(epoch: Epoch) -> list[str]:
    """Return the names of the scores of an epoch, in order: the loss, and those of the task."""
    return [name for name in epoch if name not in POSITIONS]


def _epochs(trial: Trial, run_id: str, name: str) -> Generator[Epoch]:
    """Yield the epochs of a trial as they end; closing this ends the training."""
    reported = 0
    if not trial.curve.exists():
        live = trial.folder / LIVE
        live.write_text("", encoding="utf-8")
        process = _start(trial, run_id)
        try:
            while process.poll() is None:
                lines = live.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()  # half a line waits
                points = [point for point in map(json.loads, lines) if f"{VALIDATION}loss" in point]
                for point in points[reported:]:
                    reported += 1
                    yield _epoch(point)
                time.sleep(POLL_SECONDS)
        finally:
            end_group(process)
        if code := process.returncode:
            output = (trial.folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
            lines = [line for line in output.splitlines() if line.strip()][-LAST_LINES:]
            if code < 0:
                memory = ": out of memory?" if code == -signal.SIGKILL else ""
                lines.append(f"ended by {signal.Signals(-code).name}{memory}")
            raise TrialFailed("\n".join([f"the training of {name} failed; its last lines:", *lines]))
        for unused in (MODEL, WORK):
            shutil.rmtree(trial.folder / unused, ignore_errors=True)
    yield from map(_epoch, read_curve(trial.curve)[reported:])


def _start(trial: Trial, run_id: str) -> "subprocess.Popen[bytes]":
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    own = {
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *paths]),
        "PYTHONSAFEPATH": "1",  # the code is the project's; the folder's `stages` are there to be hashed
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_TRACKING_URI": tracking_uri(),
        TRIAL_RUN: run_id,
    }
    with (trial.folder / OUTPUT).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", STAGE],
            cwd=trial.folder,
            env={**os.environ, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _epoch(point: Epoch) -> Epoch:
    return {name.removeprefix(VALIDATION): value for name, value in point.items()}
