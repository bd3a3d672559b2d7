"""A process that runs one `dvc` command after the other, as they come through its standard input.

DVC takes half a second to import and to read the project, so one process does it for all stages of a run. It ends, with
all that it started, when its input is closed: however the flow ends, nothing goes on running after it. Run as a file,
by flows/execution/stage_process.py. After each command it prints a line with the exit status.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading


def main() -> None:
    """Run the commands."""
    control = os.fdopen(os.dup(0), encoding="utf-8")  # not inherited by what DVC starts
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    commands: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def receive() -> None:
        for line in control:
            commands.put(json.loads(line))
        os.killpg(0, signal.SIGKILL)  # whoever sent them is gone

    threading.Thread(target=receive, daemon=True).start()
    for module in ("dvc.commands.repro", "dvc.repo.reproduce"):
        importlib.import_module(module)
    from dvc.cli import main as dvc_main

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that DVC leaves its files as it found them
    while True:
        print(f"\n\0ended {dvc_main(commands.get())}", flush=True)


if __name__ == "__main__":
    main()
