"""`python -m flows.prepare`: what a run needs first: good params, the outs of the last run, a registry.

`make run` and the flows start with it. A stage that was killed leaves its outs removed, and DVC cannot know
that a model is not in the registry: MLflow's data may have been deleted, or another server be in use.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flows.command import exit_status
from flows.execution.stage_process import mend_rwlock
from stages.common.display import listed
from stages.common.errors import AttuneError
from stages.common.params import load_params
from stages.common.pipeline.restore import restore_outs
from stages.tracking.registry import REGISTRATION, STAMP, Registration
from stages.tracking.store import warn

REGISTERS = "register"


def prepare(log: Callable[[str], None] = print) -> None:
    """Put back outs that a killed stage took away, and have `register` run if the registry lacks the model.

    Whether it runs is decided by the one out that Git does not keep: it is removed where the registry has no such
    model, and written where it has, as in the new worktree of a nightly run.
    """
    mend_rwlock(Path())
    if restored := restore_outs():
        log(f"missing outs came back from DVC's cache: {listed(restored, 4)}")
    try:
        if reason := lacks_model():
            if STAMP.exists():
                log(f"{REGISTERS} runs: {reason}")
                STAMP.unlink()
        elif registration := reported():
            registration.stamp(STAMP)
    except Exception as error:  # MLflow's troubles must not keep the stages from running
        warn(error, "whether the model is registered is not known; `make register` registers it once MLflow answers")


def lacks_model() -> str:
    """Return that the registry lacks the model of `reports/registration.json`, in words; nothing if it has it.

    Raises:
        Exception: of whatever kind, if the registry does not answer.
    """
    registration = reported()
    if registration is None or registration.known:
        return ""
    return f"MLflow's registry has no version of {registration.model_name} with this model"


def reported() -> Registration | None:
    """Return what the last run reported; None before the first, or if an earlier Attune did: then `register` runs."""
    with suppress(AttuneError):
        return Registration.read() if REGISTRATION.exists() else None
    return None


def main(arguments: list[str] | None = None) -> int:
    """Prepare a run, or put back outs alone."""
    parser = argparse.ArgumentParser(prog="python -m flows.prepare", description="What a run needs before it begins.")
    parser.add_argument("--outs", action="store_true", help="only put back what a stage that was killed took away")
    asked = parser.parse_args(arguments)

    def work() -> None:
        if asked.outs:
            restore_outs()
        else:
            load_params(complete=True)
            print("params.yaml is in order")
            prepare()

    return exit_status(work, "interrupted; nothing was changed")


if __name__ == "__main__":
    sys.exit(main())
