"""The head's pipeline run again from nothing: no `dvc.lock`, no reports, and a DVC cache of its own that is empty."""

import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.reviewing.conflicts import LOCK
from flows.reviewing.pipeline_run import LAST_LINES, Log, Ran, run_pipeline
from flows.reviewing.revision import Revision
from flows.running.stage_process import end_group
from flows.scheduled.worktree_files import check_out, furnish
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_lock
from stages.common.redact import redacted
from stages.common.shown import visible
from stages.common.stage import WORK

TITLE, INSTALL = "rebuild", "install"
INSTALL_SECONDS = 3600
OWN_CACHE = Path(".dvc") / "cache"
MEMOS = "translations"  # what a stage has made once, for all runs: a rebuild makes it again


@dataclass(frozen=True)
class Rebuilt:
    """What was made from nothing.

    Args:
        revision: the worktree with it, as far as the stages came.
        ran: how they ended.
        notes: what a reader should know, a line each.
    """

    revision: Revision
    ran: Ran
    notes: tuple[str, ...] = ()


def rebuild(
    home: Path, folder: Path, head: Revision, logs: Path, log: Log, *, threads: str = "", venv: bool = False
) -> Rebuilt:
    """Run every stage of the head in a worktree that holds its commit and nothing that a stage has made.

    What came from the network is the checkout's `.attune/downloads`: ingest holds it against the hashes in params.

    Args:
        home: the checkout.
        folder: a worktree of it at the head's commit.
        head: what the commit recorded.
        logs: folder for all that the stages say.
        log: gets a line as a stage begins, and one as it ends.
        threads: that the recorded training had; nothing: not known.
        venv: have the head's own `make install` make a virtual environment, and run the stages in it.

    Raises:
        AttuneError: if the commit holds no project, or an out of dvc.yaml lies outside of it.
    """
    furnish(home, folder, lambda _: None)  # what there is to say was said of the head
    _empty(folder, head.graph)
    variables, notes = _threads(head, threads)
    python, ran = folder / ".venv" / "bin" / "python" if venv else None, Ran()
    if venv:
        ran = _install(folder, logs, log)
    if not ran.failed:
        ran = run_pipeline(folder, head.graph, logs, TITLE, log, python=python, variables=variables)
    made = replace(head, folder=folder, lock=read_lock(folder), results="rebuilt", stale={})
    return Rebuilt(made, ran, notes)


def _empty(folder: Path, graph: Mapping[str, Node]) -> None:
    """Remove what stages make, and give the worktree a DVC cache of its own; people's own data stay."""
    from dvc.config import Config

    (folder / LOCK).unlink(missing_ok=True)
    check_out(folder, lambda _: None, made=False)  # people's own data, from the shared cache
    with Config(str(folder / ".dvc"), validate=False).edit("local", validate=False) as local:
        local.setdefault("cache", {})["dir"] = str(folder / OWN_CACHE)
    (folder / WORK / MEMOS).unlink(missing_ok=True)
    top = Path(os.path.realpath(folder))
    for path in (folder / out for node in graph.values() for out in node.outs):
        if not Path(os.path.realpath(path.parent)).is_relative_to(top):
            raise AttuneError(f"dvc.yaml: the out {path} lies outside of the project", "keep outs in the project")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _threads(head: Revision, recorded: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return variables for as many threads as the recorded training had, and a note if that is not what would be taken.

    Another number gives other bytes.
    """
    finetune: Any = head.data.get("finetune") or {}
    pinned = isinstance(finetune, Mapping) and finetune.get("torch_num_threads") is not None
    cores = len(os.sched_getaffinity(0))
    here = os.environ.get("OMP_NUM_THREADS") or str(cores)
    if pinned or not recorded.isdigit() or recorded == here:
        return {}, ()
    # Threads that wait for each other on too few cores are not to take the time of those that work.
    more = {"OMP_WAIT_POLICY": "passive"} if int(recorded) > cores else {}
    note = f"rebuilt with {recorded} threads, as recorded; this machine would take {here}"
    return {"OMP_NUM_THREADS": recorded, **more}, (note,)


def _install(folder: Path, logs: Path, log: Log) -> Ran:
    """Have the head's Makefile install its pinned dependencies into the worktree's `.venv`."""
    log(f"{TITLE}: {INSTALL} …")
    logs.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=LAST_LINES)
    started = time.monotonic()
    path = logs / f"{INSTALL}.log"
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")}
    with path.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            ["make", INSTALL, f"PYTHON={sys.executable}"],
            cwd=folder,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            end_group(process)
    text = "\n".join(visible(line) for line in redacted(path.read_text(errors="replace")).split("\n"))
    path.write_text(text, encoding="utf-8")
    last.extend(line for line in text.split("\n") if line.strip())
    seconds = time.monotonic() - started
    if code:
        how = f"took longer than {INSTALL_SECONDS} s" if code < 0 else f"ended with status {code}"
        log(f"{TITLE}: {INSTALL} {how}; all it said: {path}")
        return Ran({}, INSTALL, how, tuple(last))
    log(f"{TITLE}: {INSTALL} {seconds:.0f} s")
    return Ran()
