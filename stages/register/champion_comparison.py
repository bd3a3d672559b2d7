"""The gate that needs the registry: a model and the champion on the same test rows."""

import tempfile
from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.common.params import RegisterParams
from stages.common.params.register import ChampionGate
from stages.common.pipeline.stage import Run
from stages.common.schemas import CleanRecords, Predictions
from stages.register.gates import Verdict, failed, gain_of, limited
from stages.serving.backends import Package, Predictor
from stages.tasks import load_task, read_decision
from stages.tasks.bootstrap import gains, mcnemar, scores_of
from stages.tasks.inference import labels_of
from stages.tracking.package import fetch_package, fetch_seen_ids
from stages.tracking.registry import champion, demotion
from stages.tracking.runs import MODEL_TAG
from stages.tracking.store import connect, reason_of, warn

MIN_ROWS = 30  # fewer rows compare nothing


def compare_with_champion(run: Run[RegisterParams], digest: str, package: Package) -> tuple[list[Verdict], int | None]:
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
                theirs = fetch_package(name, str(current.version), Path(folder))
                seen_ids = fetch_seen_ids(client, current, Path(folder))
            except Exception as error:  # the files of a champion may be gone: nobody may be compared with it for ever
                fix = "put them back, or set gates.champion: null once; then `make register`"
                verdicts.append(failed("champion", f"{reason_of(error)}; {fix}"))
            else:
                verdicts.append(_on_the_same_rows(run, gate, package, theirs, seen_ids))
    elif gate:
        none = f"no other champion to compare {run.all_params.champion_metric} with"
        reason = "its weights are the champion's own" if current else none
        verdicts.append(Verdict("champion", None, None, True, reason))
    return verdicts, int(current.version) if current else None


def _on_the_same_rows(
    run: Run[RegisterParams], gate: ChampionGate, package: Package, champion: Package, seen_ids: set[str]
) -> Verdict:
    """Score both models on the test rows that the champion has not seen, and compare."""
    params, task = run.all_params, load_task(run.all_params.task)
    bootstrap = params.evaluate.bootstrap
    predictor = Predictor(champion, "torch", task=task.name)
    if predictor.task.name != task.name or set(labels_of(champion.model)) != set(labels_of(package.model)):
        fix = "give this model its own register.model_name, or set gates.champion: null"
        return failed("champion", f"the champion has another task or other labels; {fix}")
    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    rows = test.filter(~pl.col("id").is_in(list(seen_ids)))
    if rows.height < MIN_ROWS:
        fix = "a larger clean.split.test gives more; else keep seed and split, or set gates.champion: null once"
        unseen = f"{rows.height} of the {test.height} test rows were not seen by the champion"
        return failed("champion", f"{unseen}, and a comparison needs {MIN_ROWS}; {fix}")
    ours = Predictions.read(run.input("data/predictions.parquet")).drop("label")
    rows = rows.join(ours, on="id", maintain_order="left")
    theirs = pl.DataFrame(task.decide(predictor.outputs(*task.asked(rows)), predictor.decision))
    if package.serving:
        theirs = task.spoken(champion.model, rows, theirs, read_decision(package.serving))
    own, other = (task.evidence(rows, some, labels_of(package.model)) for some in (rows, theirs))
    name = params.champion_metric
    if why := task.comparable(rows, theirs, name):
        return failed("champion", f"{name} cannot be compared: {why} (register.gates.champion.metric)")
    score = params.spec.score(name)
    value, champion_value = (scores_of(evidence)[name] for evidence in (own, other))
    compared = gains(own, other, params.spec.scores, bootstrap, run.seed)
    compared |= mcnemar(task.is_correct(rows, rows), task.is_correct(rows, theirs))
    gain = gain_of(compared, name, bootstrap.confidence)
    basis = f"(champion {champion_value:.4f} on the {rows.height} test rows that it was not trained on): {gain}"
    if gate.significant:
        low, limit = compared[f"{name}_gain_low"], -gate.allowed_drop or 0.0
        passed = low > limit
        reason = f"{name} {value:.4f}: the interval of the difference is {'' if passed else 'not '}all above"
        return Verdict("champion", low, limit, passed, f"{reason} {limit:g} {basis}")
    limit = round(champion_value - gate.allowed_drop * (1 if score.greater_is_better else -1), 6)
    verdict = limited("champion", value, limit, name, most=not score.greater_is_better)
    return replace(verdict, reason=f"{verdict.reason} {basis}")
