"""The stages of a run as Prefect tasks, one after the other, and what became of each."""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from prefect import State, get_run_logger, task
from prefect.states import Cancelled, Completed

from flows.running.outcome import Outcome
from flows.running.stage_process import DEFAULT_TIMEOUT, LONGEST_KEPT, StageRunner, seconds_of
from stages.common.errors import AttuneError
from stages.common.graph import Node, upstream_of
from stages.common.recorded import changes, changes_of
from stages.common.redact import redacted
from stages.common.shown import visible
from stages.common.stage import LOGS, STOPPED

WELL = ("success", "cached")
LAST_LINES = 15
MOST_REASONS = 3  # told in a line
RESTORED = "Stage '{}' is cached - skipping run"  # as DVC says it
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

    Raises:
        AttuneError: if the `meta` of a stage cannot be understood, or DVC cannot read the project.
    """

    def __init__(self, graph: Mapping[str, Node], forced: Mapping[str, list[str]]) -> None:
        for node in graph.values():
            _check_meta(node)
        self._graph, self._forced = graph, forced
        self._known = changes(list(graph))  # holds for a stage until one before it has run
        self._done: dict[str, Outcome] = {}
        # started now, so that it has imported DVC by the time the first stage comes
        self._runner = StageRunner() if forced or any(self._known.values()) else None

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
            retry_condition_fn=lambda *_: not self._for_good(node.name),
            persist_result=False,
        )
        state = named(return_state=True)
        if node.name not in self._done:  # Prefect itself could not
            self._done[node.name] = Outcome("failed", reason=redacted(f"could not be run: {state.message}"))

    def end(self) -> None:
        """End the process that runs the stages."""
        if self._runner:
            self._runner.end()

    def raise_for_failure(self) -> None:
        """Tell of the stage that did not end well.

        Raises:
            StageFailed: if there is one.
        """
        for name, outcome in self.outcomes.items():
            if outcome.state not in WELL:
                lines = [f"the stage {name} {outcome.reason}", *outcome.last_lines]
                told = "\n  ".join([f"{lines[0]}; its last lines:", *lines[1:]] if lines[1:] else lines)
                fix = f"mend it, and run again: what is done is not done again (all it said: {LOGS / name}.log)"
                raise StageFailed(told, fix, self.outcomes)

    def _work(self, node: Node) -> State[Any]:
        bad = next((name for name, one in self._done.items() if one.state not in WELL and name != node.name), None)
        if bad:
            self._done[node.name] = Outcome("skipped", reason=f"{bad} failed")
            return Cancelled(name="Skipped", message=f"{bad} failed")
        try:
            reasons = [*self._forced.get(node.name, ()), *self._reasons(node)]
            if not reasons:
                self._done[node.name] = Outcome("cached", reason=NOTHING)
                return Completed(name="Cached", message=NOTHING)
            more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
            self._done[node.name] = self._run(node, redacted("; ".join(reasons[:MOST_REASONS]) + more))
        except Exception as error:  # dvc.yaml was broken meanwhile, the disk is full: whatever it is, it did not run
            what = redacted(f"could not be run: {str(error) or type(error).__name__}")
            self._done[node.name] = Outcome("failed", reason=what)
            raise
        if self._done[node.name].state == "failed":
            raise StageFailed(f"the stage {node.name} {self._done[node.name].reason}", "its last lines are above")
        return Completed()

    def _for_good(self, name: str) -> bool:
        """Whether a stage has said that somebody has to put something right."""
        last_lines = self._done[name].last_lines if name in self._done else ()
        return any(line.startswith(f"{name} {STOPPED}: ") for line in last_lines)

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
        self._done[node.name] = Outcome("cancelled", reason="was ended from outside")  # unless it gets to its end
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

            ended = self._runner.run(node.name, seconds_of(timeout), keep, force=node.name in self._forced)
        seconds = time.monotonic() - started
        if ended.late or ended.code:
            what = f"took longer than {timeout}" if ended.late else "failed"
            return Outcome("failed", seconds, what, tuple(last))
        restored = any(line.startswith(RESTORED.format(node.name)) for line in last)
        return Outcome("success", seconds, f"restored from DVC's run cache ({why})" if restored else why)


def _check_meta(node: Node) -> None:
    try:
        for key in ("timeout", "retry_delay"):
            seconds_of(node.meta.get(key, 0))
        if int(node.meta.get("retries", 0)) < 0:
            raise ValueError("retries are fewer than none")
    except (TypeError, ValueError) as error:
        fix = "write it like meta: {retries: 2, retry_delay: 30s, timeout: 2h}"
        raise AttuneError(f"dvc.yaml: meta of {node.name}: {error}", fix) from None
