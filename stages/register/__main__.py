"""register: put the model through its gates, write its card, and make it a version in MLflow's registry."""

import json
import tempfile
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.params import RegisterParams
from stages.common.params.model import ChampionGate
from stages.common.schemas import AugmentedRecords, CleanRecords, Predictions
from stages.common.stage import Run, stage, write_json
from stages.register import gates
from stages.register.card import model_card
from stages.tasks import load_task

BATCH = 64
MIN_ROWS = 30  # fewer rows compare nothing


@stage("register")
def main(run: Run[RegisterParams]) -> None:
    """Judge, report, register; promote only a model that passed every gate."""
    import transformers

    from stages.common.tracking.publish import publish_live
    from stages.common.tracking.registry import Registration
    from stages.common.tracking.runs import model_digest

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = run.input("models/finetuned")
    digest = model_digest(folder)
    metrics = json.loads(run.input("reports/metrics.json").read_text(encoding="utf-8"))
    verdicts = gates.minimum_and_baselines(run.params.gates, metrics)
    gate = run.params.gates.champion
    if gate:
        verdicts.append(_beside_champion(run, gate, digest, list(metrics["per_class"])))
    promoted = all(verdict.passed for verdict in verdicts)
    for verdict in verdicts:
        print(f"  {verdict.line()}", flush=True)

    manifest, cleaned = run.input("data/raw/manifest.json"), run.input("reports/clean.json")
    train = AugmentedRecords.read(run.input("data/augmented/train.parquet"))
    made = dict(train["method"].drop_nulls().value_counts().sort("method").iter_rows())
    card = model_card(run.all_params, metrics, verdicts, manifest, cleaned, made)
    run.output("reports/model_card.md").write_text(card, encoding="utf-8")
    champion_gate = gate.model_dump() if gate else None
    reported = [verdict.as_report() for verdict in verdicts]
    registration = Registration(run.params.model_name, digest, promoted, champion_gate, reported)
    write_json(registration.as_report(), run.output("reports/registration.json"))

    version = publish_live(run, folder, registration)
    if version is not None:
        print(f"  {run.params.model_name} version {version} is registered as {registration.alias}")
    if not promoted:
        failed = ", ".join(verdict.gate for verdict in verdicts if not verdict.passed)
        print(f"  not promoted, because of: {failed}")
        if run.params.fail_on_gate:
            raise AttuneError(
                f"the model did not pass: {failed}",
                "train a better one, or move the limits in register.gates; reports/registration.json has the figures",
                keep_outs=True,
            )


def _beside_champion(run: Run[RegisterParams], gate: ChampionGate, digest: str, labels: list[str]) -> gates.Verdict:
    """Score champion and challenger on the test rows that neither has seen, and compare."""
    import numpy as np
    import polars as pl

    from stages.common.tracking.registry import CHAMPION, VERDICT_TAG, champion, fetch_model, fetch_seen_ids
    from stages.common.tracking.runs import MODEL_TAG
    from stages.common.tracking.store import connect, warn

    with tempfile.TemporaryDirectory() as folder:
        try:
            client = connect()
            current = champion(client, run.params.model_name)
            if current is None:
                return gates.no_other_champion(gate)
            # The champion trained again is no other model: the report reads as it did when it was promoted.
            if current.tags.get(MODEL_TAG) == digest:
                return gates.remembered(gate, current.tags.get(VERDICT_TAG))
            model = fetch_model(run.params.model_name, CHAMPION, Path(folder))
            seen = fetch_seen_ids(client, current, Path(folder))
        except Exception as error:  # a broken store must not cost the verdicts of the other gates
            warn(error)
            return gates.unknown_champion()
        task = load_task(run.all_params.task)
        champion_labels = task.labels_of(model)
        if set(champion_labels) != set(labels):
            return gates.other_labels()
        test = CleanRecords.read(run.input("data/clean/test.parquet"))
        fresh = test.filter(~pl.col("id").is_in(list(seen)))
        if fresh.height < MIN_ROWS:
            return gates.too_few_fresh_rows(fresh.height, test.height, MIN_ROWS)
        probabilities = task.probabilities(model, fresh, BATCH)
    mine = fresh.join(Predictions.read(run.input("data/predictions.parquet")), on="id", maintain_order="left")

    def score(predicted: list[str]) -> float:
        actual, chosen = (np.array([labels.index(label) for label in column]) for column in (fresh["label"], predicted))
        return task.scores(actual, chosen, len(labels))[gate.metric]

    of_champion = score([champion_labels[at] for at in probabilities.argmax(axis=1)])
    return gates.against_champion(gate, score(mine["prediction"].to_list()), of_champion, fresh.height)


if __name__ == "__main__":
    main()
