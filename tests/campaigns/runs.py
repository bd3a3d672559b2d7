"""Accidents of a small project of real stages, each followed by a second run. Arguments: seed, times, and a folder."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stages.common.digests import sha256_path
from stages.common.pipeline.graph import read_graph
from tests.pipeline.searched import rows
from tests.projects import PROJECT, pipeline_project

SEED, TIMES, FOLDER = [*sys.argv[1:], "/tmp/attune-campaigns"][:3]
WORK = Path(FOLDER)  # what uninterrupted runs left stays there, so that a campaign can be run in parts
DISK, PLACE = WORK / "disk", WORK / "disk" / "project"  # the same one each time: MLflow keeps absolute paths
HOMES = {"DVC_SITE_CACHE_DIR": DISK / "dvc", "TMPDIR": DISK / "tmp", "PREFECT_HOME": WORK / "prefect"}
PARAMS = {name: {} for name in ("augment", "export", "tracking")} | {
    "clean": {"near_duplicates": {"enabled": False}, "label_issues": {"action": "off"}},
    "finetune": {"num_train_epochs": 1, "logging_steps": 2, "save_steps": 2, "torch_num_threads": 1},
    "evaluate": {"bootstrap": {"resamples": 100}, "baselines": ["majority", "tfidf"]},
}


class Run:
    """A run to its end, or until `kills` says so: then its whole process group is killed."""

    def __init__(self, command: str, kills: Callable[["Run"], object] = lambda run: False) -> None:
        self.seconds, log, started = 0.0, Path(tempfile.mkstemp()[1]), time.monotonic()
        self.text = partial(log.read_text, errors="replace")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
        HOMES["TMPDIR"].mkdir(exist_ok=True)
        command = f"exec make -o .venv/.installed {command} >{log} 2>&1 </dev/null"
        process = subprocess.Popen(command, shell=True, cwd=PLACE, env=inherited | HOMES, start_new_session=True)
        while process.poll() is None and self.seconds < 300 and not kills(self):
            time.sleep(0.002)
            self.seconds = time.monotonic() - started
        if process.poll() is None:
            os.killpg(process.pid, 9)
        self.code = process.wait()


def left() -> dict[str, str]:
    """Return the digests of dvc.lock and all outs, and what MLflow has registered."""
    names = ["dvc.lock", *(out for node in read_graph(PLACE).values() for out in node.outs)]
    versions = sqlite3.connect(PLACE / "mlflow.db").execute("SELECT name, version FROM model_versions").fetchall()
    return {name: sha256_path(PLACE / name) for name in names} | {"versions": str(sorted(versions))}


def campaign(overs: list[str], head: str, accident: Callable[..., tuple[Run, Run, str, str]]) -> int:
    """Print of each accident whether the second run left what an uninterrupted one leaves; return 0 if all did."""
    if not (file := WORK / "known.json").exists():  # what runs leave over nothing, and over that result with other rows
        project, known = pipeline_project(PLACE, DISK), {}
        for name in ("Makefile", "requirements.txt", "constraints.txt"):
            shutil.copy(PROJECT / name, PLACE)
        project.params(**PARAMS)
        project.commit("small")
        (PLACE / ".venv").symlink_to(sys.prefix)
        for count, over in enumerate(overs):
            project.inbox("rows.csv", "\n".join(["text,label", *rows(150 - 10 * count), ""]))
            project.copy(WORK / over)
            whole = Run("run")
            known[over] = {"seconds": whole.seconds, "used": shutil.disk_usage(DISK).used, "left": left()}
        file.write_text(json.dumps(known))
    known, short = json.loads(file.read_text()), 0
    print(f"seed {SEED}, logs in {WORK}\n no command over     identical {head}", flush=True)
    for number in range(int(TIMES)):
        rng = random.Random(f"{SEED} {number}")
        command, over = rng.choice(["run", "run", "flow"]), rng.choice(overs)
        shutil.rmtree(PLACE, ignore_errors=True)
        first, second, said, fault = accident(rng, number, command, over, known[over])
        found = {} if second.code else left()
        names = " ".join(name for name, digest in known[over]["left"].items() if found.get(name) != digest)
        short += bool(fault or names)
        print(f"{number:3} {command:7} {over:8} {f'NO: {names}'[:90] if names else 'yes':9} {said} {fault}", flush=True)
        (WORK / f"{SEED}-{number}.log").write_text(f"{first.text()}\n\n--- again, exit {second.code}\n{second.text()}")
    print(f"{TIMES} times, {short} fell short")
    return int(short > 0)
