"""The summary of a run as a Prefect artifact."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.git import GitFailed, git
from flows.running.outcome import Outcome
from flows.scheduled.place import noted
from flows.scheduled.results import KEPT, reference
from flows.told.deadline import within
from flows.told.markdown import plain
from flows.told.reports import REPORTS, read_registration, read_report
from flows.told.rival import Known, look_up
from flows.told.run_summary import Before, Where, summary
from stages.common.params import load_params
from stages.common.stage import LOGS

KEY = "attune-run"
FILE = LOGS / "summary.md"
SECONDS = 5.0  # for the server to take it
JUDGED = ("finetune", "evaluate", "register")  # stages after which MLflow has something to say


def before() -> Before:
    """Return what the reports say now; a run asks before it begins."""
    return Before(read_report(REPORTS / "metrics.json"), read_registration())


def publish(outcomes: Mapping[str, Outcome], earlier: Before) -> None:
    """Write the summary to `logs/` and, in a flow, as an artifact; what goes wrong costs a warning, and seconds."""
    from prefect.context import FlowRunContext
    from prefect.logging import get_logger, get_run_logger

    running = FlowRunContext.get() is not None
    logger = get_run_logger() if running else get_logger("attune")
    try:
        now = before()
        known, trouble = _looked_up(outcomes, now)
        if trouble:
            logger.warning("the summary knows nothing of MLflow: %s", trouble)
        where = _where()
        try:
            text = summary(outcomes, earlier, now, known, where)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # reports of another version, say
            logger.warning("the summary of this run is without scores: reports/ holds other than expected (%r)", error)
            text = summary(outcomes, Before(), Before(), None, where)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text, encoding="utf-8")
        if running:
            within(SECONDS, lambda: _create(text))
    except Exception as error:
        reason = plain(f"{type(error).__name__}: {error}")
        logger.warning("the summary of this run could not be shown (%s); see %s", reason, FILE)


def _create(text: str) -> None:
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(text, key=KEY, description="What this run did, and what came of it")


def _looked_up(outcomes: Mapping[str, Outcome], now: Before) -> tuple[Known | None, str]:
    """Return the model's place in MLflow where a stage that concerns it ran, or why it is not known."""
    if not any(outcomes[name].state in ("success", "failed") for name in JUDGED if name in outcomes):
        return None, ""
    try:
        params = load_params()
        return look_up(_digest(outcomes, now), params.register_.model_name, params.tracking.experiment_name), ""
    except Exception as error:  # a summary is no place to fail over a registry
        return None, plain(str(error).partition("\n")[0] or type(error).__name__)


def _digest(outcomes: Mapping[str, Outcome], now: Before) -> str | None:
    """Return the digest of the model that this run has left behind."""
    from stages.common.tracking.runs import model_digest

    model = Path("models/finetuned")
    if outcomes.get("register", Outcome("skipped")).state in ("success", "cached"):
        return now.registration.get("model")
    return model_digest(model) if model.exists() else None


def _where() -> Where:
    from prefect.context import FlowRunContext

    place, context = noted(Path.cwd()), FlowRunContext.get()
    own = [f":(exclude){path}" for path in KEPT] if place else []  # what a scheduled run itself is there to change
    quick: dict[str, Any] = {"seconds": SECONDS, "environment": {"GIT_OPTIONAL_LOCKS": "0"}}
    try:
        found = git(Path.cwd(), "describe", "--always", "--abbrev=12", "--exclude=*", **quick)
        if git(Path.cwd(), "status", "--porcelain", "--untracked-files=no", "--", ".", *own, **quick):
            found += " with changes"
    except GitFailed:
        found = ""  # a copy of the files alone
    if place is None:
        return Where(found)
    name = f"{place.name}-set" if context and context.parameters and context.parameters.get("set") else place.name
    of_its_own = place.folder == place.home  # a clone, which goes with its run
    folder = "" if of_its_own else os.path.relpath(place.folder, place.home)
    return Where(found, folder, reference(name))
