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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

UNITS = {"s": 1, "m": 60, "h": 3600}
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
    """How the process of a stage ended.

    Args:
        code: its exit status.
        late: it was ended because its time was up.
    """

    code: int
    late: bool


class StageRunner:
    """A process with DVC imported, ready to run one stage; whoever makes one ends it.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path = Path()) -> None:
        self._root = root
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        # -P: the folder of that file is no place to import from; an environment variable would reach the stage as well
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("stage_runner.py"))],
            cwd=root,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
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
        process, end = self._process, time.monotonic() + timeout
        # --wait-for-lock: else a stage's end is lost if another dvc process holds the lock when it comes back for it
        command = ["--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
        mend_rwlock(self._root)
        try:
            if process.stdin:
                with suppress(BrokenPipeError):  # it could not start, and says why
                    process.stdin.write(json.dumps(command).encode() + b"\n")
                    process.stdin.flush()  # and left open: that it closes is the sign to end
            for line in _lines(process, end):
                if line.strip() and not line.strip().startswith(ADVICE):
                    log(line)
            late = process.poll() is None
        finally:
            self.end()  # a caller that was cancelled leaves nothing running
        return Ended(process.wait(), late)

    def end(self) -> None:
        """End the process and what it started."""
        end_group(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


def _lines(process: "subprocess.Popen[bytes]", end: float) -> Iterator[str]:
    """Yield what a process says, line by line, until it has ended or its time is up.

    A child that it leaves behind with its output open is waited for a moment, not for ever. What a progress bar has
    drawn over is left out.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest, ended = "", 0.0
    for chunk in _chunks(process.stdout):
        now = time.monotonic()
        *whole, rest = (rest + decode(chunk)).split("\n")
        if len(rest) > LONGEST:
            whole, rest = [*whole, rest], ""
        for line in whole:
            yield line.rstrip().rpartition("\r")[2]
        ended = ended or (now if process.poll() is not None else 0.0)
        if now > end or (not chunk and ended and now > ended + LINGER_SECONDS):
            break
    if rest:
        yield rest.rstrip().rpartition("\r")[2]
    while process.poll() is None and time.monotonic() < end:  # it has closed its output, and works on
        time.sleep(LOOK_SECONDS)


def _chunks(pipe: IO[bytes] | None) -> Iterator[bytes]:
    """Yield what comes through a pipe as it comes, and nothing every now and then, until its end."""
    number = pipe.fileno() if pipe else -1
    while pipe:
        if not select.select([number], [], [], 0.25)[0]:
            yield b""
        elif chunk := os.read(number, 1 << 16):
            yield chunk
        else:
            return


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
    try:
        others = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        others = []
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


def _alive(process: "subprocess.Popen[Any]") -> bool:
    process.poll()  # a leader that has ended belongs to its group until somebody asks
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
