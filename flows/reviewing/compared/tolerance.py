"""When a model with other bytes is the same model: on another kind of machine, with the same answers and scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import polars as pl

from flows.reviewing.compared.closeness import SENTENCE as CLOSENESS
from flows.reviewing.compared.closeness import Slack, json_apart, table_apart
from flows.reviewing.compared.file_differences import difference, read_json
from flows.reviewing.compared.recorded_metrics import SCORES, metrics_against
from flows.reviewing.compared.recorded_model import EXPORT, EXPORTED, MODEL, PREDICTIONS, SERVING, model_against
from flows.reviewing.compared.tables import read_parquet
from flows.reviewing.findings import EnvironmentChange
from flows.reviewing.revision import Revision
from stages.common.digests import sha256_path
from stages.common.environment import RECORD, flat
from stages.common.graph import Node, upstream_of
from stages.common.serving.classifier import FILES

BY_CLOCK = ("offered", "faster", "reason", "bytes", "sha256", "largest_difference")  # of an export: none where slow
LEAST_ROWS = 2  # that may get another prediction as far as counts in reports go


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
        against: why none may, in a few words; nothing: they may.
        files: why one out may not, by its path: what is recorded there is not what the model here makes of it.
        sentence: what is asked for, and what was found.
        agreement: share of test rows with the same prediction; None: they cannot be compared.
        slack: what numbers in reports may differ in.
    """

    against: str
    files: Mapping[str, str]
    sentence: str
    agreement: float | None
    slack: Slack


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
    slack = Slack(max(LEAST_ROWS, ceil((1 - min_agreement) * rows)), min_agreement, _digests(recorded.folder))
    scores, files = metrics_against(recorded, rebuilt)
    if not against:
        files = {**model_against(recorded, rebuilt, slack), **files}
    for path, told in list(files.items()):
        # of a file that is right, it is the predictions that are not
        if not difference(recorded.folder / path, rebuilt.folder / path):
            files.setdefault(PREDICTIONS, f"{path}: {told}")
    found = [f"here {share} do"] if share else []
    return Tolerance(
        "; ".join(against),
        files,
        f"Other bytes from {first} on count as equal where the model was trained on another kind of machine, at least "
        f"{100 * min_agreement:g}% of the test rows get the same prediction, the recorded model, asked here, gives the "
        f"recorded predictions in each of its forms, {' and '.join(SCORES)} are those of the recorded predictions and "
        f"lie within both intervals, and {CLOSENESS}: "
        f"{', '.join([*found, *scores]) or 'nothing can be held against it'}.",
        agreement,
        slack,
    )


def content_apart(path: str, old: Path, new: Path, slack: Slack) -> str:
    """Return what of an out that a trained model made is not close to the rebuilt one; nothing if all is.

    The model itself, in all its forms, and its predictions are no matter of closeness: `Tolerance.files` has them.
    """
    if path in (MODEL, EXPORTED, SERVING, PREDICTIONS):
        return ""
    try:
        if old.suffix == ".json":
            return json_apart(read_json(old), read_json(new), slack, BY_CLOCK if path == EXPORT else ())
        if old.suffix == ".csv":
            return table_apart(pl.read_csv(old), pl.read_csv(new), slack)
        if old.suffix == ".parquet":
            return table_apart(read_parquet(old), read_parquet(new), slack)
    except (Exception, pl.exceptions.PanicException):  # of a file that was tampered with, anything
        return "it cannot be read"
    return "there is no rule by which other bytes of it may pass"


def _agreement(recorded: Revision, rebuilt: Revision) -> tuple[int, int]:
    """Return how many test rows get the same prediction, and of how many; of none if they are not the same rows."""
    old, new = recorded.table(PREDICTIONS), rebuilt.table(PREDICTIONS)
    if old is None or new is None:
        return 0, 0
    if any(name not in new.columns or old.schema.get(name) != new.schema[name] for name in ("id", "prediction")):
        return 0, 0
    if old["id"].sort().to_list() != new["id"].sort().to_list():
        return 0, 0
    both = old.sort("id")["prediction"].eq_missing(new.sort("id")["prediction"])
    return int(both.sum()), old.height


def _digests(folder: Path) -> frozenset[str]:
    """Return the SHA-256 of the recorded model's parts, as reports name them."""
    parts = [folder / part for part in (MODEL, SERVING)]
    exported = [file for name in FILES.values() if (file := folder / EXPORTED / name).is_file()]
    return frozenset(sha256_path(path) for path in (*parts, *exported) if path.exists())
