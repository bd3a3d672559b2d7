"""The summary of a run as a Prefect artifact, and the event `attune.promoted` for Prefect's automations."""

from collections.abc import Mapping
from pathlib import Path

from flows.git import asked
from flows.running.outcome import Outcome
from flows.scheduled.results import KEPT, reference
from flows.told.deadline import within
from flows.told.markdown import code, plain
from flows.told.reports import REPORTS, SCORES, read_registration, read_report
from flows.told.rival import Known, look_up
from flows.told.run_summary import Before, new_champion, summary
from flows.worktree import WORKTREES, deployment_of
from stages.common.stage import LOGS

FILE = LOGS / "summary.md"
SECONDS = 5.0  # for the server to take it


def before() -> Before:
    """Return what the reports say now; a run asks before it begins."""
    metrics, clean, export = (read_report(REPORTS / f"{name}.json") for name in ("metrics", "clean", "export"))
    if clean and (read := read_report(Path("data/raw/manifest.json")).get("rows_read")):
        clean["rows_in"] = read  # ingest rejects rows, too
    return Before(metrics, read_registration(), clean, export)


def publish(outcomes: Mapping[str, Outcome], earlier: Before) -> None:
    """Write the summary to `logs/` and, in a flow, as an artifact; emit an event if there is a new champion.

    What goes wrong costs a warning, and seconds.
    """
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext
    from prefect.logging import get_logger, get_run_logger

    context = FlowRunContext.get()
    logger = get_run_logger() if context else get_logger("attune")
    now, known = before(), Known()
    try:
        if any(outcomes[name].state == "success" for name in ("finetune", "evaluate", "register") if name in outcomes):
            registered = outcomes.get("register", Outcome("skipped")).state in ("success", "cached")
            known = look_up(now.registration.get("model") if registered else None)
    except Exception as error:  # a summary is no place to fail over a registry
        logger.warning("the summary knows nothing of MLflow: %s", plain(f"{type(error).__name__}: {error}"))
    try:
        if context and new_champion(earlier, now):
            _emit_promotion(now, known)
        other_params = bool(context and (context.parameters or {}).get("set"))
        text = summary(outcomes, earlier, now, known, places(now, other_params=other_params))
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text, encoding="utf-8")
        if context:
            within(SECONDS, lambda: create_markdown_artifact(text, key="attune-run", description="What this run did"))
    except Exception as error:
        reason = plain(f"{type(error).__name__}: {error}")
        logger.warning("the summary of this run could not be shown (%s); see %s", reason, FILE)


def places(now: Before, *, other_params: bool) -> list[str]:
    """Return where the report is, and the commit that was run."""
    folder, report = Path.cwd(), "report: `reports/evaluation.html`"
    name = deployment_of(folder)
    if name:  # the worktree is removed at the end of a run that succeeds
        kept = code(reference(f"{name}-set" if other_params else name))
        report += f" of {kept} after a run that succeeded, else in {code(str(WORKTREES / folder.name))}"
    own = [f":(exclude){path}" for path in KEPT] if name else []  # what a scheduled run itself is there to change
    commit = asked(folder, "rev-parse", "--short=12", "HEAD")
    changed = asked(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    found = [report] if now.metrics else []
    return [*found, f"commit: {code(commit)}{' with changes' if changed else ''}"] if commit else found


def _emit_promotion(now: Before, known: Known) -> None:
    from prefect.events import emit_event

    model = str(now.registration["model_name"])
    scores = {name: {"old": known.rival_scores.get(key), "new": now.metrics.get(key)} for name, key in SCORES.items()}
    emit_event(  # Prefect relates the flow run to it
        "attune.promoted",
        resource={"prefect.resource.id": f"attune.model.{model}", "prefect.resource.name": model},
        payload={"model": model, "version": known.version, "version_before": known.rival, "scores": scores},
    )
