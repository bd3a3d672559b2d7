"""`python -m flows.prepare`: what `make run` and the flows do first: check params, restore outs, ask the registry.

A stage that was killed leaves its outs removed. And DVC cannot know that a model is not in the registry: MLflow's data
may have been deleted, or another server may be in use.
"""

import argparse
import sys
from collections.abc import Callable

from flows.command import program
from stages.common.display import listed
from stages.common.errors import AttuneError
from stages.common.params import load_params
from stages.common.pipeline.dvc_files import check_deps, mend
from stages.common.pipeline.dvc_status import restore_outs
from stages.tracking.provenance import REGISTERS
from stages.tracking.registry import REGISTRATION, STAMP, Registration
from stages.tracking.store import warn


def prepare(log: Callable[[str], None] = print) -> None:
    """Put back what a kill has broken or taken away, and have `register` run if the registry lacks the model.

    DVC runs `register` if its stamp, the one out that Git does not keep, is missing. So the stamp is removed where the
    registry lacks the model, and written where it has the model, as in the new worktree of a nightly run.
    """
    mend(log=log)
    check_deps()
    if restored := restore_outs():
        log(f"missing outs came back from DVC's cache: {listed(restored, 4)}")
    try:
        registration, reason = find_registered()
        if registration:
            registration.stamp(STAMP)
        elif reason and STAMP.exists():
            log(f"{REGISTERS} runs: {reason}")
            STAMP.unlink()
    except Exception as error:  # the stages run even if MLflow does not answer
        warn(error, "whether the model is registered is not known; `make register` registers it once MLflow answers")


def find_registered() -> tuple[Registration | None, str]:
    """Return what the last run reported if the registry has that model, or else a message that it lacks the model.

    Neither comes before the first run, or if the report is of an earlier version's format.

    Raises:
        Exception: of any kind, if the registry does not answer.
    """
    if not REGISTRATION.exists():
        return None, ""
    try:
        registration = Registration.read()
    except AttuneError:
        return None, ""
    lacking = f"MLflow's registry has no version of {registration.model_name} with this model and its files"
    return (registration, "") if registration.known else (None, lacking)


@program("interrupted; nothing was changed")
def main(arguments: list[str] | None = None) -> None:
    """Prepare a run, or put back outs alone."""
    parser = argparse.ArgumentParser(prog="python -m flows.prepare", description="What a run needs before it begins.")
    parser.add_argument("--outs", action="store_true", help="only put back what a stage that was killed took away")
    options = parser.parse_args(arguments)
    if options.outs:
        mend()
        restore_outs()
    else:
        load_params(complete=True)
        print("params.yaml is in order")
        prepare()


if __name__ == "__main__":
    sys.exit(main())
