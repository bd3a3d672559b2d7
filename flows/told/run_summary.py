"""What a run did and what came of it, in Markdown that reads well as plain text, too."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from flows.running.outcome import Outcome
from flows.told.markdown import LINE, code, fenced, table
from flows.told.reports import SCORES, failed_gates, gates_passed, with_interval
from flows.told.rival import Known
from stages.common.redact import redacted
from stages.common.stage import LOGS
from stages.common.tracking.store import tracking_uri

LOWER = "calibration error (lower is better)"


@dataclass(frozen=True)
class Before:
    """What the reports say at one moment.

    Args:
        metrics: content of `reports/metrics.json`.
        registration: what became of the model at its gates, as `read_registration` tells it.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    registration: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Where:
    """Where a run worked.

    Args:
        commit: in words.
        folder: of a scheduled run, its worktree.
        kept: the reference under which a scheduled run's results are kept.
    """

    commit: str = ""
    folder: str = ""
    kept: str = ""


def new_champion(earlier: Before, now: Before) -> bool:
    """Say whether a run made a champion of a model that was none before."""
    return bool(now.registration.get("new_champion")) and now.registration != earlier.registration


def summary(
    outcomes: Mapping[str, Outcome],
    earlier: Before,
    now: Before,
    known: Known | None = None,
    where: Where | None = None,
) -> str:
    """Return the summary of a run.

    Args:
        outcomes: of the stages, in order.
        earlier: what the reports said before the run.
        now: what they say after it.
        known: what MLflow knows, if it was asked and answered.
        where: where the run worked.
    """
    well = all(one.state in ("success", "cached") for one in outcomes.values())
    parts = [
        _verdict(outcomes, earlier, now, known),
        *(_failure(name, one) for name, one in outcomes.items() if one.state == "failed"),
        "## Stages\n\n" + _stages(outcomes),
        _scores(outcomes, earlier, now, known) if well else "",  # else they are those of an earlier run
        _gates(outcomes, earlier, now),
        _links(outcomes, now, known, where or Where()),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _verdict(outcomes: Mapping[str, Outcome], earlier: Before, now: Before, known: Known | None) -> str:
    counted = _counted(outcomes)
    states = {
        state: [name for name, one in outcomes.items() if one.state == state] for state in ("failed", "cancelled")
    }
    if states["failed"]:
        return f"**Failed at {code(states['failed'][0])}.** {counted}"
    if states["cancelled"]:
        return f"**Cancelled during {code(states['cancelled'][0])}.** {counted}"
    if not any(one.state == "success" for one in outcomes.values()):
        return f"**Nothing had to run.** {counted}"
    if not _ran(outcomes, "register"):
        return f"**Done; no model was judged.** {counted}"
    registration = now.registration
    if not registration:
        return f"**Done.** {counted}"
    version = f" version {known.version}" if known and known.version else ""
    model = code(registration["model_name"]) + version
    if new_champion(earlier, now):
        return f"**Promoted: {model} is the champion now.** {counted}"
    if registration["promoted"]:
        return f"**{model} stays champion.** {counted}"
    failed = ", ".join(code(gate["gate"], 60) for gate in failed_gates(registration))
    stays = "stays champion, but would not be promoted now" if registration["alias"] == "champion" else "not promoted"
    return f"**{model}: {stays}.** These gates failed: {failed}. {counted}"


def _ran(outcomes: Mapping[str, Outcome], name: str) -> bool:
    return name in outcomes and outcomes[name].state == "success"


def _counted(outcomes: Mapping[str, Outcome]) -> str:
    words = {
        "success": "ran",
        "cached": "up to date",
        "failed": "failed",
        "cancelled": "cancelled",
        "skipped": "skipped",
    }
    states = [one.state for one in outcomes.values()]
    seconds = sum(one.seconds for one in outcomes.values())
    told = ", ".join(f"{states.count(state)} {word}" for state, word in words.items() if state in states)
    return f"{len(states)} stages: {told}; {_time(seconds)}."


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _failure(name: str, outcome: Outcome) -> str:
    """Say what a stage said last, and what to do."""
    lines = [line for line in outcome.last_lines if line.strip()]
    hints = [line.strip().removeprefix("→").strip() for line in lines if line.lstrip().startswith("→")]
    told = [f"## {code(name, 60)} {'failed' if outcome.reason in ('', 'failed') else code(outcome.reason)}"]
    if lines:
        told.append("Its last lines:\n\n" + fenced(lines))
    do = f"What to do now: {code(hints[-1], LINE)}; then run it again" if hints else "Mend it, and run it again"
    told.append(f"{do}. What is done is not done again. All it said: {code(f'{LOGS}/{name}.log')} where it ran.")
    return "\n\n".join(told)


def _stages(outcomes: Mapping[str, Outcome]) -> str:
    rows = (
        (code(name, 60), one.state, f"{one.seconds:.1f}" if one.seconds else "–", code(one.reason))
        for name, one in outcomes.items()
    )
    return table(("stage", "state", "seconds", "why"), "llrl", rows)


def _scores(outcomes: Mapping[str, Outcome], earlier: Before, now: Before, known: Known | None) -> str:
    if not now.metrics:
        return ""
    rival = dict(known.rival_scores) if known and known.rival is not None else {}
    fresh = now != earlier
    head = ["", "now [interval]"]
    head += ["last run", "difference"] if fresh and earlier.metrics else []
    head += (
        [f"champion {'before ' if new_champion(earlier, now) else ''}(version {known.rival})", "difference"]
        if (known and rival)
        else []
    )
    rows: list[list[str]] = []
    for label, key in {**SCORES, LOWER: "ece"}.items():
        value, then = _value(now.metrics, key), _value(earlier.metrics, key)
        cells = [label, "–" if value is None else f"{value:.4f}" if key == "ece" else with_interval(now.metrics, key)]
        if fresh and earlier.metrics:
            cells += _beside(value, then)
        if rival:
            cells += _beside(value, rival.get(key))
        rows.append(cells)
    if now.registration.get("gates") and outcomes.get("register", Outcome("skipped")).state in ("success", "cached"):
        passed = gates_passed(earlier.registration) if earlier.registration.get("gates") else "–"
        cells = ["gates passed", gates_passed(now.registration)]
        rows.append([*cells, *([passed, ""] if fresh and earlier.metrics else []), *(["", ""] if rival else [])])
    title = f"## Scores on {now.metrics['rows']:,} test rows" + ("" if fresh else ", as before")
    if rival:
        title += "\n\nThe champion's are those of its own test rows."
    return f"{title}\n\n" + table(head, "l" + "r" * (len(head) - 1), rows)


def _value(metrics: Mapping[str, Any], key: str) -> float | None:
    found = metrics.get("calibration", {}).get("ece") if key == "ece" else metrics.get(key)
    return None if found is None else float(found)


def _beside(value: float | None, other: float | None) -> list[str]:
    if value is None or other is None:
        return ["–", "–"]
    return [f"{other:.4f}", "same" if value == other else f"{value - other:+.4f}"]


def _gates(outcomes: Mapping[str, Outcome], earlier: Before, now: Before) -> str:
    """Say which gates failed, and how the model did beside the champion."""
    registration = now.registration
    if not registration or not (_ran(outcomes, "register") or registration != earlier.registration):
        return ""
    lines = [f"- {code(gate['gate'], 60)}: {code(gate['reason'], LINE)}" for gate in failed_gates(registration)]
    told = [f"## {gates_passed(registration)} gates passed"]
    told += ["These failed:\n\n" + "\n".join(lines)] if lines else []
    beside = [gate for gate in registration["gates"] if gate["gate"] == "champion" and gate["passed"]]
    beside = [gate for gate in beside if gate.get("value") is not None]  # there was one to compare with
    told += [f"Beside the champion: {code(gate['reason'], LINE)}" for gate in beside]
    return "\n\n".join(told)


def _links(outcomes: Mapping[str, Outcome], now: Before, known: Known | None, where: Where) -> str:
    lines = list(_mlflow(known))
    if now.metrics:
        page = code("reports/evaluation.html")
        well = all(one.state in ("success", "cached") for one in outcomes.values())
        new = any(one.state == "success" for one in outcomes.values())
        if where.kept and well and not new:
            lines.append(f"report: {page} of the commit, or of {code(where.kept)} if there is one")
        elif where.kept and well:
            lines.append(f"report: {page} of {code(where.kept)}, once this run is complete (docs/retraining.md)")
        else:
            lines.append(f"report: {page}" + (f" in {code(where.folder)}" if where.folder else ""))
    if where.commit:
        lines.append(f"commit: {code(where.commit)}")
    return "## Where to look\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _mlflow(known: Known | None) -> Iterator[str]:
    if known is None or known.run is None:
        return
    parts = urlsplit(tracking_uri())
    path = f"/#/experiments/{known.experiment}/runs/{quote(known.run, safe='')}"
    if parts.scheme in ("http", "https"):
        server = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        yield f"MLflow: <{redacted(server)}{path}>"
    else:
        yield f"MLflow: run {code(known.run)}; {code('make ui')}, then <http://127.0.0.1:5000{path}>"
