"""What a run did and what came of it, in Markdown: an artifact, `logs/summary.md`, and what `make summary` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from flows.execution.stage_process import Outcome
from flows.reporting.markdown import LINE, code, fenced, table
from flows.reporting.reports import failed_gates
from stages.common.pipeline.stage import LOGS
from stages.common.redact import redacted
from stages.tracking.store import tracking_uri

COLUMNS = {"accuracy": "accuracy", "macro-F1": "macro_f1", "ECE": "ece"}
WELL = ("success", "cached")
WORDS = {"success": "ran", "cached": "up to date", "failed": "failed", "cancelled": "cancelled", "skipped": "skipped"}


@dataclass(frozen=True)
class Before:
    """What the reports say at one moment.

    Args:
        metrics: content of `reports/metrics.json`.
        registration: what became of the model at its gates, as `read_registration` returns it.
        clean: content of `reports/clean.json`.
        export: content of `reports/export.json`.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    registration: dict[str, Any] = field(default_factory=dict)
    clean: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)


def new_champion(earlier: Before, now: Before) -> bool:
    """Say whether a run made a champion of a model that was none before."""
    return bool(now.registration.get("new_champion")) and now.registration != earlier.registration


def summary(
    outcomes: Mapping[str, Outcome],
    earlier: Before,
    now: Before,
    places: Sequence[str] = (),
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Return the summary of a run.

    Args:
        outcomes: of the stages, in order.
        earlier: what the reports said before the run.
        now: what they say after it.
        places: where to look, a line of Markdown each.
        beside: scores of other models, by what they are.
    """
    parts = [f"**{_verdict(outcomes, earlier, now)}** {_counted(outcomes)}"]
    parts += [_failure(name, one) for name, one in outcomes.items() if one.state == "failed"]
    if now.metrics and all(one.state in WELL for one in outcomes.values()):  # else they are those of an earlier run
        parts += [*_rows(now.clean), _scores(earlier, now, beside or {}), _trust(now)]
    rows = [
        (code(name, 60), one.state, f"{one.seconds:.1f}" if one.seconds else "–", code(one.reason))
        for name, one in outcomes.items()
    ]
    parts.append("## Stages\n\n" + table(("stage", "state", "seconds", "why"), "llrl", rows))
    if now.registration and (_ran(outcomes, "register") or now.registration != earlier.registration):
        parts.append(_gates(now.registration))
    if places:
        parts.append("\n".join(["## Where to look\n", *(f"- {place}" for place in places)]))
    return "\n\n".join(parts) + "\n"


def _verdict(outcomes: Mapping[str, Outcome], earlier: Before, now: Before) -> str:
    for state, words in (("failed", "Failed at"), ("cancelled", "Cancelled during")):
        if name := next((name for name, one in outcomes.items() if one.state == state), None):
            return f"{words} {code(name)}."
    if not any(one.state == "success" for one in outcomes.values()):
        return "Nothing had to run."
    registration = now.registration
    if not registration or not _ran(outcomes, "register"):
        return "Done; no model was judged."
    model, version = code(registration["model_name"]), registration["version"]
    model += f" version {version}" if version else ""
    if new_champion(earlier, now):
        return f"Promoted: {model} is the champion now."
    if registration["promoted"]:
        return f"{model} stays champion."
    failed = ", ".join(code(gate["gate"], 60) for gate in failed_gates(registration))
    stays = "stays champion, but would not be promoted now" if registration["alias"] == "champion" else "not promoted"
    return f"{model}: {stays}. These gates failed: {failed}."


def _ran(outcomes: Mapping[str, Outcome], name: str) -> bool:
    return name in outcomes and outcomes[name].state == "success"


def _counted(outcomes: Mapping[str, Outcome]) -> str:
    states = [one.state for one in outcomes.values()]
    counts = ", ".join(f"{states.count(state)} {word}" for state, word in WORDS.items() if state in states)
    return f"{len(states)} stages: {counts}; {sum(one.seconds for one in outcomes.values()):.1f} s."


def _failure(name: str, outcome: Outcome) -> str:
    """Say what a stage said last, and what to do."""
    lines = [line for line in outcome.last_lines if line.strip()]
    hints = [line.strip().removeprefix("→").strip() for line in lines if line.lstrip().startswith("→")]
    parts = [f"## {code(name, 60)} {'failed' if outcome.reason in ('', 'failed') else code(outcome.reason)}"]
    if lines:
        parts.append("Its last lines:\n\n" + fenced(lines))
    advice = f"What to do now: {code(hints[-1], LINE)}; then run it again" if hints else "Mend it, and run it again"
    parts.append(f"{advice}. What is done is not done again. The whole log: {code(f'{LOGS}/{name}.log')} where it ran.")
    return "\n\n".join(parts)


def _rows(clean: dict[str, Any]) -> list[str]:
    if not clean:
        return []
    splits = ", ".join(f"{code(name)} {split['rows']:,}" for name, split in clean["splits"].items())
    rejected = clean["rows_in"] - clean["rows_kept"]
    return [f"{clean['rows_in']:,} rows, {clean['rows_kept']:,} kept ({splits}), {rejected:,} rejected."]


def _scores(earlier: Before, now: Before, beside: Mapping[str, Mapping[str, float]]) -> str:
    """Return the scores of the model, of the last run (where they are others), of others and of the baselines."""
    fresh = now.metrics != earlier.metrics
    models = {"this model": now.metrics, "last run": earlier.metrics if fresh else {}, **beside}
    models |= {name.replace("_", " "): scores for name, scores in now.metrics.get("baselines", {}).items()}
    rows = [
        [code(name, 60), *(_score(scores, key) for key in COLUMNS.values())]
        for name, scores in models.items()
        if scores
    ]
    title = f"## Scores on {now.metrics['rows']:,} test rows" + ("" if fresh else ", as before")
    return f"{title}\n\n" + table(["model", *COLUMNS], "lrrr", rows)


def _score(scores: Mapping[str, Any], key: str) -> str:
    value = scores.get(key, scores.get("calibration", {}).get(key))
    interval = f" [{scores[f'{key}_low']:.4f}, {scores[f'{key}_high']:.4f}]" if f"{key}_low" in scores else ""
    return "–" if value is None else f"{value:.4f}{interval}"


def _trust(now: Before) -> str:
    """Say what the thresholds give, what the behavioural tests say, which forms of the model there are."""
    thresholds = now.metrics.get("thresholds") or {}
    tests = [test for test in now.metrics.get("behaviour", {}).values() if test["cases"]]
    forms = [code(name) for name, form in now.export.items() if isinstance(form, dict) and form["offered"]]
    parts = [f"Offered as {', '.join(['`torch`', *forms])}"]
    if "coverage" in thresholds:
        parts.append(f"coverage {thresholds['coverage']:.1%}")
    if silent := [code(label, 40) for label, one in thresholds.get("labels", {}).items() if one["threshold"] is None]:
        parts.append(f"never answers {', '.join(silent[:5])} (docs/evaluation.md)")
    if tests:
        passed, cases = (sum(test[what] for test in tests) for what in ("passed", "cases"))
        parts.append(f"{passed} of {cases} behavioural cases passed")
    return "; ".join(parts) + "."


def _gates(registration: Mapping[str, Any]) -> str:
    """Return how many gates a model passed, those that failed, how it compares with the champion, and where it is."""
    gates, failed = registration["gates"], failed_gates(registration)
    lines = [f"## {len(gates) - len(failed)} of {len(gates)} gates passed\n"]
    lines += [
        f"- {code(gate['gate'], 60)}{'' if gate['passed'] else ' **failed**'}: {code(gate['reason'], LINE)}"
        for gate in gates
        if not gate["passed"] or gate["gate"] == "champion"
    ]
    name, alias, version = (registration[key] for key in ("model_name", "alias", "version"))
    if not version:
        return "\n".join([*lines, f"- {code(name)} was not registered from here: `make champion` shows the registry"])
    url, page = urlsplit(tracking_uri()), f"/#/models/{quote(redacted(name), safe='')}/versions/{version}"
    if url.scheme in ("http", "https"):
        server = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        link = f"<{redacted(server)}{page}>"
    else:
        link = f"`make ui`, then <http://127.0.0.1:5000{page}>"
    return "\n".join([*lines, f"- {code(f'models:/{name}@{alias}' if alias else f'models:/{name}/{version}')}: {link}"])
