"""The stages of a run as Prefect tasks, one after the other, and what became of each."""

import time
from collections.abc import Mapping
from typing import Any

from prefect import State, get_run_logger, task
from prefect.states import Cancelled, Completed

from flows.running.outcome import Outcome
from flows.running.stage_process import StageRunner, seconds_of
from flows.told.redact import redacted
from stages.common.errors import AttuneError
from stages.common.graph import Node, upstream_of
from stages.common.recorded import changes, changes_of
from stages.common.stage import LOGS

DEFAULT_TIMEOUT = "1h"
NOTHING = "nothing it depends on has changed"


class StageFailed(AttuneError):
    """A stage did not end well.

    Args:
        outcomes: of all stages.
    """

    def __init__(self, what: str, fix: str, outcomes: Mapping[str, Outcome] | None = None) -> None:
        super().__init__(what, fix)
        self.outcomes = outcomes or {}


class StageTasks:
    """Runs stages as tasks of the flow that calls it.

    Args:
        graph: the stages to bring up to date, in order.
        forced: those that run whatever DVC thinks, each with the reasons.
    """

    def __init__(self, graph: Mapping[str, Node], forced: Mapping[str, list[str]]) -> None:
        self._graph, self._forced = graph, forced
        self._known = changes(list(graph))  # holds for a stage until one before it has run
        self._done: dict[str, Outcome] = {}
        self._spare: StageRunner | None = None

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """What became of each stage; those that nobody came to are skipped."""
        return {name: self._done.get(name, Outcome("skipped")) for name in self._graph}

    def bring_up_to_date(self, node: Node) -> None:
        """Run a stage if it has to run, as a task of its name."""
        named = task(
            lambda: self._work(node),
            name=node.name,
            task_run_name=node.name,
            description=node.desc,
            retries=int(node.meta.get("retries", 0)),
            retry_delay_seconds=seconds_of(node.meta.get("retry_delay", 0)),
            persist_result=False,
        )
        named(return_state=True)

    def end(self) -> None:
        """End the process that waits for a stage which will not come."""
        if self._spare:
            self._spare.end()

    def raise_for_failure(self) -> None:
        """Tell of the stage that failed.

        Raises:
            StageFailed: if one did.
        """
        for name, outcome in self._done.items():
            if outcome.state == "failed":
                told = "\n  ".join((f"the stage {name} {outcome.reason}; its last lines:", *outcome.last_lines))
                fix = f"mend it, and run again: what is done is not done again (all it said: {LOGS / name}.log)"
                raise StageFailed(told, fix, self.outcomes)

    def _work(self, node: Node) -> State[Any]:
        failed = [name for name, outcome in self._done.items() if outcome.state == "failed" and name != node.name]
        if failed:
            self._done[node.name] = Outcome("skipped", reason=f"{failed[0]} failed")
            return Cancelled(name="Skipped", message=f"{failed[0]} failed")
        reasons = [*self._forced.get(node.name, ()), *self._reasons(node)]
        if not reasons:
            self._done[node.name] = Outcome("cached", reason=NOTHING)
            return Completed(name="Cached", message=NOTHING)
        self._done[node.name] = outcome = self._run(node, redacted("; ".join(reasons)))
        if outcome.state == "failed":
            raise StageFailed(f"the stage {node.name} {outcome.reason}", "its last lines are above")
        return Completed(message=outcome.reason)

    def _reasons(self, node: Node) -> list[str]:
        ran = any(
            name in self._done and self._done[name].state != "cached"
            for name in (*upstream_of(node, self._graph), node.name)
        )
        return list(map(str, changes_of(node.name) if ran else self._known[node.name]))

    def _run(self, node: Node, why: str) -> Outcome:
        log, started = get_run_logger().info, time.monotonic()
        log(f"runs ({why})")
        timeout = node.meta.get("timeout", DEFAULT_TIMEOUT)
        self._done[node.name] = Outcome("cancelled", reason="ended from outside")  # unless it gets to its end
        runner, self._spare = self._spare or StageRunner(), None
        LOGS.mkdir(exist_ok=True)
        with (LOGS / f"{node.name}.log").open("w", encoding="utf-8") as file:

            def keep(line: str) -> None:
                if self._spare is None and node.name != list(self._graph)[-1]:
                    self._spare = StageRunner()  # ready when this stage is
                line = redacted(line)
                print(line, file=file, flush=True)
                log(line)

            ended = runner.run(node.name, seconds_of(timeout), keep, force=node.name in self._forced)
        seconds = time.monotonic() - started
        if ended.late or ended.code:
            what = f"took longer than {timeout}" if ended.late else "failed"
            return Outcome("failed", seconds, what, tuple(map(redacted, ended.last_lines)))
        return Outcome("success", seconds, why)
