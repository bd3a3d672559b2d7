"""The gate that needs the registry: a model beside the one in use, on the same test rows."""

import tempfile
from pathlib import Path

from stages.common.params import RegisterParams
from stages.common.params.register import ChampionGate
from stages.common.pipeline.stage import Run
from stages.common.schemas import CleanRecords, Predictions
from stages.register.gates import Verdict, gain_of
from stages.tasks import load_task

BATCH = 64
MIN_ROWS = 30  # fewer rows compare nothing


def judge_beside_champion(run: Run[RegisterParams], digest: str, labels: list[str]) -> tuple[list[Verdict], int | None]:
    """Judge a model (by the digest of its files) by who is champion, and by what became of this very model before.

    Returns:
        Verdicts, and the number of the version in use; None: there is none.
    """
    from stages.tracking import champions
    from stages.tracking.packaging import fetch_model, fetch_seen_ids
    from stages.tracking.runs import MODEL_TAG
    from stages.tracking.store import connect, warn

    name, gate = run.params.model_name, run.params.gates.champion
    with tempfile.TemporaryDirectory() as folder:
        try:
            client = connect()
            current = champions.champion(client, name)
            demoted = champions.demotion(client, name, digest)
            own_weights = current is not None and current.tags.get(MODEL_TAG) == digest
            if gate and current and not own_weights:
                model = fetch_model(name, str(current.version), Path(folder))
                seen = fetch_seen_ids(client, current, Path(folder))
        except Exception as error:  # a broken store must not cost the verdicts of the other gates
            warn(error)  # nobody knows what the model would replace, so it is not promoted
            return [failed("champion", "the registry cannot be reached; run `make register` when it can")], None
        verdicts = []
        if demoted:
            reason = f"this same model, version {demoted[0]}, was rolled back ({demoted[1]}); to use it again: "
            verdicts.append(failed("not rolled back", f"{reason}make rollback ARGS='--to {demoted[0]}'"))
        if gate and current and not own_weights:
            verdicts.append(_on_the_same_rows(run, gate, model, seen, labels))
        elif gate:
            none = f"no other champion to compare {gate.metric} with"
            reason = "its weights are the champion's own" if current else none
            verdicts.append(Verdict("champion", None, None, True, reason))
    return verdicts, int(current.version) if current else None


def _on_the_same_rows(
    run: Run[RegisterParams], gate: ChampionGate, model: Path, seen: set[str], labels: list[str]
) -> Verdict:
    """Score champion and challenger on the test rows that the champion has not seen, and compare."""
    import polars as pl

    from stages.tasks.bootstrap import class_numbers, compare

    task, bootstrap = load_task(run.all_params.task), run.all_params.evaluate.bootstrap
    champion_labels = task.labels_of(model)
    if set(champion_labels) != set(labels):
        fix = "give this model its own register.model_name, or set gates.champion: null"
        return failed("champion", f"the champion has other labels; {fix}")
    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    fresh = test.filter(~pl.col("id").is_in(list(seen)))
    if fresh.height < MIN_ROWS:
        fix = "a larger clean.split.test gives more; else keep seed and split, or set gates.champion: null once"
        unseen = f"{fresh.height} of the {test.height} test rows were not seen by the champion"
        return failed("champion", f"{unseen}, and a comparison needs {MIN_ROWS}; {fix}")
    theirs = [champion_labels[at] for at in task.probabilities(model, fresh, BATCH).argmax(axis=1)]
    ours = fresh.join(Predictions.read(run.input("data/predictions.parquet")), on="id", maintain_order="left")
    columns = (fresh["label"].to_list(), ours["prediction"].to_list(), theirs)
    rows, mine, their = (class_numbers(column, labels) for column in columns)
    value, champion = (task.scores(rows, chosen, len(labels))[gate.metric] for chosen in (mine, their))
    compared = compare(rows, mine, their, len(labels), bootstrap, run.seed)
    gain = gain_of(compared, gate.metric, bootstrap.confidence)
    beside = f"(champion {champion:.4f} on the {fresh.height} test rows that it was not trained on): {gain}"
    if gate.significant:
        low, limit = compared[f"{gate.metric}_gain_low"], -gate.allowed_drop or 0.0
        passed = low > limit
        reason = f"{gate.metric} {value:.4f}: the interval of the difference is {'' if passed else 'not '}all above"
        return Verdict("champion", low, limit, passed, f"{reason} {limit:g} {beside}")
    limit = round(champion - gate.allowed_drop, 6)
    passed = value >= limit
    reason = f"{gate.metric} {value:.4f} is {'at least' if passed else 'under'} {limit:.4f}"
    return Verdict("champion", value, limit, passed, f"{reason} {beside}")


def failed(gate: str, reason: str) -> Verdict:
    """Return the verdict on a model that could not be compared."""
    return Verdict(gate, None, None, False, reason)
