"""The gate that needs the registry: a model beside the one in use, on the same test rows."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common.params import RegisterParams
from stages.common.params.register import ChampionGate
from stages.common.schemas import CleanRecords, Predictions
from stages.common.serving.classifier import Package
from stages.common.stage import Run
from stages.register.gates import Verdict, gain_of
from stages.tasks import load_task

BATCH = 64
MIN_ROWS = 30  # fewer rows compare nothing


@dataclass(frozen=True)
class Beside:
    """What the registry has to say of a model.

    Args:
        verdicts: of the gates that need the registry.
        seen: number of the version in use that it was compared with; None: there is none.
        in_use: whether that is this very model.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    seen: int | None = None
    in_use: bool = False


def judge_beside_champion(run: Run[RegisterParams], package: Package, digest: str, labels: list[str]) -> Beside:
    """Judge a model by who is champion, and by what became of this very model before.

    Args:
        run: of the stage.
        package: the model with all its parts.
        digest: of the model's files.
        labels: that the model predicts.
    """
    from stages.common.tracking import champions
    from stages.common.tracking.packaging import package_digest
    from stages.common.tracking.registry import is_same
    from stages.common.tracking.runs import MODEL_TAG
    from stages.common.tracking.store import connect, warn

    name, gate = run.params.model_name, run.params.gates.champion
    with tempfile.TemporaryDirectory() as folder:
        try:
            client = connect()
            current = champions.champion(client, name)
            rolled_back = champions.demotion(client, name, digest)
            own_weights = current is not None and current.tags.get(MODEL_TAG) == digest
            fetched = _fetch(client, name, current, Path(folder)) if gate and current and not own_weights else None
        except Exception as error:  # a broken store must not cost the verdicts of the other gates
            warn(error)
            return Beside([unknown_champion()])
        verdicts = [not_rolled_back(*rolled_back)] if rolled_back else []
        if gate and fetched:
            verdicts.append(_on_the_same_rows(run, gate, *fetched, labels))
        elif gate and current:
            verdicts.append(Verdict("champion", None, None, True, "its weights are the champion's own"))
        elif gate:
            verdicts.append(no_other_champion(gate))
    seen = int(current.version) if current is not None else None
    return Beside(verdicts, seen, current is not None and is_same(current, digest, package_digest(package)))


def _fetch(client: Any, name: str, current: Any, folder: Path) -> tuple[Path, set[str]]:
    """Return the champion's folder, and the ids of the rows that it was trained or selected on."""
    from stages.common.tracking.champions import CHAMPION
    from stages.common.tracking.packaging import fetch_model, fetch_seen_ids

    return fetch_model(name, CHAMPION, folder), fetch_seen_ids(client, current, folder)


def _on_the_same_rows(
    run: Run[RegisterParams], gate: ChampionGate, model: Path, seen: set[str], labels: list[str]
) -> Verdict:
    """Score champion and challenger on the test rows that neither has seen, and compare."""
    import polars as pl

    task = load_task(run.all_params.task)
    champion_labels = task.labels_of(model)
    if set(champion_labels) != set(labels):
        return other_labels()
    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    fresh = test.filter(~pl.col("id").is_in(list(seen)))
    if fresh.height < MIN_ROWS:
        return too_few_fresh_rows(fresh.height, test.height, MIN_ROWS)
    theirs = [champion_labels[at] for at in task.probabilities(model, fresh, BATCH).argmax(axis=1)]
    mine = fresh.join(Predictions.read(run.input("data/predictions.parquet")), on="id", maintain_order="left")
    return against_champion(run, gate, labels, fresh["label"].to_list(), mine["prediction"].to_list(), theirs)


def against_champion(
    run: Run[RegisterParams],
    gate: ChampionGate,
    labels: list[str],
    actual: Sequence[str],
    ours: Sequence[str],
    theirs: Sequence[str],
) -> Verdict:
    """Judge a model beside the champion by what both predict for the same rows, which neither was trained on."""
    from stages.tasks.comparison import compare
    from stages.tasks.scores import class_numbers

    rows, mine, their = (class_numbers(column, labels) for column in (actual, ours, theirs))
    task, bootstrap = load_task(run.all_params.task), run.all_params.evaluate.bootstrap
    value, champion = (task.scores(rows, chosen, len(labels))[gate.metric] for chosen in (mine, their))
    compared = compare(rows, mine, their, len(labels), bootstrap, run.seed)
    gain = gain_of(compared, gate.metric, bootstrap.confidence)
    told = f"(champion {champion:.4f} on the {len(actual)} test rows that it was not trained on): {gain}"
    if gate.significant:
        low, limit = compared[f"{gate.metric}_gain_low"], -gate.allowed_drop or 0.0
        passed = low > limit
        reason = f"{gate.metric} {value:.4f}: the interval of the difference is {'' if passed else 'not '}all above"
        return Verdict("champion", low, limit, passed, f"{reason} {limit:g} {told}")
    limit = round(champion - gate.allowed_drop, 6)
    passed = value >= limit
    reason = f"{gate.metric} {value:.4f} is {'at least' if passed else 'under'} {limit:.4f}"
    return Verdict("champion", value, limit, passed, f"{reason} {told}")


def no_other_champion(gate: ChampionGate) -> Verdict:
    """Judge a model where no other one is in use."""
    return Verdict("champion", None, None, True, f"no other champion to compare {gate.metric} with")


def unknown_champion() -> Verdict:
    """Judge a model where the registry does not answer: not promoted, since nobody knows what it would replace."""
    return Verdict("champion", None, None, False, "the registry cannot be reached; run `make register` when it can")


def other_labels() -> Verdict:
    """Judge a model whose champion predicts other labels."""
    reason = "the champion has other labels; give this model its own register.model_name, or set gates.champion: null"
    return Verdict("champion", None, None, False, reason)


def too_few_fresh_rows(fresh: int, rows: int, needed: int) -> Verdict:
    """Judge a model where there are too few test rows, or the champion was trained on nearly all of them."""
    if fresh == rows:
        reason = f"there are {rows} test rows, and a comparison with the champion needs {needed}"
        reason += "; raise clean.split.test, or set gates.champion: null"
    else:
        reason = f"the champion has seen all but {fresh} of the {rows} test rows, and a comparison needs {needed}"
        reason += "; keep the seed and the split, or set gates.champion: null once"
    return Verdict("champion", None, None, False, reason)


def not_rolled_back(version: int, why: str) -> Verdict:
    """Judge a model that was taken out of use: it does not come back by itself."""
    reason = f"this same model, version {version}, was rolled back ({why}); to use it again: "
    reason += f"make rollback ARGS='--to {version}'"
    return Verdict("not rolled back", None, None, False, reason)


def overtaken() -> Verdict:
    """Judge a model that found another champion each time it was to be promoted."""
    reason = "another model was promoted meanwhile; run `make register` to be judged against that one"
    return Verdict("promotion", None, None, False, reason)


def not_recorded() -> Verdict:
    """Judge a model that passed, but that the registry could not take in."""
    reason = "the registry broke off while the model was promoted; run `make register` when it can be reached"
    return Verdict("promotion", None, None, False, reason)
