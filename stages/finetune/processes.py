"""Several training processes on this machine: torchrun's own launcher, asked for by `finetune.nproc_per_node`."""

import logging
import os
import sys
from contextlib import suppress
from typing import Any

from stages.common.distributed import end_with_parent, processes_here, world_size
from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams, load_params


def wanted() -> int:
    """Return how many processes this one is to start; 0 if it is one of them."""
    with suppress(AttuneError):  # the stage says what is wrong with params
        return 0 if "RANK" in os.environ else load_params().finetune.nproc_per_node
    return 0


def launch(module: str, processes: int) -> int:
    """Run `python -m MODULE` in so many processes that know of each other; return the exit status.

    As `torchrun --standalone` does, but for its report: the process that failed has said why.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # also where the name of this machine leads nowhere
    at: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=processes, max_restarts=0, **at)
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        print(
            f"\nprocess {rank} of {processes} was killed by signal {-failure.exitcode}\n"
            "  → with signal 9, it was most likely the system, which had no memory left: start fewer processes "
            "(finetune.nproc_per_node) or lower finetune.per_device_train_batch_size",
            file=sys.stderr,
        )
        return 128 - failure.exitcode
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


def join(params: FinetuneParams) -> None:
    """Become one of the processes of a training: end with the one that started it, and take a share of the cores."""
    import torch

    here, asked, gpus = processes_here(), params.nproc_per_node, torch.cuda.device_count()
    if params.torch_num_threads or here > 1:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(params.torch_num_threads or max(1, usable // here))
    if world_size() == 1:
        return
    end_with_parent()
    if asked not in (1, here):
        raise AttuneError(
            f"torchrun has started {here} processes, but finetune.nproc_per_node is {asked}",
            "set it to 1 where torchrun says how many, or to the same number",
        )
    if 0 < gpus < here:
        raise AttuneError(f"{here} processes are to share {gpus} GPUs", "start one for each GPU")
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise AttuneError("finetune does not divide models (ACCELERATE_USE_FSDP)", "unset it: see docs/scaling.md")
