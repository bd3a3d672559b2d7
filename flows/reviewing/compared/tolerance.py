"""When a model with other bytes is the same model: on another kind of machine, with the same answers and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.reviewing.findings import EnvironmentChange
from flows.reviewing.revision import Revision
from stages.common.environment import RECORD, flat
from stages.common.graph import Node, upstream_of

MODEL = "models/finetuned"
METRICS = "reports/metrics.json"
PREDICTIONS = "data/predictions.parquet"
SCORES = ("accuracy", "macro_f1")  # each with its interval in the report


@dataclass(frozen=True)
class Environments:
    """Where two models were trained.

    Args:
        known: whether both records say so.
        changes: what differs; all that stands in the record can change bytes.
    """

    known: bool
    changes: tuple[EnvironmentChange, ...] = ()


@dataclass(frozen=True)
class Tolerance:
    """Whether other bytes of a trained model, and of all that is made with it, may pass.

    Args:
        against: why they may not, in a few words; nothing: they may.
        sentence: what is asked for, and what was found.
        agreement: share of test rows with the same prediction; None: they cannot be compared.
    """

    against: str
    sentence: str
    agreement: float | None


def trained_stages(graph: Mapping[str, Node]) -> frozenset[str]:
    """Return the stage that writes the trained model, and all that need it: bytes may differ there alone."""
    trainer = next((name for name, node in graph.items() if MODEL in node.outs), None)
    return frozenset(name for name, node in graph.items() if name == trainer or trainer in upstream_of(node, graph))


def environments_of(recorded: Revision, rebuilt: Revision) -> Environments:
    """Return what the records of two trainings say of their machines."""
    reports = recorded.report(RECORD), rebuilt.report(RECORD)
    if not all(reports):
        return Environments(known=False)
    before, now = map(flat, reports)
    changes = (
        EnvironmentChange(name, before.get(name, "none"), now.get(name, "none"))
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    )
    return Environments(True, tuple(changes))


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
    if not environments.known:
        against.append(f"the record does not say on what kind of machine it was trained (no {RECORD})")
    elif not environments.changes:
        against.append("the machine is of the same kind, where the same training gives the same bytes")
    agreeing, rows = _agreement(recorded, rebuilt)
    agreement = agreeing / rows if rows else None
    share = f"{agreeing:,} of {rows:,} test rows ({agreeing / rows:.2%})" if rows else ""
    if agreement is None:
        against.append("the predictions cannot be compared")
    elif not agreement >= min_agreement:
        against.append(f"only {share} get the same prediction")
    scores, outside = _scores(recorded, rebuilt)
    against += outside
    found = [f"here {share} do"] if share else []
    return Tolerance(
        "; ".join(against),
        f"Other bytes from {first} on count as equal where the model was trained on another kind of machine, at least "
        f"{100 * min_agreement:g}% of the test rows get the same prediction, and {' and '.join(SCORES)} lie within the "
        f"recorded intervals: {', '.join([*found, *scores]) or 'neither can be held against the record here'}.",
        agreement,
    )


def _agreement(recorded: Revision, rebuilt: Revision) -> tuple[int, int]:
    """Return how many test rows get the same prediction, and of how many; of none if they are not the same rows."""
    old, new = recorded.table(PREDICTIONS), rebuilt.table(PREDICTIONS)
    if old is None or new is None or not {"id", "prediction"} <= {*old.columns} & {*new.columns}:
        return 0, 0
    if old["id"].dtype != new["id"].dtype or old["id"].sort().to_list() != new["id"].sort().to_list():
        return 0, 0
    both = old.sort("id")["prediction"].eq_missing(new.sort("id")["prediction"])
    return int(both.sum()), old.height


def _scores(recorded: Revision, rebuilt: Revision) -> tuple[Sequence[str], Sequence[str]]:
    """Return where each score lies, and what speaks against it."""
    before, now = recorded.report(METRICS), rebuilt.report(METRICS)
    told, against = [], []
    for name in SCORES:
        low, high, value = before.get(f"{name}_low"), before.get(f"{name}_high"), now.get(name)
        if not all(isinstance(number, int | float) for number in (low, high, value)):
            against.append(f"there is no {name} with an interval to compare")
            continue
        inside = low <= value <= high  # type: ignore[operator]
        line = f"{name} {value:.4f} is {'in' if inside else 'outside of'} [{low:.4f}, {high:.4f}]"
        told.append(line)
        if not inside:
            against.append(line)
    return told, against
