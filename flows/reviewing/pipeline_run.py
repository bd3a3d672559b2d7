"""All stages of a worktree, one after the other, in an environment of their own; what they say is kept in files."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.git import OF_A_CALLER
from flows.running.stage_process import DEFAULT_TIMEOUT, LONGEST_KEPT, Ended, StageRunner, seconds_of
from flows.told.redact import redacted
from stages.common.errors import AttuneError
from stages.common.graph import Node
from stages.common.shown import visible
from stages.common.stage import WORK

LAST_LINES = 15
STORE = "review.db"  # MLflow's, in the worktree, and thrown away with it
TRIAL = "ATTUNE_TRIAL_"  # what a search tells its trainings

Log = Callable[[str], None]


@dataclass(frozen=True)
class Ran:
    """How far the stages came.

    Args:
        seconds: wall time of each stage that was run.
        failed: the first stage that did not end well, after which none was run; nothing: all did.
        how: of that one: `took longer than 30m`.
        last_lines: that it said.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    how: str = ""
    last_lines: tuple[str, ...] = ()


def run_pipeline(
    folder: Path,
    graph: Mapping[str, Node],
    logs: Path,
    title: str,
    log: Log,
    *,
    python: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Ran:
    """Bring all stages of a worktree up to date; the project's MLflow store knows nothing of it.

    Args:
        folder: the worktree.
        graph: its stages, in order.
        logs: folder that gets all that a stage says, in STAGE.log.
        title: before each line of progress: `rebuild`.
        log: gets a line as a stage begins, and one as it ends.
        python: what runs the stages; none: what runs this.
        variables: more of the environment.

    Raises:
        AttuneError: if a stage's timeout in dvc.yaml is none.
    """
    times = {name: _timeout(node) for name, node in graph.items()}
    logs.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    runner = StageRunner(folder, python, _environment(folder, variables or {}))
    try:
        for name in graph:
            log(f"{title}: {name} …")
            started, path = time.monotonic(), logs / f"{name}.log"
            ended, last_lines = _run_stage(runner, name, times[name], path)
            seconds[name] = time.monotonic() - started
            if ended.late or ended.code:
                how = f"took longer than {times[name]:,.0f} s" if ended.late else f"ended with status {ended.code}"
                log(f"{title}: {name} {how}; all it said: {path}")
                return Ran(seconds, name, how, last_lines)
            log(f"{title}: {name} {seconds[name]:.0f} s")
    finally:
        runner.end()
    return Ran(seconds)


def _run_stage(runner: StageRunner, name: str, timeout: float, path: Path) -> tuple[Ended, tuple[str, ...]]:
    """Run one stage; return how it ended, and the last lines of what it said, all of which goes to a file."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    with path.open("w", encoding="utf-8") as file:

        def keep(line: str) -> None:
            told = visible(redacted(line))[:LONGEST_KEPT]  # cut last: half a secret is not known for one
            last.append(told)
            print(told, file=file, flush=True)

        ended = runner.run(name, timeout, keep)
    return ended, tuple(last)


def _timeout(node: Node) -> float:
    try:
        return seconds_of(node.meta.get("timeout", DEFAULT_TIMEOUT))
    except ValueError as error:
        raise AttuneError(f"dvc.yaml: meta of {node.name}: {error}", "write it like meta: {timeout: 2h}") from None


def _environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of this process without those that would lead out of the worktree."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_", TRIAL)) and name not in OF_A_CALLER
    }
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / WORK / STORE}", "PYTHONPATH": str(folder)}
    return {**kept, **own, **variables}
