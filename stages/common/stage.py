"""The frame every stage runs in: params checked, network shut, outs written whole or not at all, time kept."""

import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from stages.common.digests import sha256_path, sha256_value
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_graph
from stages.common.offline import shut_network
from stages.common.params import Params, load_params
from stages.common.params.base import Section

WORK = Path(".attune")  # git-ignored: staging, downloads, checkpoints
LOGS = Path("logs")  # git-ignored: seconds and memory of each stage's last run
ONLINE_STAGES = ("ingest",)

P = TypeVar("P", bound=Section)


@dataclass(frozen=True)
class Run(Generic[P]):
    """What a stage is given: its params, and the files that `dvc.yaml` lets it read and write."""

    node: Node
    params: P
    all_params: Params
    staging: Path

    @property
    def seed(self) -> int:
        """The seed of everything random in this stage."""
        return self.all_params.seed

    def input(self, path: str) -> Path:
        """Return a declared dependency.

        Raises:
            AttuneError: if it is missing on disk.
            ValueError: if `dvc.yaml` does not declare it for this stage.
        """
        if not any(Path(path) == Path(dep) or Path(dep) in Path(path).parents for dep in self.node.deps):
            raise ValueError(f"dvc.yaml does not list {path} among the deps of {self.node.name}")
        if not Path(path).exists():
            raise AttuneError(f"{path} is missing", "run the pipeline from the start: dvc repro")
        return Path(path)

    def output(self, path: str) -> Path:
        """Return where to write a declared out; it takes its place when the whole stage has succeeded.

        Raises:
            ValueError: if `dvc.yaml` does not declare it for this stage.
        """
        if path not in self.node.outs:
            raise ValueError(f"dvc.yaml does not list {path} among the outs of {self.node.name}")
        staged = self.staging / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        return staged

    def work_folder(self, name: str) -> Path:
        """Return a git-ignored folder that outlives the run (downloads, checkpoints)."""
        folder = WORK / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def inputs_digest(self) -> str:
        """Return the SHA-256 of all this stage depends on: code, data, params and seed."""
        params = {name: _plain(self.all_params, name) for name in self.node.params}
        return sha256_value([params, {dep: sha256_path(Path(dep)) for dep in self.node.deps}])


def stage(name: str) -> Callable[[Callable[[Run[P]], None]], Callable[[], None]]:
    """Turn a function over a `Run` into the program `python -m stages.NAME`.

    The program exits with 1 and a message when the user can put something right, and leaves every out of an earlier
    run as it was unless all new ones are complete.
    """

    def wrap(body: Callable[[Run[P]], None]) -> Callable[[], None]:
        def main() -> None:
            sys.exit(_execute(name, body))

        return main

    return wrap


def write_json(value: object, path: Path) -> None:
    """Write a report: two spaces, real characters, a line end at the end of the file."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _execute(name: str, body: Callable[[Run[P]], None]) -> int:
    started = time.perf_counter()
    staging = WORK / "staging" / name
    try:
        node = read_graph()[name]
        params = load_params()
        if name not in ONLINE_STAGES:
            shut_network(name, os.environ.get("MLFLOW_TRACKING_URI"))
        random.seed(params.seed)
        shutil.rmtree(staging, ignore_errors=True)  # left by a run that was killed
        staging.mkdir(parents=True)
        print(f"{name}: {node.desc}", flush=True)
        body(Run(node=node, params=params.section(name), all_params=params, staging=staging))  # type: ignore[arg-type]
        _put_in_place(node, staging)
    except AttuneError as error:
        if error.keep_outs and not _missing(node, staging):
            _put_in_place(node, staging)
        print(f"\n{name} stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{name} was interrupted; nothing it had made before was touched", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        print(f"\n{name} failed in a way it should not: please report the lines above", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _keep_time(name, time.perf_counter() - started)
    return 0


def _missing(node: Node, staging: Path) -> list[str]:
    return [out for out in node.outs if not (staging / out).exists()]


def _put_in_place(node: Node, staging: Path) -> None:
    if missing := _missing(node, staging):
        raise RuntimeError(f"{node.name} did not write {', '.join(missing)}")
    for out in node.outs:
        target = Path(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        elif (staging / out).is_dir():
            target.unlink(missing_ok=True)  # a folder cannot be moved over a file
        os.replace(staging / out, target)


def _keep_time(name: str, seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{name}: done in {seconds:.1f} s, peak memory {peak} MiB", flush=True)
    LOGS.mkdir(exist_ok=True)
    write_json({"seconds": round(seconds, 2), "peak_mib": peak, "finished": time.time()}, LOGS / f"{name}.json")


def _plain(params: Params, name: str) -> object:
    dumped = params.model_dump(mode="json", by_alias=True)
    return dumped[name]
