"""Run one stage of the graph through DVC in a process group of its own, line by line, within its time."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["success", "cached", "failed", "timeout"]

UNITS = {"s": 1, "m": 60, "h": 3600}
GRACE_SECONDS = 10
LAST_LINES = 15
SKIPPED = re.compile(r"^Stage '.*' didn't change, skipping|^Data and pipelines are up to date")


@dataclass(frozen=True)
class Outcome:
    """How a stage ended, and the last lines it said."""

    state: State
    last_lines: tuple[str, ...]


def seconds_of(duration: str | int | float) -> float:
    """Return the seconds of `90`, `30s`, `15m` or `2h`.

    Raises:
        ValueError: if it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(duration).strip())
    if not match:
        raise ValueError(f"{duration!r} is no duration; write 30s, 15m or 2h")
    return float(match[1]) * UNITS[match[2] or "s"]


def reproduce(stage: str, timeout: float, log: Callable[[str], None], root: Path | None = None) -> Outcome:
    """Run `dvc repro` for one stage alone, and end its whole process group when its time is up or the caller stops.

    Args:
        stage: name in dvc.yaml.
        timeout: seconds after which the stage is ended.
        log: gets each line of output as it comes.
        root: the project's folder; the current one by default.
    """
    # --wait-for-lock: a stage's finished work is lost if another dvc process holds the lock when it comes back for it.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    timed_out = threading.Event()

    def end_late() -> None:
        timed_out.set()
        end_group(process)

    timer = threading.Timer(timeout, end_late)
    timer.start()
    lines: list[str] = []
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            log(line.rstrip())
        code = process.wait()
    finally:
        timer.cancel()
        end_group(process)  # a caller that was cancelled leaves nothing running
    if timed_out.is_set():
        state: State = "timeout"
    elif code:
        state = "failed"
    else:
        state = "cached" if any(SKIPPED.match(line) for line in lines) else "success"
    return Outcome(state, tuple(lines[-LAST_LINES:]))


def end_group(process: "subprocess.Popen[Any]") -> None:
    """Ask the process group to stop, and stop it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
