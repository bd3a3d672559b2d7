"""When a model with other bytes is the same model: trained on other hardware, with the same predictions and scores."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.reviewing.findings import EnvironmentChange
from flows.reviewing.revision import Revision
from flows.told.deadline import within
from flows.told.reports import SCORES
from stages.common.environment import HARDWARE, environment_of
from stages.common.tracking.runs import MODEL_TAG, training_tags
from stages.common.tracking.store import client_of, quiet

METRICS, PREDICTIONS = "reports/metrics.json", "data/predictions.parquet"
DIGEST = re.compile("[0-9a-f]{64}")
SECONDS = 8.0  # MLflow takes up to three of them to import


@dataclass(frozen=True)
class Environments:
    """Where two models were trained, as their runs in MLflow say; empty: nobody has recorded it."""

    recorded: Mapping[str, str]
    rebuilt: Mapping[str, str]

    @property
    def known(self) -> bool:
        """Whether both trainings name their hardware."""
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
        against: why they do not; nothing: they do.
        sentence: what is asked for, and what was found.
    """

    against: str
    sentence: str


def recorded_environment(revision: Revision, store: str | None, root: Path) -> dict[str, str]:
    """Return what a revision's model was trained on: by the notes of a checkout, else by its run in MLflow.

    Args:
        revision: with its scores, which name the model.
        store: address of MLflow's store; None: it is not asked.
        root: the checkout.
    """
    model = (revision.report(METRICS).get("model") or {}).get("digest", "")
    if not DIGEST.fullmatch(model):
        return {}

    def ask(store: str) -> dict[str, str]:
        with quiet():
            client = client_of(store)
            everywhere = [one.experiment_id for one in client.search_experiments()]
            runs = client.search_runs(everywhere, filter_string=f"tags.`{MODEL_TAG}` = '{model}'", max_results=1)
            return environment_of(runs[0].data.tags) if runs else {}

    noted = environment_of(training_tags(model, root))
    if noted or not store:
        return noted
    try:
        return within(SECONDS, lambda: ask(store))
    except Exception:  # of whatever kind: then nothing is known, and the review says so
        return {}


def tolerance_of(recorded: Revision, rebuilt: Revision, environments: Environments, min_agreement: float) -> Tolerance:
    """Judge whether two trained models are the same but for the machine.

    Args:
        recorded: the revision as its commit has it.
        rebuilt: the same, made again.
        environments: where each was trained.
        min_agreement: least share of test rows with the same prediction.
    """
    against = ["the hardware is the same, where the same training gives the same bytes"] * environments.same_hardware
    agreeing, rows = _agreement(recorded, rebuilt)
    found = [f"{agreeing:,} of {rows:,} predictions are the same"]
    if agreeing < min_agreement * rows or not rows:
        against.append(f"only {found[0]}" if rows else "the predictions cannot be compared")
    before, now = recorded.report(METRICS), rebuilt.report(METRICS)
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
    unknown = "" if environments.known else ". Which hardware it was trained on is not recorded in MLflow for both"
    asked = f"at least {100 * min_agreement:g} % of the test predictions are the same"
    return Tolerance(
        "; ".join(against),
        f"Other bytes of a trained model count as equal on other hardware, if {asked} and the scores lie within the "
        f"recorded intervals: {', '.join(found)}{unknown}",
    )


def _agreement(recorded: Revision, rebuilt: Revision) -> tuple[int, int]:
    """Return how many test rows get the same prediction, and of how many; of none if they are not the same rows."""
    old, new = recorded.table(PREDICTIONS), rebuilt.table(PREDICTIONS)
    if old is None or new is None or old.schema != new.schema or not {"id", "prediction"} <= set(old.columns):
        return 0, 0
    old, new = old.sort("id"), new.sort("id")
    if old["id"].to_list() != new["id"].to_list():
        return 0, 0
    return int(old["prediction"].eq_missing(new["prediction"]).sum()), old.height
