"""Checkpoints on disk: each is whole or does not count, and there are few of them.

A checkpoint counts once its `complete.json` is there, which is written last, when everything else has reached the disk;
older checkpoints are removed only after that. So a process may be killed, and a machine lose its power, at any moment.
"""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

COMPLETE = "complete.json"  # sizes of the other files, and the checkpoint of the epoch that was best by then
SPARE = 64 * 2**20  # bytes of the disk that checkpoints leave alone
TORCH_FULL = (  # torch's ways
    "PytorchStreamWriter failed writing",
    "unexpected pos",
    "basic_ios::clear",
    os.strerror(errno.ENOSPC),
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OTHERS_KEPT = 1  # trainings with other inputs whose checkpoints stay: someone may just be trying something else


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint of a training, if there is one."""
    complete = [checkpoint for checkpoint in _checkpoints(folder) if is_complete(checkpoint)]
    return str(max(complete, key=step_of)) if complete else None


def step_of(checkpoint: Path) -> int:
    """Return after how many training steps a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end, and that of its best epoch is there too."""
    try:
        told = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        whole = all((checkpoint / name).stat().st_size == size for name, size in told["files"].items())
    except (OSError, ValueError):
        return False
    best = told["best"]
    return whole and (best in (None, checkpoint.name) or is_complete(checkpoint.parent / best))


def seal(checkpoint: Path, best: str | None) -> None:
    """Call a checkpoint complete, once the disk has all of it.

    Args:
        checkpoint: its folder.
        best: name of the checkpoint of the best epoch so far, without which this one is of no use.
    """
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / COMPLETE)
    for path in files:
        _reach_disk(path)
    for path in {path.parent for path in files}:
        _reach_disk(path)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    written = checkpoint / f".{COMPLETE}"
    written.write_text(json.dumps({"best": best, "files": sizes}, indent=2) + "\n", encoding="utf-8")
    _reach_disk(written)
    written.replace(checkpoint / COMPLETE)
    for path in (checkpoint, checkpoint.parent):
        _reach_disk(path)


def discard(checkpoint: Path) -> None:
    """Remove a checkpoint; one that is removed by half does not count."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def discard_all_but(folder: Path, kept: set[str]) -> None:
    """Remove the checkpoints of a training but for those of these names."""
    for checkpoint in _checkpoints(folder):
        if checkpoint.name not in kept:
            discard(checkpoint)


def discard_incomplete(folder: Path) -> None:
    """Remove what is left of checkpoints that were being written when their training was cut short."""
    discard_all_but(folder, {checkpoint.name for checkpoint in _checkpoints(folder) if is_complete(checkpoint)})


def discard_others(folder: Path, kept: int = OTHERS_KEPT) -> None:
    """Remove the checkpoints of trainings with other inputs than this one, but for the latest."""
    others = [other for other in folder.parent.iterdir() if other.is_dir() and other.name != folder.name]
    latest_first = sorted(others, key=lambda other: other.stat().st_mtime, reverse=True)
    for other in latest_first[kept:]:
        for checkpoint in _checkpoints(other):
            discard(checkpoint)
        shutil.rmtree(other, ignore_errors=True)


def lacking(folder: Path, needed: int) -> str | None:
    """Return what to say if the disk has no room for so many bytes; trainings that were given up make room first."""
    if _free(folder) < needed + SPARE:
        discard_others(folder, kept=0)
    free = _free(folder)
    if free >= needed + SPARE:
        return None
    return f"{_mib(needed)} are needed beside a reserve of {_mib(SPARE)}, and {_mib(free)} are free"


def disk_is_full(error: BaseException) -> bool:
    """Return whether a write failed because the disk, or someone's share of it, is full."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    if told := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors' way to say it
        return int(told[1]) in FULL
    return any(told in str(error) for told in TORCH_FULL)


def size_of(model: Any, optimizer: Any) -> int:
    """Return about how many bytes a checkpoint takes: the weights that are saved, and what the optimiser remembers."""
    plain = hasattr(model, "save_pretrained") and not hasattr(model, "peft_config")  # of an adapter, the rest is not
    weights = sum(value.nbytes for value in model.parameters() if plain or value.requires_grad)
    remembered = (value for state in optimizer.state.values() for value in state.values())
    return weights + sum(getattr(value, "nbytes", 0) for value in remembered) + 2**20


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("checkpoint-*")) if re.fullmatch(r"checkpoint-\d+", path.name)]


def _reach_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
