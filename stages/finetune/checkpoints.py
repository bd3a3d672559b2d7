"""Checkpoints on disk: each is complete or does not count.

A checkpoint counts once its `complete.json` is there, which is written last, when everything else has reached the disk;
older checkpoints are removed only after that. So a process may be killed, and a machine lose its power, at any moment.
"""

import json
import os
import re
import shutil
from pathlib import Path

COMPLETE = "complete.json"  # names the checkpoint of the epoch that was best by then


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
        best = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))["best"]
    except (OSError, ValueError):
        return False
    return best in (None, checkpoint.name) or is_complete(checkpoint.parent / best)


def mark_complete(checkpoint: Path, best: str | None) -> None:
    """Call a checkpoint complete, once the disk has all of it.

    Args:
        checkpoint: its folder.
        best: name of the checkpoint of the best epoch so far, without which this one is of no use.
    """
    marker = checkpoint / f".{COMPLETE}"
    marker.write_text(json.dumps({"best": best}) + "\n", encoding="utf-8")
    for path in (*checkpoint.rglob("*"), checkpoint):
        _reach_disk(path)
    marker.replace(checkpoint / COMPLETE)
    for path in (checkpoint, checkpoint.parent):
        _reach_disk(path)


def discard(checkpoint: Path) -> None:
    """Remove a checkpoint, its marker first: one that is removed by half does not count."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def discard_all_but(folder: Path, kept: set[str | None]) -> None:
    """Remove the checkpoints of a training except those of these names."""
    for checkpoint in _checkpoints(folder):
        if checkpoint.name not in kept:
            discard(checkpoint)


def discard_others(folder: Path) -> None:
    """Remove the checkpoints of trainings with other inputs, except the latest: its params may be set back."""
    others = [other for other in folder.parent.iterdir() if other.is_dir() and other.name != folder.name]
    for other in sorted(others, key=lambda other: other.stat().st_mtime)[:-1]:
        discard_all_but(other, set())
        shutil.rmtree(other, ignore_errors=True)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("checkpoint-*")) if re.fullmatch(r"checkpoint-\d+", path.name)]


def _reach_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
