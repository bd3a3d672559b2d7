"""The event `attune.promoted`, for Prefect's automations: docs/notifications.md has those that send messages."""

from flows.told.artifact import before
from flows.told.reports import SCORES
from flows.told.rival import Known, look_up
from flows.told.run_summary import Before, new_champion
from stages.common.params import load_params

PROMOTED = "attune.promoted"


def announce_promotion(earlier: Before) -> None:
    """Emit `attune.promoted` if the run that ends here has made a new champion.

    The flow run is related to the event by Prefect. The payload has `model`, `version`, `version_before` and `scores`,
    which are `{"old": …, "new": …}` by name.

    Args:
        earlier: what the reports said before the run.
    """
    from prefect.events import emit_event

    now = before()
    if not new_champion(earlier, now):
        return
    model = str(now.registration["model_name"])
    try:
        params = load_params()
        known = look_up(now.registration["model"], params.register_.model_name, params.tracking.experiment_name)
    except Exception:  # MLflow is away, of which the run's summary warns; the promotion is news all the same
        known = Known()
    emit_event(
        PROMOTED,
        resource={"prefect.resource.id": f"attune.model.{model}", "prefect.resource.name": model},
        payload={
            "model": model,
            "version": known.version,
            "version_before": known.rival,
            "scores": {
                name: {"old": known.rival_scores.get(key), "new": now.metrics.get(key)} for name, key in SCORES.items()
            },
        },
    )
