"""MLflow kept apart from a caller's."""

import pytest

from stages.tasks.base import Task
from stages.tracking import package
from tests.projects import PROJECT, without_mlflow


def apart(patch: pytest.MonkeyPatch) -> None:
    """Leave a caller's MLflow alone, and register without trying out what is no model."""
    without_mlflow(patch)
    patch.setenv("PYTHONPATH", str(PROJECT))
    patch.setattr(Task, "example", None)
    patch.setattr(package, "_requirements", lambda _: [])
