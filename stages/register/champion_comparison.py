"""The gate that needs the registry: a model and the champion on the same test rows."""

import tempfile
from pathlib import Path

import polars as pl

from stages.common.params import RegisterParams
from stages.common.params.register import ChampionGate
from stages.common.pipeline.stage import Run
from stages.common.schemas import CleanRecords, Predictions
from stages.register.gates import Verdict, failed, gain_of
from stages.tasks import load_task
from stages.tasks.bootstrap import class_numbers, compare
from stages.tasks.inference import labels_of
from stages.tracking.package import fetch_package, fetch_seen_ids
from stages.tracking.registry import champion, demotion
from stages.tracking.runs import MODEL_TAG
from stages.tracking.store import connect, reason_of, warn

BATCH = 64
MIN_ROWS = 30  # fewer rows compare nothing


def compare_with_champion(run: Run[RegisterParams], digest: str, labels: list[str]) -> tuple[list[Verdict], int | None]:
    """Judge a model (by the digest of its files) by the champion, and by whether this very model was rolled back.

    Returns:
        Verdicts, and the number of the version in use; None: there is none.
    """
    name, gate = run.params.model_name, run.params.gates.champion
    try:
        client = connect()
        current, rolled_back = champion(client, name), demotion(client, name, digest)
    except Exception as error:  # a broken store must not cost the verdicts of the other gates
        warn(error)  # what the model would replace is not known, so it is not promoted
        return [failed("champion", "the registry cannot be asked; run `make register` when it can")], None
    verdicts = []
    if rolled_back:
        version, why = rolled_back
        reason = f"this same model, version {version}, was rolled back ({why}); to use it again: "
        verdicts.append(failed("not rolled back", f"{reason}make rollback ARGS='--to {version}'"))
    if gate and current and current.tags.get(MODEL_TAG) != digest:
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = fetch_package(name, str(current.version), Path(folder)).model
                seen_ids = fetch_seen_ids(client, current, Path(folder))
            except Exception as error:  # the files of a champion may be gone: nobody may be compared with it for ever
                fix = "put them back, or set gates.champion: null once; then `make register`"
                verdicts.append(failed("champion", f"{reason_of(error)}; {fix}"))
            else:
                verdicts.append(_on_the_same_rows(run, gate, model, seen_ids, labels))
    elif gate:
        none = f"no other champion to compare {gate.metric} with"
        reason = "its weights are the champion's own" if current else none
        verdicts.append(Verdict("champion", None, None, True, reason))
    return verdicts, int(current.version) if current else None


def _on_the_same_rows(
    run: Run[RegisterParams], gate: ChampionGate, champion_model: Path, seen_ids: set[str], labels: list[str]
) -> Verdict:
    """Score both models on the test rows that the champion has not seen, and compare."""
    task, bootstrap = load_task(run.all_params.task), run.all_params.evaluate.bootstrap
    champion_labels = labels_of(champion_model)
    if set(champion_labels) != set(labels):
        fix = "give this model its own register.model_name, or set gates.champion: null"
        return failed("champion", f"the champion has other labels; {fix}")
    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    rows = test.filter(~pl.col("id").is_in(list(seen_ids)))
    if rows.height < MIN_ROWS:
        fix = "a larger clean.split.test gives more; else keep seed and split, or set gates.champion: null once"
        unseen = f"{rows.height} of the {test.height} test rows were not seen by the champion"
        return failed("champion", f"{unseen}, and a comparison needs {MIN_ROWS}; {fix}")
    rows = rows.join(Predictions.read(run.input("data/predictions.parquet")), on="id", maintain_order="left")
    highest = task.probabilities(champion_model, rows, BATCH).argmax(axis=1)
    columns = (rows["label"].to_list(), rows["prediction"].to_list(), [champion_labels[index] for index in highest])
    actual, ours, theirs = (class_numbers(column, labels) for column in columns)
    score, champion_score = (task.scores(actual, some, len(labels))[gate.metric] for some in (ours, theirs))
    compared = compare(actual, ours, theirs, len(labels), bootstrap, run.seed)
    gain = gain_of(compared, gate.metric, bootstrap.confidence)
    basis = f"(champion {champion_score:.4f} on the {rows.height} test rows that it was not trained on): {gain}"
    if gate.significant:
        low, limit = compared[f"{gate.metric}_gain_low"], -gate.allowed_drop or 0.0
        passed = low > limit
        reason = f"{gate.metric} {score:.4f}: the interval of the difference is {'' if passed else 'not '}all above"
        return Verdict("champion", low, limit, passed, f"{reason} {limit:g} {basis}")
    limit = round(champion_score - gate.allowed_drop, 6)
    passed = score >= limit
    reason = f"{gate.metric} {score:.4f} is {'at least' if passed else 'under'} {limit:.4f}"
    return Verdict("champion", score, limit, passed, f"{reason} {basis}")
