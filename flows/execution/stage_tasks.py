"""The stages of a run as Prefect tasks, one after the other, and what became of each."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from prefect import State, get_run_logger, task
from prefect.states import Cancelled, Completed

from flows.execution.outcome import Outcome
from flows.execution.stage_process import DEFAULT_TIMEOUT, LONGEST_KEPT, StageRunner, seconds_of
from stages.common.display import listed, visible
from stages.common.errors import AttuneError
from stages.common.pipeline.dvc_status import changes, changes_of
from stages.common.pipeline.graph import Node, upstream_of
from stages.common.pipeline.stage import LOGS, STOPPED
from stages.common.redact import redacted

LAST_LINES, MOST_REASONS = 15, 3  # shown
NOTHING = "nothing it depends on has changed"


class StageFailed(AttuneError):
    """A stage did not end well."""


class StageTasks:
    """Runs stages as tasks of the flow that calls it.

    Args:
        graph: the stages to bring up to date, in order.
        forced: those that run whatever DVC thinks, each with the reasons.

    Raises:
        AttuneError: if the `meta` of a stage cannot be understood, or DVC cannot read the project.
    """

    def __init__(self, graph: Mapping[str, Node], forced: Mapping[str, list[str]]) -> None:
        self._graph, self._forced = graph, forced
        self._meta = {name: _read_meta(node) for name, node in graph.items()}
        self._known = changes(list(graph))  # holds for a stage until one before it has run
        self.outcomes = dict.fromkeys(graph, Outcome("skipped"))
        # started now, so that it has imported DVC by the time the first stage comes
        self._runner = StageRunner() if forced or any(self._known.values()) else None

    def bring_up_to_date(self, node: Node) -> None:
        """Run a stage if it has to run, as a task of its name."""
        retries, delay, _ = self._meta[node.name]
        named = task(
            lambda: self._work(node),
            name=node.name,
            task_run_name=node.name,
            description=node.desc,
            retries=retries,
            retry_delay_seconds=delay,
            # not if the stage has said that somebody has to put something right
            retry_condition_fn=lambda *_: (
                not any(line.startswith(f"{node.name} {STOPPED}: ") for line in self.outcomes[node.name].last_lines)
            ),
            persist_result=False,
        )
        state = named(return_state=True)
        if self.outcomes[node.name] == Outcome("skipped"):  # Prefect itself could not
            self.outcomes[node.name] = Outcome("failed", reason=redacted(f"could not be run: {state.message}"))

    def end(self) -> None:
        """End the process that runs the stages."""
        if self._runner:
            self._runner.end()

    def raise_for_failure(self) -> None:
        """Report the stage that did not end well.

        Raises:
            StageFailed: if there is one.
        """
        for name, outcome in self.outcomes.items():
            if outcome.state in ("failed", "cancelled"):
                last = ["; its last lines:", *outcome.last_lines] if outcome.last_lines else [""]
                fix = f"mend it, and run again: what is done is not done again (the whole log: {LOGS / name}.log)"
                raise StageFailed(f"the stage {name} {outcome.reason}" + "\n  ".join(last), fix)

    def _work(self, node: Node) -> State[Any]:
        bad = next((name for name, one in self.outcomes.items() if one.state in ("failed", "cancelled")), node.name)
        if bad != node.name:  # which is tried again
            self.outcomes[node.name] = Outcome("skipped", reason=f"{bad} failed")
            return Cancelled(name="Skipped", message=f"{bad} failed")
        try:
            reasons = [*self._forced.get(node.name, ()), *self._reasons(node)]
            if not reasons:
                self.outcomes[node.name] = Outcome("cached", reason=NOTHING)
                return Completed(name="Cached", message=NOTHING)
            self._run(node, redacted(listed(reasons, MOST_REASONS)))
        except Exception as error:  # dvc.yaml was broken meanwhile, the disk is full: whatever it is, it did not run
            what = redacted(f"could not be run: {str(error) or type(error).__name__}")
            self.outcomes[node.name] = Outcome("failed", reason=what)
            raise
        if self.outcomes[node.name].state == "failed":
            raise StageFailed(f"the stage {node.name} {self.outcomes[node.name].reason}", "its last lines are above")
        return Completed()

    def _reasons(self, node: Node) -> list[str]:
        before = (*upstream_of(node, self._graph), node.name)
        ran = any(self.outcomes[name].state in ("success", "failed") for name in before if name in self.outcomes)
        return list(map(str, changes_of(node.name) if ran else self._known[node.name]))

    def _run(self, node: Node, why: str) -> None:
        log, started = get_run_logger().info, time.monotonic()
        log(f"runs ({why})")
        self.outcomes[node.name] = Outcome("cancelled", reason="was ended from outside")  # unless it gets to its end
        if self._runner is None or not self._runner.ready:
            self.end()
            self._runner = StageRunner()
        last: deque[str] = deque(maxlen=LAST_LINES)
        LOGS.mkdir(exist_ok=True)
        with (LOGS / f"{node.name}.log").open("w", encoding="utf-8") as file:

            def keep(line: str) -> None:
                line = visible(redacted(line))[:LONGEST_KEPT]  # cut last: half a secret is not known for one
                last.append(line)
                print(line, file=file, flush=True)
                log(line)

            timeout = self._meta[node.name][2]
            ended = self._runner.run(node.name, timeout, keep, force=node.name in self._forced)
        outcome = Outcome("success", time.monotonic() - started, why)
        if ended.late or ended.code:
            what = f"took longer than {node.meta.get('timeout', DEFAULT_TIMEOUT)}" if ended.late else "failed"
            outcome = outcome._replace(state="failed", reason=what, last_lines=tuple(last))
        self.outcomes[node.name] = outcome


def _read_meta(node: Node) -> tuple[int, float, float]:
    """Return how often a stage is tried again, and the seconds of its delay and of its timeout."""
    try:
        delay, timeout = node.meta.get("retry_delay", 0), node.meta.get("timeout", DEFAULT_TIMEOUT)
        return int(node.meta.get("retries", 0)), seconds_of(delay), seconds_of(timeout)
    except (TypeError, ValueError) as error:
        fix = "write it like meta: {retries: 2, retry_delay: 30s, timeout: 2h}"
        raise AttuneError(f"dvc.yaml: meta of {node.name}: {error}", fix) from None
