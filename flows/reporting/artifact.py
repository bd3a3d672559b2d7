"""The summary of a run as a Prefect artifact, and the event `attune.promoted` for Prefect's automations."""

from collections.abc import Mapping
from pathlib import Path

from flows.execution.stage_process import Outcome
from flows.reporting.markdown import code, plain
from flows.reporting.reports import REPORTS, SCORES, read_registration, read_report
from flows.reporting.run_summary import Before, new_champion, summary
from flows.reporting.timeouts import within
from flows.repository.git import asked
from flows.repository.results import KEPT, reference
from flows.repository.worktrees import WORKTREES, deployment_of
from stages.common.pipeline.stage import LOGS

FILE = LOGS / "summary.md"
SECONDS = 6.0  # for a server to answer; MLflow takes up to three of them to import
METRICS = {"accuracy": "test_accuracy", "macro_f1": "test_macro_f1", "ece": "test_calibration.ece"}


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
    now, version, scores = before(), None, dict[str, float]()
    promoted = new_champion(earlier, now)
    try:
        if promoted:
            version, scores = within(SECONDS, lambda: previous_champion(now.registration["model_name"]))
    except Exception as error:  # a summary is no place to fail over a registry
        logger.warning("the champion before is not known: %s", plain(f"{type(error).__name__}: {error}"))
    try:
        if context and promoted:
            _emit_promotion(now, version, scores)
        other_params = bool(context and (context.parameters or {}).get("set"))
        beside = {f"champion before (version {version}, its own test rows)": scores}
        text = summary(outcomes, earlier, now, places(now, other_params=other_params), beside)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text, encoding="utf-8")
        if context:
            within(SECONDS, lambda: create_markdown_artifact(text, key="attune-run", description="What this run did"))
    except Exception as error:
        reason = plain(f"{type(error).__name__}: {error}")
        logger.warning("the summary of this run could not be shown (%s); see %s", reason, FILE)


def previous_champion(name: str) -> tuple[int | None, dict[str, float]]:
    """Return version and scores of the champion before, on the test rows of its own run.

    Raises:
        Exception: of whatever kind, if the registry does not answer as it should.
    """
    from stages.tracking.champions import previous_champion, unless_gone
    from stages.tracking.store import connect, quiet

    client = connect()
    version = previous_champion(client, name)
    metrics: dict[str, float] = {}
    if version is not None:
        with quiet(), unless_gone():
            metrics = client.get_run(client.get_model_version(name, str(version)).run_id).data.metrics
    return version, {key: float(metrics[metric]) for key, metric in METRICS.items() if metric in metrics}


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


def _emit_promotion(now: Before, version_before: int | None, scores_before: Mapping[str, float]) -> None:
    from prefect.events import emit_event

    model = str(now.registration["model_name"])
    scores = {name: {"old": scores_before.get(key), "new": now.metrics.get(key)} for name, key in SCORES.items()}
    version = now.registration["version"]
    emit_event(  # Prefect relates the flow run to it
        "attune.promoted",
        resource={"prefect.resource.id": f"attune.model.{model}", "prefect.resource.name": model},
        payload={"model": model, "version": version, "version_before": version_before, "scores": scores},
    )
