"""Run one stage of the graph through DVC in a process group of its own, line by line, within its time."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNITS = {"s": 1, "m": 60, "h": 3600}
GRACE_SECONDS = 10.0
LOOK_SECONDS = 0.05
LAST_LINES = 15
LINE = 8_000  # characters kept of one
ADVICE = (  # of DVC after each stage
    "To track the changes with git, run:",
    "git add ",
    "To enable auto staging, run:",
    "dvc config core.autostage true",
    "Use `dvc push` to send your updates",
)


@dataclass(frozen=True)
class Ended:
    """How the process of a stage ended.

    Args:
        code: its exit status.
        late: it was ended because its time was up.
        last_lines: what it said last.
    """

    code: int
    late: bool
    last_lines: tuple[str, ...]


class StageRunner:
    """A process with DVC imported, ready to run one stage; use as a context, or it stays.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path = Path()) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        # -P: the folder of that file is no place to import from; an environment variable would reach the stage as well
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("stage_runner.py"))],
            cwd=root,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run(self, stage: str, timeout: float, log: Callable[[str], None], *, force: bool = False) -> Ended:
        """Run `dvc repro` for one stage alone, and end its process group when its time is up or the caller stops.

        Args:
            stage: name in dvc.yaml.
            timeout: seconds after which the stage is ended.
            log: gets each line of output as it comes.
            force: run it even if nothing changed.
        """
        process, late = self._process, threading.Event()

        def end_late() -> None:
            late.set()
            end_group(process)

        # --wait-for-lock: else a stage's end is lost if another dvc process holds the lock when it comes back for it
        command = ["--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
        timer = threading.Timer(timeout, end_late)
        timer.start()
        lines: list[str] = []
        try:
            if process.stdin:
                with suppress(BrokenPipeError):  # it could not start, and says why
                    process.stdin.write(json.dumps(command) + "\n")
                    process.stdin.flush()  # and left open: that it closes is the sign to end
            for line in process.stdout or ():
                if line.strip().startswith(ADVICE) or not line.strip():
                    continue
                lines.append(line.rstrip()[:LINE])
                del lines[:-LAST_LINES]
                log(lines[-1])
            code = process.wait()
        finally:
            timer.cancel()
            self.end()  # a caller that was cancelled leaves nothing running
        return Ended(code, late.is_set(), tuple(lines))

    def end(self) -> None:
        """End the process and what it started."""
        end_group(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


def seconds_of(duration: str | int | float) -> float:
    """Return the seconds of `90`, `30s`, `15m` or `2h`.

    Raises:
        ValueError: if it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(duration).strip())
    if not match:
        raise ValueError(f"{duration!r} is no duration; write 30s, 15m or 2h")
    return float(match[1]) * UNITS[match[2] or "s"]


def end_group(process: "subprocess.Popen[Any]") -> None:
    """Ask all of a process' group to stop, and stop what is left of it after a while, even if its leader is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        end = time.monotonic() + GRACE_SECONDS
        while _alive(process) and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
    process.poll()


def _alive(process: "subprocess.Popen[Any]") -> bool:
    process.poll()  # a leader that has ended belongs to its group until somebody asks
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
