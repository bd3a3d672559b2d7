"""What a run did and what came of it, in Markdown: an artifact, `logs/summary.md`, and what `make summary` prints."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

from flows.execution.stage_process import Outcome
from flows.reporting.markdown import LINE, code, fenced
from flows.reporting.reports import Reports, new_champion, spec_of
from stages.common.pages.templates import environment
from stages.common.pipeline.stage import LOGS
from stages.common.redact import redacted
from stages.tracking.store import tracking_uri

WORDS = {"success": "ran", "cached": "up to date", "failed": "failed", "cancelled": "cancelled", "skipped": "skipped"}
TEMPLATE = "run_summary.md.j2"


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
    names = {state: [name for name, outcome in outcomes.items() if outcome.state == state] for state in WORDS}
    lines = {name: [line for line in outcomes[name].last_lines if line.strip()] for name in names["failed"]}
    registration, metrics, fresh = current.registration, current.metrics, current.metrics != earlier.metrics
    judged = bool(registration) and "register" in names["success"]
    scored = metrics and len(names["success"]) + len(names["cached"]) == len(outcomes)  # else of an earlier run
    models, columns = dict[str, Mapping[str, Any]](), dict[str, str]()
    if scored:
        models = {"this model": metrics, "last run": earlier.metrics if fresh else {}, **other_models}
        models |= {name.replace("_", " "): scores for name, scores in metrics.get("baselines", {}).items()}
        columns = {score.title: score.name for score in spec_of(metrics).headline}
        columns |= {"ECE": "ece"} if "ece" in metrics.get("calibration", {}) else {}
    templates = environment(Path(__file__).parent)
    templates.autoescape = False  # Markdown
    templates.filters |= {"code": code, "fenced": fenced}
    text = templates.get_template(TEMPLATE).render(
        outcomes=outcomes,
        names=names,
        counts=", ".join(f"{len(names[state])} {word}" for state, word in WORDS.items() if names[state]),
        seconds=sum(outcome.seconds for outcome in outcomes.values()),
        last_lines=lines,
        hints={name: [line.strip()[1:].strip() for line in lines[name] if line.strip()[0] == "→"] for name in lines},
        judged=judged,
        registration=registration,
        promoted_now=new_champion(earlier, current),
        scored=scored,
        models=models,
        columns=columns,
        fresh=fresh,
        metrics=metrics,
        thresholds=metrics.get("thresholds") or {},
        clean=current.clean,
        exported=current.export,
        shows_gates=judged or (registration and registration != earlier.registration),
        version_link=_version_link,
        places=places,
        LINE=LINE,
        LOGS=LOGS,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _version_link(name: str, version: int) -> str:
    """Return where a registered version is shown: in MLflow's server, or in the one that `make ui` starts."""
    url, page = urlsplit(tracking_uri()), f"/#/models/{quote(redacted(name), safe='')}/versions/{version}"
    if url.scheme not in ("http", "https"):
        return f"`make ui`, then <http://127.0.0.1:5000{page}>"
    server = url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
    return f"<{redacted(server)}{page}>"
