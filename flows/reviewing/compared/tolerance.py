"""When a model with other bytes is the same model: trained on other hardware, with the same predictions and scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.provenance.lineage import DIGEST, check_there
from flows.reviewing.findings import EnvironmentChange
from flows.reviewing.revision import Revision
from flows.told.deadline import within
from flows.told.reports import SCORES
from stages.common.environment import HARDWARE, environment_of
from stages.common.graph import Node, upstream_of
from stages.common.tracking.runs import MODEL_TAG, training_tags
from stages.common.tracking.store import client_of, quiet

MODEL, METRICS, PREDICTIONS = "models/finetuned", "reports/metrics.json", "data/predictions.parquet"
SECONDS = 8.0  # MLflow takes up to three of them to import


@dataclass(frozen=True)
class Environments:
    """Where two models were trained, as their runs in MLflow say; empty: nobody has recorded it."""

    recorded: Mapping[str, str]
    rebuilt: Mapping[str, str]

    @property
    def known(self) -> bool:
        """Whether both trainings name their hardware (an earlier Attune noted threads alone)."""
        return "processor" in self.recorded and "processor" in self.rebuilt

    @property
    def changes(self) -> tuple[EnvironmentChange, ...]:
        """What differs, packages included."""
        return tuple(
            EnvironmentChange(name, self.recorded.get(name, "none"), self.rebuilt.get(name, "none"))
            for name in dict.fromkeys([*self.recorded, *self.rebuilt])
            if self.known and self.recorded.get(name) != self.rebuilt.get(name)
        )

    @property
    def same_hardware(self) -> bool:
        """Whether both name the same hardware, where the same training gives the same bytes."""
        return self.known and not any(change.name in HARDWARE for change in self.changes)


@dataclass(frozen=True)
class Tolerance:
    """Whether other bytes of a trained model, and of all that is made with it, count as equal.

    Args:
        against: why they do not, in a few words; nothing: they do.
        sentence: what is asked for, and what was found.
        agreement: share of test rows with the same prediction; None: they cannot be compared.
    """

    against: str
    sentence: str
    agreement: float | None


def recorded_environment(model: str, store: str | None, root: Any) -> dict[str, str]:
    """Return what a model was trained on: by the notes of a checkout, else by its run in MLflow; nothing if unknown.

    Args:
        model: digest of the model.
        store: address of MLflow's store; None: it is not asked.
        root: the checkout.
    """
    noted = environment_of(training_tags(model, root))
    if noted or not store or not model:
        return noted

    def ask() -> dict[str, str]:
        check_there(store)
        with quiet():
            client = client_of(store)
            everywhere = [one.experiment_id for one in client.search_experiments()]
            runs = client.search_runs(everywhere, filter_string=f"tags.`{MODEL_TAG}` = '{model}'", max_results=1)
            return environment_of(runs[0].data.tags) if runs else {}

    try:
        return within(SECONDS, ask)
    except Exception:  # of whatever kind: then nothing is known, and the review says so
        return {}


def model_of(revision: Revision) -> str:
    """Return the digest of a revision's model, by its scores."""
    model = revision.report(METRICS).get("model")
    digest = model.get("digest") if isinstance(model, Mapping) else None
    return digest if isinstance(digest, str) and DIGEST.fullmatch(digest) else ""


def trained_stages(graph: Mapping[str, Node]) -> frozenset[str]:
    """Return the stage that writes the trained model, and all that need it: bytes may differ there alone."""
    trainer = next((name for name, node in graph.items() if MODEL in node.outs), None)
    return frozenset(name for name, node in graph.items() if name == trainer or trainer in upstream_of(node, graph))


def tolerance_of(
    recorded: Revision, rebuilt: Revision, environments: Environments, min_agreement: float, first: str
) -> Tolerance:
    """Judge whether two trained models are the same but for the machine.

    Args:
        recorded: the revision as its commit has it.
        rebuilt: the same, made again.
        environments: where each was trained.
        min_agreement: least share of test rows with the same prediction.
        first: the stage that trains.
    """
    against = []
    if environments.same_hardware:
        against.append("both were trained on the same hardware, where the same training gives the same bytes")
    agreeing, rows = _agreement(recorded, rebuilt)
    agreement = agreeing / rows if rows else None
    if agreement is None:
        against.append("the predictions cannot be compared")
    elif agreement < min_agreement:
        against.append(f"only {agreeing:,} of {rows:,} test rows get the same prediction")
    before, now = recorded.report(METRICS), rebuilt.report(METRICS)
    found = [f"here {agreeing:,} of {rows:,} do ({agreeing / rows:.2%})"] if rows else []
    for name, key in SCORES.items():
        bounds = [before.get(f"{key}_low"), now.get(key), before.get(f"{key}_high")]
        numbers = [float(one) for one in bounds if isinstance(one, int | float)]
        if len(numbers) < len(bounds):
            against.append(f"there is no {name} with an interval to compare")
            continue
        low, value, high = numbers
        inside = low <= value <= high
        found.append(f"{name} {value:.4f} is {'' if inside else 'not '}within [{low:.4f}, {high:.4f}]")
        against += [] if inside else [found[-1]]
    unknown = "" if environments.known else " Which hardware it was trained on is not recorded in MLflow for both."
    return Tolerance(
        "; ".join(against),
        f"Other bytes from {first} on count as equal where the model was trained on other hardware, at least "
        f"{100 * min_agreement:g}% of the test rows get the same prediction, and the rebuilt scores lie within the "
        f"recorded intervals: {', '.join(found) or 'nothing can be compared'}.{unknown}",
        agreement,
    )


def _agreement(recorded: Revision, rebuilt: Revision) -> tuple[int, int]:
    """Return how many test rows get the same prediction, and of how many; of none if they are not the same rows."""
    old, new = recorded.table(PREDICTIONS), rebuilt.table(PREDICTIONS)
    if old is None or new is None or any(old.schema.get(name) != new.schema.get(name) for name in ("id", "prediction")):
        return 0, 0
    if "id" not in old.columns or old["id"].sort().to_list() != new["id"].sort().to_list():
        return 0, 0
    both = old.sort("id")["prediction"].eq_missing(new.sort("id")["prediction"])
    return int(both.sum()), old.height
