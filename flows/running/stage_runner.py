"""A process that waits for one `dvc` command on its standard input, and ends with all it started when that is closed.

It is started ahead of time, since DVC takes half a second to import; and as the other end of the pipe closes however
the flow ends, nothing goes on running after a flow that was killed. Run as a file, by flows/running/stage_process.py.
"""

import importlib
import json
import os
import signal
import sys
import threading
from typing import TextIO


def main() -> int:
    """Run the command; return its exit status, 0 if none came."""
    control = os.fdopen(os.dup(0), encoding="utf-8")  # not inherited by what DVC starts
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for module in ("dvc.commands.repro", "dvc.repo.reproduce"):
        importlib.import_module(module)
    from dvc.cli import main as dvc_main

    asked = control.readline()
    if not asked:
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that DVC leaves its files as it found them
    threading.Thread(target=_end_with_starter, args=(control,), daemon=True).start()
    return int(dvc_main(json.loads(asked)))


def _end_with_starter(control: TextIO) -> None:
    control.read()  # until it is closed
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
