"""Run stages of the graph through DVC, one at a time, in a process group of its own, each within its time."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.pipeline.dvc_files import mend
from stages.common.pipeline.dvc_status import restore_outs
from stages.common.pipeline.graph import Node
from stages.common.redact import redacted

DEFAULT_TIMEOUT = "1h"  # of a stage whose meta in dvc.yaml says nothing
LAST_LINES = 15  # shown of a stage that failed
LONGEST_KEPT = 8_000  # characters of a line in a log
GRACE_SECONDS = 10.0
ENDED = "\0ended "  # begins the line that dvc_worker.py prints after each command, with its exit status
ADVICE = ("To track the changes", "git add ", "To enable auto staging", "dvc config core", "Use `dvc ")  # of DVC

State = Literal["success", "cached", "failed", "skipped", "cancelled"]


class Outcome(NamedTuple):
    """What became of one stage of a flow.

    `success`: it ran; `cached`: nothing it depends on has changed; `skipped`: a stage before it did not end well;
    `cancelled`: ended from outside.
    """

    state: State
    seconds: float = 0.0  # wall time of the last attempt
    reason: str = ""  # why it ran or did not, or what went wrong; one line for people, without secrets
    last_lines: tuple[str, ...] = ()  # the end of its output, without secrets


class StageRunner:
    """A process with DVC imported that runs one stage after the other; whoever makes one ends it.

    `environment` holds all its variables; without it, they are those of this process.
    """

    def __init__(self, root: Path = Path(), environment: Mapping[str, str] | None = None) -> None:
        self._root, inherited = root, os.environ if environment is None else environment
        path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
        # -P: nothing is imported from the folder of that file. The environment variable for it would reach stages, too.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("dvc_worker.py"))],
            cwd=root,
            env={**inherited, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: after the last

        def read() -> None:
            for line in self._process.stdout or ():
                self._lines.put(line.decode(errors="replace"))
            self._lines.put(None)

        # Read by a thread: Prefect cannot interrupt a flow that waits in a read.
        threading.Thread(target=read, daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether it can run a stage (another one)."""
        return self._process.poll() is None

    def run(
        self, stage: str, timeout: float, file: Path, log: Callable[[str], None], *, force: bool = False
    ) -> tuple[int | None, tuple[str, ...]]:
        """Run `dvc repro` for one stage alone; end it, and this runner, after `timeout` seconds or if the caller stops.

        A file, and `log`, get each line of output as it comes, without secrets.

        Returns:
            The exit status (None: its time was up) and the last lines.
        """
        # --wait-for-lock: else a stage's result is lost if another dvc process holds the lock when the stage ends
        command = ["--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
        last: deque[str] = deque(maxlen=LAST_LINES)
        code, pipe = None, self._process.stdin
        assert pipe
        with file.open("w", encoding="utf-8") as output:

            def keep(line: str) -> None:
                line = visible(redacted(line))[:LONGEST_KEPT]  # cut last: half a secret would not be recognised
                last.append(line)
                print(line, file=output, flush=True)
                log(line)

            mend(self._root, keep)
            try:
                with suppress(BrokenPipeError):  # it could not start; its output says why
                    pipe.write(json.dumps(command).encode() + b"\n")
                    pipe.flush()  # and not closed, which would end the process
                code = self._follow(time.monotonic() + timeout, keep)
            finally:
                if code is None or not self.ready:  # too late, killed, or the caller was cancelled: all of it ends
                    end_group(self._process)
                if code != 0:
                    restore_outs([stage], self._root)  # a stage that was killed could not
        return code, tuple(last)

    def end(self) -> None:
        """End the process and what it started."""
        end_group(self._process)

    def _follow(self, end: float, log: Callable[[str], None]) -> int | None:
        """Log all lines of a command; return its exit status, or None if it passed `end`, a monotonic time."""
        while time.monotonic() < end:
            with suppress(queue.Empty):
                line = self._lines.get(timeout=0.25)
                if line is None:
                    return self._process.wait()
                if line.startswith(ENDED):  # no end of file: a child that the stage left behind may still have it open
                    return int(line.removeprefix(ENDED))
                text = line.rstrip().rpartition("\r")[2]  # the last state of a progress bar
                if text.strip() and not text.strip().startswith(ADVICE):
                    log(text)
        return None


def seconds_of(duration: str | int | float) -> float:
    """Return the seconds of `90`, `30s`, `15m` or `2h`; a ValueError if it is none of these."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(duration).strip())
    if not match:
        raise ValueError(f"{duration!r} is no duration; write 30s, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def read_meta(node: Node) -> tuple[int, float, float]:
    """Return a stage's retries, and the seconds of its delay and timeout; an AttuneError if its `meta` is none."""
    try:
        delay, timeout = node.meta.get("retry_delay", 0), node.meta.get("timeout", DEFAULT_TIMEOUT)
        return int(node.meta.get("retries", 0)), seconds_of(delay), seconds_of(timeout)
    except (TypeError, ValueError) as error:
        fix = "write it like meta: {retries: 2, retry_delay: 30s, timeout: 2h}"
        raise AttuneError(f"dvc.yaml: meta of {node.name}: {error}", fix) from None


def end_group(process: "subprocess.Popen[Any]") -> None:
    """Ask a process group to stop; after a while, kill what is left of it (see also `end_with_parent`)."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
