"""A model's place in MLflow, and the champion that it stands beside; asked in seconds, or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.told.deadline import within

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = 6.0  # MLflow takes up to three of them to import
METRICS = {"accuracy": "test_accuracy", "macro_f1": "test_macro_f1", "ece": "test_calibration.ece"}


@dataclass(frozen=True)
class Known:
    """What MLflow knows of a model.

    Args:
        version: in the registry.
        run: its MLflow run.
        experiment: of that run.
        rival: the champion; the one before, if it is champion itself.
        rival_scores: of the rival on the test rows of its own run, by name.
    """

    version: int | None = None
    run: str | None = None
    experiment: str | None = None
    rival: int | None = None
    rival_scores: Mapping[str, float] = field(default_factory=dict)


def look_up(digest: str | None, name: str, experiment: str) -> Known:
    """Look a model up by the digest of its files; only reads.

    Args:
        digest: of the model; None: only the champion is looked for.
        name: of the registered model.
        experiment: its name in MLflow.

    Raises:
        Exception: of whatever kind, if the store does not answer as it should, or not in time.
    """
    return within(SECONDS, lambda: _look_up(digest, name, experiment))


def _look_up(digest: str | None, name: str, experiment: str) -> Known:
    from stages.common.tracking.champions import champion, previous_champion
    from stages.common.tracking.registry import version_of
    from stages.common.tracking.runs import MODEL_TAG
    from stages.common.tracking.store import connect, quiet

    client = connect()
    with quiet():
        found = client.get_experiment_by_name(experiment)
        of_model = f"tags.`{MODEL_TAG}` = '{digest}'"
        runs = client.search_runs([found.experiment_id], filter_string=of_model, max_results=1) if found else []
        current = champion(client, name)
        number = int(current.version) if current else None
        own = current is not None and current.tags.get(MODEL_TAG) == digest
        rival = previous_champion(client, name) if own else number
        scores = _scores(client, name, rival) if rival is not None else {}
        version = number if own else version_of(client, name, digest) if digest else None
        return Known(
            version,
            str(runs[0].info.run_id) if runs and digest else None,
            str(found.experiment_id) if found else None,
            rival,
            scores,
        )


def _scores(client: "MlflowClient", name: str, version: int) -> dict[str, float]:
    from stages.common.tracking.champions import unless_gone

    metrics: Mapping[str, Any] = {}
    with unless_gone():
        metrics = client.get_run(client.get_model_version(name, str(version)).run_id).data.metrics
    return {key: float(metrics[metric]) for key, metric in METRICS.items() if metric in metrics}
