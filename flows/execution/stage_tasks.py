"""The stages of a run as Prefect tasks, one after the other, and what became of each."""

import time
from collections.abc import Mapping
from typing import Any

from prefect import State, get_run_logger, task
from prefect.states import Cancelled, Completed

from flows.execution.stage_process import DEFAULT_TIMEOUT, Outcome, StageRunner, read_meta
from stages.common.display import listed
from stages.common.errors import AttuneError
from stages.common.pipeline.dvc_status import changes
from stages.common.pipeline.graph import Node, upstream_of
from stages.common.pipeline.stage import LOGS, STOPPED
from stages.common.redact import redacted

MOST_REASONS = 3  # shown
NOTHING = "nothing it depends on has changed"


class StageFailed(AttuneError):
    """A stage did not end well."""


class StageTasks:
    """Runs the stages of a graph as tasks of the flow that calls it; those that are forced even if DVC finds no change.

    Raises:
        AttuneError: if the `meta` of a stage cannot be understood, or DVC cannot read the project.
    """

    def __init__(self, graph: Mapping[str, Node], forced: Mapping[str, list[str]]) -> None:
        self._graph, self._forced = graph, forced
        self._meta = {name: read_meta(node) for name, node in graph.items()}
        self._changes = changes(list(graph))  # true of a stage until one before it has run
        self.outcomes = dict.fromkeys(graph, Outcome("skipped"))
        # started now, so that DVC is imported by the time the first stage needs it
        self._runner = StageRunner() if forced or any(self._changes.values()) else None

    def run_all(self) -> None:
        """Run what has to run, each as a task of its name; StageFailed if one did not end well: others are skipped."""
        try:
            for node in self._graph.values():
                self._run_task(node)
        finally:
            if self._runner:
                self._runner.end()
        for name, outcome in self.outcomes.items():
            if outcome.state in ("failed", "cancelled"):
                last = ["; its last lines:", *outcome.last_lines] if outcome.last_lines else [""]
                fix = f"mend it, and run again: what is done is not done again (the whole log: {LOGS / name}.log)"
                raise StageFailed(f"the stage {name} {outcome.reason}" + "\n  ".join(last), fix)

    def _run_task(self, node: Node) -> None:
        retries, delay, _ = self._meta[node.name]
        stage_task = task(
            lambda: self._attempt(node),
            name=node.name,
            task_run_name=node.name,
            description=node.desc,
            retries=retries,
            retry_delay_seconds=delay,
            # no retry of an error that the stage has reported as one for a person
            retry_condition_fn=lambda *_: (
                not any(line.startswith(f"{node.name} {STOPPED}: ") for line in self.outcomes[node.name].last_lines)
            ),
            persist_result=False,
        )
        state = stage_task(return_state=True)
        if self.outcomes[node.name] == Outcome("skipped"):  # the error is Prefect's own
            self.outcomes[node.name] = Outcome("failed", reason=redacted(f"could not be run: {state.message}"))

    def _attempt(self, node: Node) -> State[Any]:
        failed = [name for name, outcome in self.outcomes.items() if outcome.state in ("failed", "cancelled")]
        if failed and failed[0] != node.name:  # else it is a retry
            self.outcomes[node.name] = Outcome("skipped", reason=f"{failed[0]} failed")
            return Cancelled(name="Skipped", message=f"{failed[0]} failed")
        try:
            before = [self.outcomes[name] for name in (*upstream_of(node, self._graph), node.name)]
            ran = any(outcome.state in ("success", "failed") for outcome in before)
            current = changes([node.name]) if ran else self._changes
            reasons = [*self._forced.get(node.name, ()), *map(str, current[node.name])]
            if not reasons:
                self.outcomes[node.name] = Outcome("cached", reason=NOTHING)
                return Completed(name="Cached", message=NOTHING)
            self._run(node, redacted(listed(reasons, MOST_REASONS)))
        except Exception as error:  # a broken dvc.yaml, a full disk: whatever it is, the stage did not run
            what = redacted(f"could not be run: {str(error) or type(error).__name__}")
            self.outcomes[node.name] = Outcome("failed", reason=what)
            raise
        if self.outcomes[node.name].state == "failed":
            raise StageFailed(f"the stage {node.name} {self.outcomes[node.name].reason}", "its last lines are above")
        return Completed()

    def _run(self, node: Node, why: str) -> None:
        log, started = get_run_logger().info, time.monotonic()
        log(f"runs ({why})")
        self.outcomes[node.name] = Outcome("cancelled", reason="was ended from outside")  # until it has ended
        if self._runner is None or not self._runner.ready:
            self._runner = StageRunner()
        LOGS.mkdir(exist_ok=True)
        timeout, file, force = self._meta[node.name][2], LOGS / f"{node.name}.log", node.name in self._forced
        code, last_lines = self._runner.run(node.name, timeout, file, log, force=force)
        outcome = Outcome("success", time.monotonic() - started, why)
        if code != 0:
            what = f"took longer than {node.meta.get('timeout', DEFAULT_TIMEOUT)}" if code is None else "failed"
            outcome = outcome._replace(state="failed", reason=what, last_lines=last_lines)
        self.outcomes[node.name] = outcome
