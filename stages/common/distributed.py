"""Which of several training processes this is, by torchrun's environment variables, and what happens when one fails."""

import ctypes
import os
import signal
import sys

FAILURES = "attune/failures"  # key of torch's store
PARTNER_GONE = ("closed by peer", "reset by peer", "Broken pipe", "NCCL communicator was aborted")  # of gloo and NCCL


def rank() -> int:
    """Return the number of this process among all that train together; 0 leads, and is also that of a single one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """Return how many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def end_with_parent(*_: object) -> None:
    """Let the system kill this process when the one that started it ends, however it does (Linux only).

    torchrun starts its processes in sessions of their own, which a kill of the stage's process group does not reach.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def first_to_fail() -> bool:
    """Return whether no other process has reported a failure yet: the first one is the cause, and one is enough."""
    distributed = sys.modules.get("torch.distributed")
    if world_size() == 1:
        return True
    if distributed is None or not distributed.is_initialized():
        return int(os.environ.get("LOCAL_RANK", "0")) == 0  # too early to ask: one of each machine
    try:
        return int(distributed.distributed_c10d._get_default_store().add(FAILURES, 1)) == 1
    except RuntimeError:  # the process that keeps the store has ended, and reports why itself
        return False


def lost_partner(error: BaseException) -> bool:
    """Return whether an error only says that another process has ended, which reports the cause."""
    return world_size() > 1 and isinstance(error, RuntimeError) and any(part in str(error) for part in PARTNER_GONE)
