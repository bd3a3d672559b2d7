"""Run one stage of the graph through DVC in a process group of its own, line by line, within its time."""

import codecs
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stages.common.restore import restore_outs

UNITS = {"s": 1, "m": 60, "h": 3600}
DEFAULT_TIMEOUT = "1h"  # of a stage whose meta in dvc.yaml says nothing
LONGEST_KEPT = 8_000  # characters of a line in a log
GRACE_SECONDS = 10.0
LINGER_SECONDS = 2.0  # that children of a stage may go on speaking once it has ended
LOOK_SECONDS = 0.05
LONGEST = 1_000_000  # characters of a line; after so many without an end, it is taken for one
ADVICE = (  # of DVC after each stage
    "To track the changes with git, run:",
    "git add ",
    "To enable auto staging, run:",
    "dvc config core.autostage true",
    "Use `dvc push` to send your updates",
)


@dataclass(frozen=True)
class Ended:
    """How a stage ended.

    Args:
        code: exit status of `dvc repro`.
        late: it was ended because its time was up.
    """

    code: int
    late: bool


class StageRunner:
    """A process with DVC imported, that runs one stage after the other; whoever makes one ends it.

    Args:
        root: the project's folder.
        python: what runs DVC and the stages, with all that they need; none: what runs this.
        environment: all variables of the process; none: those of this one.
    """

    def __init__(
        self, root: Path = Path(), python: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._root = root
        python, inherited = python or Path(sys.executable), os.environ if environment is None else environment
        path = f"{python.parent}{os.pathsep}{inherited.get('PATH', '')}"
        self._status, status = os.pipe()
        # -P: the folder of that file is no place to import from; an environment variable would reach the stage as well
        self._process = subprocess.Popen(
            [str(python), "-P", str(Path(__file__).with_name("stage_runner.py")), str(status)],
            cwd=root,
            env={**inherited, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[status],
            start_new_session=True,
        )
        os.close(status)

    @property
    def ready(self) -> bool:
        """Whether it can run a stage (another one)."""
        return self._process.poll() is None

    def run(self, stage: str, timeout: float, log: Callable[[str], None], *, force: bool = False) -> Ended:
        """Run `dvc repro` for one stage alone; end it, and this runner, when its time is up or the caller stops.

        Args:
            stage: name in dvc.yaml.
            timeout: seconds after which the stage is ended.
            log: gets each line of output as it comes.
            force: run it even if nothing changed.
        """
        # --wait-for-lock: else a stage's end is lost if another dvc process holds the lock when it comes back for it
        command = ["--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
        mend_rwlock(self._root)
        code: list[int] = []
        try:
            if self._process.stdin:
                with suppress(BrokenPipeError):  # it could not start, and says why
                    self._process.stdin.write(json.dumps(command).encode() + b"\n")
                    self._process.stdin.flush()  # and left open: that it closes is the sign to end
            for line in _lines(self._chunks(time.monotonic() + timeout, code)):
                if line.strip() and not line.strip().startswith(ADVICE):
                    log(line)
        except BaseException:
            self.end()  # a caller that was cancelled leaves nothing running
            restore_outs([stage], self._root)
            raise
        late = not code and self.ready
        if code:
            _end_children(self._process.pid)
        else:
            self.end()
        if code != [0]:
            restore_outs([stage], self._root)  # a stage that was killed could not
        return Ended(code[0] if code else self._process.wait(), late)

    def end(self) -> None:
        """End the process and what it started."""
        end_group(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        if self._status >= 0:
            os.close(self._status)
            self._status = -1

    def _chunks(self, end: float, code: list[int]) -> Iterator[bytes]:
        """Yield what the stage says as it comes, until it has ended, the process has, or its time is up.

        Args:
            end: on the monotonic clock.
            code: gets the exit status.
        """
        said = self._process.stdout.fileno() if self._process.stdout else -1
        while (now := time.monotonic()) < end:
            ready = select.select([said, self._status], [], [], 0 if code else 0.25)[0]
            if said in ready:
                if not (chunk := os.read(said, 1 << 16)):
                    return
                yield chunk
            elif code:
                return  # and all it said has been read; a child that it left may have its output open still
            elif self._status in ready:
                if not (told := os.read(self._status, 16)):
                    return
                code.append(int(told))
                end = min(end, now + LINGER_SECONDS)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield lines out of bytes; of what a progress bar has drawn over itself, the last."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decode(chunk)).split("\n")
        if len(rest) > LONGEST:
            whole, rest = [*whole, rest], ""
        for line in whole:
            yield line.rstrip().rpartition("\r")[2]
    if rest:
        yield rest.rstrip().rpartition("\r")[2]


def mend_rwlock(root: Path) -> None:
    """Remove DVC's list of who reads and writes which paths if it is none: a process ended as it wrote it, say.

    DVC would refuse to do anything until somebody deletes it.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    for pause in (0.5, 0.0):  # another dvc process may be writing it
        try:
            json.loads(path.read_text(encoding="utf-8"))
            return
        except FileNotFoundError:
            return
        except ValueError:
            time.sleep(pause)
    path.unlink(missing_ok=True)


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
    """Ask all of a process' group to stop, and stop what is left of it after a while, even if its leader is gone.

    What has left the group (`setsid`) ends as well, if it still descends from the process.
    """
    others = _children(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        end = time.monotonic() + GRACE_SECONDS
        while _alive(process) and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
    process.poll()
    for other in others:
        with suppress(psutil.Error):  # which says so where the number is another process' by now
            other.kill()


def _children(number: int) -> list[psutil.Process]:
    try:
        return psutil.Process(number).children(recursive=True)
    except psutil.Error:
        return []


def _end_children(number: int) -> None:
    """End what a stage has left behind."""
    for child in _children(number):
        with suppress(psutil.Error):
            child.kill()


def _alive(process: "subprocess.Popen[Any]") -> bool:
    process.poll()  # a leader that has ended belongs to its group until somebody asks
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
