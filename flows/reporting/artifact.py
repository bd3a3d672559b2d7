"""The summary of a run as a Prefect artifact, and the event `attune.promoted` for Prefect's automations."""

from collections.abc import Mapping
from pathlib import Path

from flows.execution.stage_process import Outcome
from flows.model_versions.versions import run_with_timeout
from flows.reporting.markdown import code, plain
from flows.reporting.reports import Reports, new_champion, read_reports, spec_of
from flows.reporting.run_summary import summary
from flows.repository.results import KEPT, reference
from flows.repository.worktrees import WORKTREES, deployment_of
from stages.common.git import GitFailed, NoGit, git
from stages.common.params.tasks import TaskSpec
from stages.common.pipeline.stage import LOGS

FILE = LOGS / "summary.md"
SECONDS = 6.0  # for a server to answer; MLflow takes up to three of them to import


def publish(outcomes: Mapping[str, Outcome], earlier: Reports) -> None:
    """Write the summary to `logs/` and, in a flow, as an artifact; emit an event if there is a new champion.

    What goes wrong costs a warning, and seconds.
    """
    from prefect.context import FlowRunContext
    from prefect.events import emit_event
    from prefect.logging import get_logger, get_run_logger

    context = FlowRunContext.get()
    logger = get_run_logger() if context else get_logger("attune")
    current, version, scores = read_reports(), None, dict[str, float]()
    promoted = new_champion(earlier, current)
    try:
        if promoted:
            version, scores = run_with_timeout(
                SECONDS, lambda: previous_champion(current.registration["model_name"], spec_of(current.metrics))
            )
    except Exception as error:  # a summary is no place to fail over a registry
        logger.warning("the champion before is not known: %s", plain(f"{type(error).__name__}: {error}"))
    try:
        if context and promoted:  # Prefect relates the flow run to the event
            model, headline = str(current.registration["model_name"]), spec_of(current.metrics).headline
            names = {"model": model, "version": current.registration["version"], "version_before": version}
            gained = {
                score.title: {"old": scores.get(score.name), "new": current.metrics.get(score.name)}
                for score in headline
            }
            resource = {"prefect.resource.id": f"attune.model.{model}", "prefect.resource.name": model}
            emit_event("attune.promoted", resource=resource, payload={**names, "scores": gained})
        where = places(current, other_params=bool(context and (context.parameters or {}).get("set")))
        other_models = {f"champion before (version {version}, its own test rows)": scores}
        text = summary(outcomes, earlier, current, where, other_models)
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text, encoding="utf-8")
        if context:
            create_artifact(text, "attune-run", "What this run did")
    except Exception as error:
        reason = plain(f"{type(error).__name__}: {error}")
        logger.warning("the summary of this run could not be shown (%s); see %s", reason, FILE)


def create_artifact(text: str, key: str, description: str) -> None:
    """Show Markdown in Prefect's UI, as an artifact of this flow run; a TimeoutError if that takes too long."""
    from prefect.artifacts import create_markdown_artifact

    run_with_timeout(SECONDS, lambda: create_markdown_artifact(text, key=key, description=description))


def previous_champion(name: str, spec: TaskSpec) -> tuple[int | None, dict[str, float]]:
    """Return version and scores of the champion before, on its own test rows; any error of the registry is raised."""
    from stages.tracking.registry import previous_champion, unless_gone
    from stages.tracking.store import connect, quiet

    client = connect()
    version = previous_champion(client, name)
    metrics: dict[str, float] = {}
    if version is not None:
        with quiet(), unless_gone():
            metrics = client.get_run(client.get_model_version(name, str(version)).run_id).data.metrics
    logged = {**{score.name: f"test_{score.name}" for score in spec.headline}, "ece": "test_calibration.ece"}
    return version, {key: float(metrics[metric]) for key, metric in logged.items() if metric in metrics}


def places(current: Reports, *, other_params: bool) -> list[str]:
    """Return where the report is, and the commit that was run."""
    folder, report = Path.cwd(), "report: `reports/evaluation.html`"
    name = deployment_of(folder)
    if name:  # the worktree is removed at the end of a run that succeeds
        kept = code(reference(f"{name}-set" if other_params else name))
        report += f" of {kept} after a run that succeeded, else in {code(str(WORKTREES / folder.name))}"
    own = [f":(exclude){path}" for path in KEPT] if name else []  # what a scheduled run itself is there to change
    lines = [report] if current.metrics else []
    try:
        commit = git(folder, "log", "-1", "--abbrev=12", "--format=%h")
        changed = git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    except NoGit:
        return lines
    except GitFailed as error:
        return [*lines, f"commit: not known, {error.what}"]
    return [*lines, f"commit: {code(commit)}{' with changes' if changed else ''}"]
