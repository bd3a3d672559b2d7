"""The frame every stage runs in: params checked, network shut, outs written whole or not at all, time kept."""

import errno
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from stages.common.digests import sha256_path, sha256_value
from stages.common.display import display, visible
from stages.common.distributed import first_to_fail, lost_partner, rank
from stages.common.errors import AttuneError
from stages.common.locks import in_turn, locked
from stages.common.offline import shut_network
from stages.common.params import Params, load_params
from stages.common.params.section import Section
from stages.common.pipeline.dvc_files import DVC_LOCK, keep_lock
from stages.common.pipeline.dvc_status import restore_outs
from stages.common.pipeline.graph import Node, read_graph

WORK = Path(".attune")  # git-ignored: staging, downloads, checkpoints
LOGS = Path("logs")  # git-ignored: seconds and memory of each stage's last run
ONLINE_STAGES = ("ingest",)
STARTED_BY_DVC = "DVC_STAGE"  # a variable that DVC sets
STOPPED, STOPPED_FOR_NOW = "stopped", "stopped for now"  # what a stage says; after the first, nobody need try again
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EPIPE)

P = TypeVar("P", bound=Section)


@dataclass(frozen=True)
class Run(Generic[P]):
    """What a stage is given: its params, and the files that `dvc.yaml` lets it read and write."""

    node: Node
    params: P
    all_params: Params
    staging: Path
    leftovers: list[Path] = field(default_factory=list)  # work folders to remove once the outs are in place
    leads: bool = True  # False in the processes beside the first, which help it to train and write no outs

    @property
    def seed(self) -> int:
        """The seed of everything random in this stage."""
        return self.all_params.seed

    def input(self, path: str) -> Path:
        """Return a declared dependency; an AttuneError if it is missing on disk, a ValueError if it is not declared."""
        if not any(Path(path) == Path(dep) or Path(dep) in Path(path).parents for dep in self.node.deps):
            raise ValueError(f"dvc.yaml does not list {path} among the deps of {self.node.name}")
        if not Path(path).exists():
            raise AttuneError(f"{path} is missing", "run the pipeline from the start: make run")
        return Path(path)

    def output(self, path: str) -> Path:
        """Return where to write an out, which takes its place once the stage succeeds; a ValueError if it is none."""
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
        dumped = self.all_params.model_dump(mode="json", by_alias=True)
        params = {name: dumped[name] for name in self.node.params}
        return sha256_value([params, {dep: sha256_path(Path(dep)) for dep in self.node.deps}])


def stage(name: str) -> Callable[[Callable[[Run[P]], None]], Callable[[], None]]:
    """Turn a function over a `Run` into the program `python -m stages.NAME`.

    The program exits with 1 and a message when the user can put something right, and leaves every out of an earlier
    run as it was unless all new ones are complete.
    """

    return lambda body: lambda: sys.exit(_execute(name, body))


