"""Which of several training processes this is; torchrun says so in the environment."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2)
TOLD = "attune/told"
PARTNER_GONE = ("closed by peer", "reset by peer", "Broken pipe", "NCCL communicator was aborted")  # of gloo and NCCL


def rank() -> int:
    """Return the number of this process among all that train together; 0 leads, and is the only one by itself."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """Return how many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cores_of_each() -> int:
    """Return how many of the cores that this process may use are its share."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // processes_here())


def end_with_parent() -> None:
    """Let the system kill this process when the one that started it ends, however it does (Linux alone).

    torchrun starts its processes in sessions of their own, which a kill of the stage's process group does not reach.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def first_to_fail() -> bool:
    """Return whether no other process has told of a failure: one message is enough, and it is the cause's.

    Whoever loses its partner gets an error of its own (`Connection closed by peer`), which says nothing.
    """
    distributed = sys.modules.get("torch.distributed")
    if world_size() == 1:
        return True
    if distributed is None or not distributed.is_initialized():
        return int(os.environ.get("LOCAL_RANK", "0")) == 0  # too early to ask: one of each machine
    try:
        return int(distributed.distributed_c10d._get_default_store().add(TOLD, 1)) == 1
    except RuntimeError:  # the process that keeps the store is gone, and so is not silent
        return False


def lost_partner(error: BaseException) -> bool:
    """Return whether an error is nothing but the end of another process, which has its own cause."""
    return world_size() > 1 and isinstance(error, RuntimeError) and any(told in str(error) for told in PARTNER_GONE)
