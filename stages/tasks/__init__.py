"""What differs by task: one module per task, behind the hooks of `base.py`."""

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stages.tasks.decision import FILE, Decision

if TYPE_CHECKING:
    from stages.tasks.base import Task

FIRST = "text-classification"  # of models and reports that were made before there were others


def load_task(name: str) -> "Task":
    """Return the hooks of a task; `name` as in params.yaml."""
    return cast("Task", import_module(f"stages.tasks.{name.replace('-', '_')}").TASK)


def read_decision(folder: Path) -> Decision:
    """Read `decision.json` out of a folder; a ValueError if it says what it should not."""
    path = folder / FILE
    content = {"task": FIRST, **json.loads(path.read_text(encoding="utf-8"))}
    kind: type[Decision] = load_task(str(content["task"])).Decision
    return kind.of(content, str(path))
