"""All stages of a worktree run in an environment of their own; those of the head once more from nothing."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from flows.execution.stage_process import StageRunner, read_meta
from flows.model_versions.versions import find_records
from flows.repository.worktree_files import Log, check_out, furnish
from flows.reviewing.findings import Machine, Rebuild
from flows.reviewing.revision import Revision
from stages.common.environment import environment_of
from stages.common.errors import AttuneError
from stages.common.git import OF_A_CALLER
from stages.common.pipeline.graph import Node
from stages.common.pipeline.stage import WORK
from stages.tracking.provenance import LOCK
from stages.tracking.runs import training_tags


def run_pipeline(
    folder: Path, graph: Mapping[str, Node], logs: Path, log: Log, variables: Mapping[str, str] | None = None
) -> Rebuild:
    """Bring all stages of a worktree up to date, up to the first that fails; the project's MLflow store is not touched.

    The folder `logs` gets all output, in STAGE.log; its name stands before each line of progress.

    Raises:
        AttuneError: if a stage's timeout in dvc.yaml is none.
    """
    timeouts = {name: read_meta(node)[2] for name, node in graph.items()}
    logs.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    outside = ("MLFLOW_", "_MLFLOW_", *OF_A_CALLER)  # variables that would lead out of the worktree
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    store = folder / WORK / "review.db"  # thrown away with the worktree
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{store}", "PYTHONPATH": str(folder)}
    runner = StageRunner(folder, environment | dict(variables or {}))
    try:
        for name in graph:
            log(f"{logs.name}: {name} …")
            started, path = time.monotonic(), logs / f"{name}.log"
            code, last_lines = runner.run(name, timeouts[name], path, lambda _: None)
            seconds[name] = time.monotonic() - started
            if code != 0:
                how = f"took longer than {timeouts[name]:,.0f} s" if code is None else f"ended with status {code}"
                log(f"{logs.name}: {name} {how}; all its output: {path}")
                return Rebuild("failed", name, how, seconds=seconds, last_lines=last_lines)
            log(f"{logs.name}: {name} {seconds[name]:.0f} s")
    finally:
        runner.end()
    return Rebuild("unrecorded", seconds=seconds)  # nothing is compared yet


def rebuild(home: Path, folder: Path, head: Revision, logs: Path, log: Log, threads: str) -> Rebuild:
    """Run every stage of the head in a worktree that holds its commit and nothing that a stage has made.

    It has a DVC cache of its own, and as many threads as the recorded training, where these are known. What came from
    the network is the checkout's `.attune/downloads`: ingest compares it with the hashes in params.

    Raises:
        AttuneError: if the commit holds no project, or an out of dvc.yaml lies outside of it.
    """
    from dvc.config import Config

    furnish(home, folder, lambda _: None)  # its warnings were shown for the head already
    (folder / LOCK).unlink(missing_ok=True)
    check_out(folder, lambda _: None)  # people's own data, from the shared cache
    with Config(str(folder / ".dvc"), validate=False).edit("local", validate=False) as local:
        local.setdefault("cache", {})["dir"] = str(folder / ".dvc" / "cache")
    for path in (folder / out for node in head.graph.values() for out in node.outs):
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            raise AttuneError(f"dvc.yaml: the out {path} lies outside of the project", "keep outs in the project")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    variables = {}
    pinned = head.params and head.params.finetune.torch_num_threads
    if threads.isdigit() and not pinned:  # another number gives other bytes
        variables["OMP_NUM_THREADS"] = threads
        if int(threads) > len(os.sched_getaffinity(0)):  # those that wait are not to take the time of those that work
            variables["OMP_WAIT_POLICY"] = "passive"
    return run_pipeline(folder, head.graph, logs, log, variables)


def recorded_machine(revision: Revision, store: str | None, root: Path) -> Machine:
    """Return what a revision's model was trained on, by the notes of the checkout `root`, else its run in MLflow."""
    noted = environment_of(training_tags(revision.model, root))
    if noted or not store or not revision.model:
        return noted
    try:
        run, _ = find_records(store, revision.model)
    except Exception:  # of whatever kind: then nothing is known, and the review says so
        return {}
    return environment_of(run.data.tags) if run else {}
