"""The machine that a training runs on: its processes, its threads, and what happens when memory runs out."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from stages.common.distributed import end_with_parent, processes_here, world_size
from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams, load_params

NO_MEMORY = re.compile(r"DefaultCPUAllocator|can't allocate memory|Cannot allocate memory|out of memory")
WORKER_DIED = re.compile(r"DataLoader worker .*(killed|exited)|bus error|shared memory", re.I)


def wanted() -> int:
    """Return how many processes this one is to start; 0 if it is one of them."""
    with suppress(AttuneError):  # the stage says what is wrong with params
        return 0 if "RANK" in os.environ else load_params().finetune.nproc_per_node
    return 0


def launch(processes: int) -> int:
    """Run `python -m stages.finetune` in so many processes that know of each other; return the exit status.

    As `torchrun --standalone` does, but for its report: the process that failed has said why.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # also where the name of this machine leads nowhere
    address: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=processes, max_restarts=0, **address)
    try:
        elastic_launch(config, sys.executable)("-m", "stages.finetune")
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

    local_size, asked, gpus = processes_here(), params.nproc_per_node, torch.cuda.device_count()
    if params.torch_num_threads or local_size > 1:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(params.torch_num_threads or max(1, usable // local_size))
    if world_size() == 1:
        return
    end_with_parent()
    if asked not in (1, local_size):
        what = f"torchrun has started {local_size} processes, but finetune.nproc_per_node is {asked}"
        raise AttuneError(what, "set it to 1 where torchrun says how many, or to the same number")
    if 0 < gpus < local_size:
        raise AttuneError(f"{local_size} processes are to share {gpus} GPUs", "start one for each GPU")


@contextmanager
def explain_memory_errors(params: FinetuneParams, model: Any) -> Iterator[None]:
    """Name the setting to change when the block runs out of memory, instead of torch's and Python's own errors."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        message, where = str(error), "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        if WORKER_DIED.search(message):
            what = f"a process that prepares batches died ({message.splitlines()[0]})"
            fix = f"lower finetune.dataloader_num_workers (now {params.dataloader_num_workers})"
        elif "without overflow" in message:  # DeBERTa (the first) masks with a number that bfloat16 does not have
            what, fix = "this base model cannot be trained in bfloat16", "set finetune.bf16: false"
        elif not (isinstance(error, MemoryError) or NO_MEMORY.search(message)):
            raise
        elif not model.training:
            what = f"{where} ran out of memory in validation"
            fix = f"halve finetune.per_device_eval_batch_size (now {params.per_device_eval_batch_size})"
        else:
            what = f"{where} ran out of memory in training"
            fix = (
                f"halve finetune.per_device_train_batch_size (now {params.per_device_train_batch_size}) and double "
                f"finetune.gradient_accumulation_steps (now {params.gradient_accumulation_steps}): each step learns "
                "from the same rows; or lower tokenize.max_length, or set finetune.strategy: lora"
            )
        raise AttuneError(what, fix) from None
