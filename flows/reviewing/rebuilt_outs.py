"""Every out of a rebuild compared with `dvc.lock`; trained on other hardware, a model may have other bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from flows.model_versions.versions import run_of
from flows.reporting.reports import SCORES
from flows.reporting.timeouts import within
from flows.reviewing.effect import PREDICTIONS
from flows.reviewing.file_differences import difference
from flows.reviewing.findings import OutCheck, Rebuild
from flows.reviewing.recorded_scores import METRICS
from flows.reviewing.revision import Revision
from stages.common.environment import HARDWARE, environment_of
from stages.common.pipeline.graph import Node, upstream_of
from stages.tracking.runs import training_tags
from stages.tracking.store import client_of, quiet

MODEL = "models/finetuned"
SECONDS = 8.0  # MLflow takes up to three of them to import

Machine = Mapping[str, str]  # what a model was trained on, by name; empty: nobody has recorded it


def recorded_machine(revision: Revision, store: str | None, root: Path) -> Machine:
    """Return what the model that a revision's scores name was trained on.

    By the notes of a checkout, else by its run in MLflow, if there is a store.
    """
    model = (revision.report(METRICS).get("model") or {}).get("digest")

    def ask(store: str) -> Machine:
        with quiet():
            run = run_of(client_of(store), str(model))
            return environment_of(run.data.tags) if run else {}

    noted = environment_of(training_tags(str(model), root))
    if noted or not store or not model:
        return noted
    try:
        return within(SECONDS, lambda: ask(store))
    except Exception:  # of whatever kind: then nothing is known, and the review says so
        return {}


def compare_outs(
    recorded: Revision, rebuilt: Revision, machines: tuple[Machine, Machine], min_agreement: float
) -> Rebuild:
    """Compare every out of a rebuild with the recorded one; `machines`: where each was trained.

    Other bytes of a model count as equal if at least `min_agreement` of the test rows have the same prediction.
    """
    was, now = machines
    known = "processor" in was and "processor" in now
    environment = tuple(
        (name, was.get(name, "none"), now.get(name, "none"))
        for name in dict.fromkeys([*was, *now])
        if known and was.get(name) != now.get(name)
    )
    same_hardware = known and not any(name in HARDWARE for name, _, _ in environment)
    hashes = [
        (stage, path, old.get(path), new.get(path))
        for stage in dict.fromkeys([*rebuilt.graph, *recorded.lock])
        for old, new in [(recorded.hashes(stage, "outs"), rebuilt.hashes(stage, "outs"))]
        for path in sorted({*old, *new})
    ]
    trained = trained_stages(rebuilt.graph)
    against, tolerance = "", ""
    if any(before and after and before != after for stage, _, before, after in hashes if stage in trained):
        against, tolerance = _tolerance(recorded, rebuilt, min_agreement)
        tolerance += "" if known else "; on which hardware each was trained is not known"
        if same_hardware:
            against = "the hardware is the same, where the same training gives the same bytes"
    outs = []
    for stage, path, before, after in hashes:
        tolerated = stage in trained and before and after and not against
        how = "" if before == after else difference(recorded.folder / path, rebuilt.folder / path)
        outs.append(
            OutCheck(stage, path, "identical" if before == after else "equal" if tolerated else "different", how)
        )
    first, how = "", ""
    if bad := [out for out in outs if out.verdict == "different"]:
        worst = next((out for out in bad if out.stage == bad[0].stage and out.path == MODEL), bad[0])
        first, how = (
            worst.stage,
            f"{worst.path}: {worst.how}{f'; {against}' if against and worst.path == MODEL else ''}",
        )
    equal = any(out.verdict == "equal" for out in outs)
    verdict: Literal["different", "equal", "identical"] = "different" if bad else "equal" if equal else "identical"
    return Rebuild(verdict, first, how, tuple(outs), tolerance=tolerance, environment=environment)


def trained_stages(graph: Mapping[str, Node]) -> frozenset[str]:
    """Return the stage that writes the trained model, and all that need it: bytes may differ there alone."""
    trainer = next((name for name, node in graph.items() if MODEL in node.outs), None)
    return frozenset(name for name, node in graph.items() if name == trainer or trainer in upstream_of(node, graph))


def _tolerance(recorded: Revision, rebuilt: Revision, min_agreement: float) -> tuple[str, str]:
    """Return why two models are not the same but for the machine (nothing: they are), and what was found."""
    agreeing, rows = _agreement(recorded, rebuilt)
    found = [f"{agreeing:,} of {rows:,} predictions are the same"]
    against = [] if rows and agreeing >= min_agreement * rows else [f"only {found[0]}"]
    before, now = recorded.report(METRICS), rebuilt.report(METRICS)
    for name, key in SCORES.items():
        try:
            low, value, high = before[f"{key}_low"], now[key], before[f"{key}_high"]
            inside = low <= value <= high
            found.append(f"{name} {value:.4f} is {'' if inside else 'not '}within [{low:.4f}, {high:.4f}]")
        except (KeyError, TypeError, ValueError):
            inside = False
            found.append(f"there is no {name} with an interval to compare")
        against += [] if inside else [found[-1]]
    asked = f"at least {100 * min_agreement:g} % of the test predictions are the same"
    return "; ".join(against), (
        f"Other bytes of a trained model count as equal on other hardware, if {asked} and the scores lie within the "
        f"recorded intervals: {', '.join(found)}"
    )


def _agreement(recorded: Revision, rebuilt: Revision) -> tuple[int, int]:
    """Return how many test rows get the same prediction, and of how many; of none if they are not the same rows."""
    tables = [revision.table(PREDICTIONS) for revision in (recorded, rebuilt)]
    old, new = (None if one is None or not {"id", "prediction"} <= set(one.columns) else one for one in tables)
    if old is None or new is None or sorted(old["id"]) != sorted(new["id"]):
        return 0, 0
    both = old.sort("id")["prediction"] == new.sort("id")["prediction"]
    return int(both.sum()), len(both)