def write_json(value: object, path: Path) -> None:
    """Write a report: two spaces, real characters, a line end at the end of the file."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _execute(name: str, body: Callable[[Run[P]], None]) -> int:
    try:
        node = read_graph()[name]
        params = load_params()
        if name not in ONLINE_STAGES:
            shut_network(name, os.environ.get("MLFLOW_TRACKING_URI"))
        random.seed(params.seed)
        run = Run(node=node, params=params.section(name), all_params=params, staging=WORK / "staging" / name)
        if rank() == 0:
            _lead(run, body)  # type: ignore[arg-type]
        else:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
                body(replace(run, leads=False))  # type: ignore[arg-type]
    except (Exception, KeyboardInterrupt) as error:
        code, message = _describe(name, error)
        if STARTED_BY_DVC in os.environ and rank() == 0:
            restore_outs([name])  # which DVC has removed
        if first_to_fail():
            print(message, file=sys.stderr, flush=True)
        return code
    return 0


def _lead(run: Run[P], body: Callable[[Run[P]], None]) -> None:
    """Run a stage alone in this checkout, and put its outs in place."""
    started, name, staging = time.perf_counter(), run.node.name, run.staging
    message = f"{name}: waits for another run that downloads into the same folder"  # worktrees share it
    downloads = in_turn(WORK / "downloads" / ".lock", lambda: print(message, flush=True))
    with alone(name), downloads if name in ONLINE_STAGES else nullcontext():
        shutil.rmtree(staging, ignore_errors=True)  # left by a run that was killed
        staging.mkdir(parents=True)
        print(f"{name}: {run.node.desc}", flush=True)
        keep_lock()  # with what the stage before has added
        try:
            body(run)
        except AttuneError as error:
            if error.keep_outs:
                _put_in_place(run.node, staging)
            raise
        else:
            _put_in_place(run.node, staging)
            _keep_time(name, time.perf_counter() - started)
            _wait_for_dvc(name)
            for folder in run.leftovers:  # last: after a kill before this point they are needed again
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _wait_for_dvc(name: str) -> None:
    """Wait until no other DVC process holds the lock of the checkout.

    DVC releases it while a stage runs. If it cannot take it back within three seconds, it discards the stage's result,
    and the next `dvc repro` would do all of the work again.
    """
    if STARTED_BY_DVC in os.environ and DVC_LOCK.exists():
        message = f"{name}: waits for another dvc command that is at work in this checkout"
        with in_turn(DVC_LOCK, lambda: print(message, flush=True)):
            pass


def _describe(name: str, error: BaseException) -> tuple[int, str]:
    """Return the exit status and the message of an error."""
    if isinstance(error, AttuneError):
        message = "\n".join(map(visible, str(error).split("\n")))  # it may quote names from other people's data
        return 1, f"\n{name} {STOPPED_FOR_NOW if error.passing else STOPPED}: {message}"
    if isinstance(error, KeyboardInterrupt):
        return 130, f"\n{name} was interrupted; {str(error) or 'nothing it had made before was touched'}"
    if reason := of_the_disk(error):
        return 1, f"\n{name} stopped: {reason}\n  → nothing made before was touched; mend that, and run again"
    if lost_partner(error):
        return 1, f"\n{name} stopped: another process of this training has ended; what is said of that one is the cause"
    lines = "".join(traceback.format_exception(error))
    return 1, f"{lines}\n{name} failed in a way it should not: please report the lines above"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the lock of a stage, or of whatever else runs once at a time; it is released however the process ends.

    An AttuneError if another process runs it in this checkout.
    """
    WORK.mkdir(exist_ok=True)
    with locked(WORK / f"{name}.lock") as free:
        if not free:
            raise AttuneError(f"{name} is running in this checkout already", "wait for it, or use another checkout")
        yield


def of_the_disk(error: BaseException) -> str | None:
    """Return what is wrong with the disk, if that is what went wrong."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"\(os error (\d+)\)", str(error))):  # how polars reports it
        number = int(match[1])
    if number not in OF_THE_DISK:
        return None
    path = getattr(error, "filename", None)
    return f"{os.strerror(number)}{f' ({display(str(path), 160, None)})' if path else ''}"


def _put_in_place(node: Node, staging: Path) -> None:
    """Replace all outs, or none.

    First the new outs are moved beside their targets, which is slow or may fail: data/ and models/ can be file systems
    of their own. Then come renames alone, which are undone if one of them fails.
    """
    if missing := [out for out in node.outs if not (staging / out).exists()]:
        raise RuntimeError(f"{node.name} did not write {', '.join(missing)}")
    moves = [(Path(out), _beside(Path(out), "new"), _beside(Path(out), "old")) for out in node.outs]
    replaced: list[tuple[Path, Path]] = []
    try:
        for target, new, old in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(new)
            _remove(old)
            shutil.move(staging / target, new)
        for target, new, old in moves:
            if target.exists():
                os.replace(target, old)
                replaced.append((target, old))
            os.replace(new, target)
    except BaseException:
        for target, old in reversed(replaced):
            _remove(target)
            os.replace(old, target)
        raise
    finally:
        for _, new, old in moves:
            _remove(new)
            _remove(old)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _keep_time(name: str, seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{name}: done in {seconds:.1f} s, peak memory {peak} MiB", flush=True)
    try:
        LOGS.mkdir(exist_ok=True)
        write_json({"seconds": round(seconds, 2), "peak_mib": peak, "finished": time.time()}, LOGS / f"{name}.json")
    except OSError as error:
        print(f"  warning: the time was not kept: {error}", file=sys.stderr)
