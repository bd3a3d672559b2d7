"""Work that a stage has finished and DVC could not record is taken over, not done again.

DVC lets go of its lock while a stage runs. Where another dvc process holds it for more than three seconds just when the
stage ends, that end is thrown away (unless DVC was started with `--wait-for-lock`), and the next `dvc repro` starts the
stage again. So each stage that DVC has started leaves a note of what it read and wrote, and looks for it as it starts.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from stages.common.digests import sha256_value
from stages.common.graph import Node

STARTED_BY_DVC = "DVC_STAGE"  # set by DVC; who starts a stage by hand wants it to run


def is_finished(node: Node, params: object, note: Path) -> bool:
    """Return whether the stage was finished with these very files and params, and DVC has no record of it.

    Args:
        node: the stage.
        params: those that it depends on, as JSON.
        note: where `note_finished` left its note.
    """
    if STARTED_BY_DVC not in os.environ or not note.exists():
        return False
    if note.read_text(encoding="utf-8") != _signature(node, params):
        return False
    from stages.common.recorded import changes_of

    return bool(changes_of(node.name))  # nothing: DVC has it all, and was told to run the stage again


def note_finished(node: Node, params: object, note: Path) -> None:
    """Leave a note that the stage is finished."""
    note.write_text(_signature(node, params), encoding="utf-8")


def forget_recorded(notes: Iterable[Path], lock: Path = Path("dvc.lock")) -> None:
    """Remove notes of stages that DVC has recorded: who deletes dvc.lock wants all of it made again.

    Args:
        notes: files named after their stage.
        lock: DVC's record.
    """
    recorded = lock.read_text(encoding="utf-8") if lock.exists() else ""
    for note in notes:
        if f"\n  {note.stem}:\n" in recorded:
            note.unlink(missing_ok=True)


def _signature(node: Node, params: object) -> str:
    """Return a digest of params and of size and time of every file: whatever was touched since is another file."""
    files = [
        (str(file), state.st_size, state.st_mtime_ns, state.st_ino)
        for path in (*node.deps, *node.outs)
        for file in _files(Path(path))
        for state in (file.stat(),)
    ]
    return sha256_value([node.cmd, params, files])


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
