"""Several training processes on this machine: torchrun's own launcher, asked for by `finetune.nproc_per_node`."""

import logging
import os
import sys
import uuid

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams, load_params
from stages.common.ranks import cores_of_each, end_with_parent, processes_here, world_size


def wanted() -> int:
    """Return how many processes this one is to start; 0 if it is one of them, or if params say nothing of the kind."""
    if "RANK" in os.environ:
        return 0
    try:
        return load_params().finetune.nproc_per_node
    except AttuneError:
        return 0  # the stage says what is wrong


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
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
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
    """Become one of the processes of a training: end with the one that started it, and take a share of the cores.

    Raises:
        AttuneError: if there are not as many as there should be, or fewer GPUs.
    """
    import torch

    here, asked = processes_here(), params.nproc_per_node
    if params.torch_num_threads or here > 1:
        torch.set_num_threads(params.torch_num_threads or cores_of_each())
    if world_size() == 1:
        return
    end_with_parent()
    if asked not in (1, here):
        raise AttuneError(
            f"torchrun has started {here} processes, but finetune.nproc_per_node is {asked}",
            "set it to 1 where torchrun says how many, or to the same number",
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        _check_fsdp()
    if 0 < torch.cuda.device_count() < here:
        raise AttuneError(f"{here} processes are to share {torch.cuda.device_count()} GPUs", "start one for each GPU")


def _check_fsdp() -> None:
    """Refuse the kinds of FSDP that would not be used, or whose checkpoints could not be gone on from.

    Raises:
        AttuneError: if it is one of those.
    """
    import torch

    if not torch.cuda.is_available():
        raise AttuneError("ACCELERATE_USE_FSDP is set, but there is no GPU, and accelerate would ignore it", "unset it")
    for name, value in {"FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}.items():
        if os.environ.get(name) != value:
            raise AttuneError(f"with ACCELERATE_USE_FSDP, {name} has to be {value}", "see docs/scaling.md")


def part() -> None:
    """Wait until all processes have finished the training: what one of them still does may fail."""
    from torch import distributed

    if world_size() > 1:
        distributed.barrier()
        distributed.destroy_process_group()
