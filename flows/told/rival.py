"""A model's place in MLflow, and the champion that it is compared with; asked in seconds, or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.told.deadline import within
from stages.common.params import load_params

SECONDS = 6.0  # MLflow takes up to three of them to import
METRICS = {"accuracy": "test_accuracy", "macro_f1": "test_macro_f1", "ece": "test_calibration.ece"}


@dataclass(frozen=True)
class Known:
    """What MLflow knows of a model.

    Args:
        version: in the registry.
        rival: version of the champion; of the champion before, if the model is champion itself.
        rival_scores: of the rival on the test rows of its own run, by name.
    """

    version: int | None = None
    rival: int | None = None
    rival_scores: Mapping[str, float] = field(default_factory=dict)


def look_up(digest: str | None) -> Known:
    """Look a model of this project up by the digest of its files, or only its champion if there is none; only reads.

    Raises:
        Exception: of whatever kind, if the store does not answer as it should, or not in time.
    """
    params = load_params()
    return within(SECONDS, lambda: _look_up(digest, params.register_.model_name))


def _look_up(digest: str | None, name: str) -> Known:
    from stages.common.tracking.champions import champion, previous_champion, unless_gone
    from stages.common.tracking.registry import version_of
    from stages.common.tracking.runs import MODEL_TAG
    from stages.common.tracking.store import connect, quiet

    client, scores = connect(), {}
    with quiet():
        current = champion(client, name)
        number = int(current.version) if current else None
        own = current is not None and current.tags.get(MODEL_TAG) == digest
        rival = previous_champion(client, name) if own else number
        if rival is not None:
            with unless_gone():
                metrics = client.get_run(client.get_model_version(name, str(rival)).run_id).data.metrics
                scores = {key: float(metrics[metric]) for key, metric in METRICS.items() if metric in metrics}
        version = number if own else version_of(client, name, digest) if digest else None
    return Known(version, rival, scores)
