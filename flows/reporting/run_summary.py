"""What a run did and what came of it, in Markdown: an artifact, `logs/summary.md`, and what `make summary` prints."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from flows.execution.stage_process import Outcome
from flows.reporting.markdown import LINE, code, fenced, table
from flows.reporting.reports import Reports, new_champion, spec_of
from stages.common.pipeline.stage import LOGS
from stages.common.redact import redacted
from stages.tracking.store import tracking_uri

WORDS = {"success": "ran", "cached": "up to date", "failed": "failed", "cancelled": "cancelled", "skipped": "skipped"}


def summary(
    outcomes: Mapping[str, Outcome],
    earlier: Reports,
    current: Reports,
    places: Sequence[str] = (),
    other_models: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> str:
    """Return the summary of a run, by the outcomes of its stages, in order, and the reports before and after it.

    `places` are where to look, a line of Markdown each; `other_models` has scores of other models by what they are.
    """
    states = [outcome.state for outcome in outcomes.values()]
    counts = ", ".join(f"{states.count(state)} {word}" for state, word in WORDS.items() if state in states)
    seconds = sum(outcome.seconds for outcome in outcomes.values())
    judged = bool(current.registration) and outcomes.get("register", Outcome("skipped")).state == "success"
    parts = [f"**{_verdict(outcomes, earlier, current, judged)}** {len(states)} stages: {counts}; {seconds:.1f} s."]
    parts += [_failure(name, outcome) for name, outcome in outcomes.items() if outcome.state == "failed"]
    if current.metrics and set(states) <= {"success", "cached"}:  # else they are those of an earlier run
        if clean := current.clean:
            splits = ", ".join(f"{code(name)} {split['rows']:,}" for name, split in clean["splits"].items())
            kept, rejected = clean["rows_kept"], clean["rows_in"] - clean["rows_kept"]
            parts.append(f"{clean['rows_in']:,} rows, {kept:,} kept ({splits}), {rejected:,} rejected.")
        parts += [_scores(earlier, current, other_models), _trust(current)]
    rows = [
        (code(name, 60), outcome.state, f"{outcome.seconds:.1f}" if outcome.seconds else "–", code(outcome.reason))
        for name, outcome in outcomes.items()
    ]
    parts.append("## Stages\n\n" + table(("stage", "state", "seconds", "why"), "llrl", rows))
    if judged or (current.registration and current.registration != earlier.registration):
        parts.append(_gates(current))
    if places:
        parts.append("\n".join(["## Where to look\n", *(f"- {place}" for place in places)]))
    return "\n\n".join(parts) + "\n"


def _verdict(outcomes: Mapping[str, Outcome], earlier: Reports, current: Reports, judged: bool) -> str:
    for state, words in (("failed", "Failed at"), ("cancelled", "Cancelled during")):
        if name := next((name for name, outcome in outcomes.items() if outcome.state == state), None):
            return f"{words} {code(name)}."
    if not any(outcome.state == "success" for outcome in outcomes.values()):
        return "Nothing had to run."
    if not judged:
        return "Done; no model was judged."
    registration = current.registration
    model, version = code(registration["model_name"]), registration["version"]
    model += f" version {version}" if version else ""
    if new_champion(earlier, current):
        return f"Promoted: {model} is the champion now."
    if registration["promoted"]:
        return f"{model} stays champion."
    failed = ", ".join(code(gate["gate"], 60) for gate in registration["gates"] if not gate["passed"])
    stays = "stays champion, but would not be promoted now" if registration["alias"] == "champion" else "not promoted"
    return f"{model}: {stays}. These gates failed: {failed}."


def _failure(name: str, outcome: Outcome) -> str:
    """Return what a stage said last, and what to do."""
    lines = [line for line in outcome.last_lines if line.strip()]
    hints = [line.strip().removeprefix("→").strip() for line in lines if line.lstrip().startswith("→")]
    parts = [f"## {code(name, 60)} {'failed' if outcome.reason in ('', 'failed') else code(outcome.reason)}"]
    if lines:
        parts.append("Its last lines:\n\n" + fenced(lines))
    advice = f"What to do now: {code(hints[-1], LINE)}; then run it again" if hints else "Mend it, and run it again"
    parts.append(f"{advice}. What is done is not done again. The whole log: {code(f'{LOGS}/{name}.log')} where it ran.")
    return "\n\n".join(parts)


def _scores(earlier: Reports, current: Reports, other_models: Mapping[str, Mapping[str, float]]) -> str:
    """Return the scores of the model, of the last run (where they are others), of others and of the baselines."""
    fresh = current.metrics != earlier.metrics
    models = {"this model": current.metrics, "last run": earlier.metrics if fresh else {}, **other_models}
    models |= {name.replace("_", " "): scores for name, scores in current.metrics.get("baselines", {}).items()}
    columns = {score.title: score.name for score in spec_of(current.metrics).headline}
    columns |= {"ECE": "ece"} if "ece" in current.metrics.get("calibration", {}) else {}
    rows = []
    for name, scores in models.items():
        cells = [code(name, 60)]
        for key in columns.values():
            value = scores.get(key, scores.get("calibration", {}).get(key))
            interval = f" [{scores[f'{key}_low']:.4f}, {scores[f'{key}_high']:.4f}]" if f"{key}_low" in scores else ""
            cells.append("–" if value is None else f"{value:.4f}{interval}")
        rows += [cells] if scores else []
    title = f"## Scores on {current.metrics['rows']:,} test rows" + ("" if fresh else ", as before")
    return f"{title}\n\n" + table(["model", *columns], "l" + "r" * len(columns), rows)


def _trust(current: Reports) -> str:
    """Return what the thresholds give, what the behavioural tests say, which formats of the model there are."""
    thresholds = current.metrics.get("thresholds") or {}
    tests = [test for test in current.metrics.get("behaviour", {}).values() if test["cases"]]
    formats = [code(name) for name, entry in current.export.items() if isinstance(entry, dict) and entry["offered"]]
    parts = [f"Offered as {', '.join(['`torch`', *formats])}"]
    if "coverage" in thresholds:
        parts.append(f"coverage {thresholds['coverage']:.1%}")
    labels = thresholds.get("labels", {}).items()
    if silent := [code(label, 40) for label, entry in labels if entry["threshold"] is None]:
        parts.append(f"never answers {', '.join(silent[:5])} (docs/evaluation.md)")
    if tests:
        passed, cases = (sum(test[what] for test in tests) for what in ("passed", "cases"))
        parts.append(f"{passed} of {cases} behavioural cases passed")
    return "; ".join(parts) + "."


def _gates(current: Reports) -> str:
    """Return how many gates a model passed, those that failed, how it compares with the champion, and where it is."""
    gates = current.registration["gates"]
    lines = [f"## {sum(gate['passed'] for gate in gates)} of {len(gates)} gates passed\n"]
    lines += [
        f"- {code(gate['gate'], 60)}{'' if gate['passed'] else ' **failed**'}: {code(gate['reason'], LINE)}"
        for gate in gates
        if not gate["passed"] or gate["gate"] == "champion"
    ]
    name, alias, version = (current.registration[key] for key in ("model_name", "alias", "version"))
    if not version:
        return "\n".join([*lines, f"- {code(name)} was not registered from here: `make champion` shows the registry"])
    url, page = urlsplit(tracking_uri()), f"/#/models/{quote(redacted(name), safe='')}/versions/{version}"
    if url.scheme in ("http", "https"):
        server = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        link = f"<{redacted(server)}{page}>"
    else:
        link = f"`make ui`, then <http://127.0.0.1:5000{page}>"
    return "\n".join([*lines, f"- {code(f'models:/{name}@{alias}' if alias else f'models:/{name}/{version}')}: {link}"])
