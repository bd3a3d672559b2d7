"""Checkpoints: where a training that was cut short goes on."""

import json
from pathlib import Path


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint, if there is one; its last file is `trainer_state.json`."""
    complete = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if _is_json(state)]
    return str(max(complete, key=lambda path: int(path.name.split("-")[1]))) if complete else None


def _is_json(path: Path) -> bool:
    """Whether a file was written to its end."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
