"""evaluate: what the model is worth on the test split, how confident it must be to answer, and how it behaves."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.common.digests import hash_order, sha256_path
from stages.common.params import EvaluateParams
from stages.common.params.tasks import Score
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.schemas import SPLITS, BehaviourCases, CleanRecords, Predictions, Retention
from stages.common.text.cleaning import FILE as TEXT_CLEANING
from stages.evaluate import behaviour
from stages.evaluate.results import headline, write_plots
from stages.serving.backends import Package, Predictor
from stages.tasks import load_task
from stages.tasks.base import Task
from stages.tasks.bootstrap import gains, mcnemar, scores_of, scores_with_intervals
from stages.tasks.evidence import Evidence
from stages.tasks.inference import size_of
from stages.tasks.slices import slice_scores
from stages.tracking.publish import publish_live

REPORTS = ("export", "tokenize")  # of which the page speaks


@stage("evaluate")
def main(run: Run[EvaluateParams]) -> None:
    """Decide on validation how the model answers; measure on test what comes of it; put it all on one page."""
    import torch

    from stages.evaluate.page import render
    from stages.tasks.attribution import explain

    files, rejected = (run.input(f"data/clean/{name}.parquet") for name in SPLITS), "data/tokenized/rejected.parquet"
    train, validation, test = (CleanRecords.read_tokenized(file, run.input(rejected)) for file in files)
    folder, task, spec = run.input("models/finetuned"), load_task(run.all_params.task), run.all_params.spec
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predictor = Predictor(Package(folder), "torch", task=task.name, device=device)
    run.params.behaviour.check_labels(names := task.names_in(train["label"]))
    raw = predictor.outputs(*task.asked(pl.concat([validation, test])))
    raw_validation, raw = raw[: validation.height], raw[validation.height :]

    decision, fitted = task.fit_decision(run.params, validation["label"].to_list(), raw_validation, predictor.decision)
    serving = _write_serving(run, task, train, decision, decision.calibrated(raw_validation))

    outputs = decision.calibrated(raw)
    quality = pl.Series("label_quality", task.label_quality(test, outputs, decision))
    decided = pl.DataFrame(task.decide(outputs, decision), schema_overrides={"confidence": pl.Float64})
    answers = task.spoken(folder, test, decided, decision)
    predictions = pl.concat([test.select("id", "label"), answers, quality.to_frame()], how="horizontal")
    predictions = Predictions.write(predictions, run.output("data/predictions.parquet"))
    answered = test.hstack(predictions.drop("id", "label"))

    evidence = task.evidence(test, predictions, names)
    entries, tables = task.report(run.all_params, train, test, raw, decision, fitted)
    scores = {
        "task": task.name,
        "rows": test.height,
        **scores_with_intervals(evidence, run.params.bootstrap, run.seed),
        **entries,
    }
    print(f"  {test.height:,} test rows: {', '.join(f'{s.title} {scores[s.name]:.4f}' for s in spec.headline)}")
    for message in task.messages(entries):
        print(f"  {message}", flush=True)
    scores |= _baselines(run, task, (train, validation, answered), evidence, decision, tables) | _retention(run, task)
    moved = pl.Series(task.moved(outputs, decision, answered["prediction"].to_list()))  # what a change of a row moves
    tests, predictor.decision = run.params.behaviour, decision
    planned = behaviour.plan(tests, answered.with_columns(score=moved), run.seed)
    cases = behaviour.judge(tests, planned, task, decision, lambda rows: predictor.outputs(*task.asked(rows)))
    cases = BehaviourCases.write(cases, run.output("data/behaviour.parquet"))
    scores["behaviour"] = summary = behaviour.summary(tests, cases)
    behaviour.print_summary(summary)
    scores["model"] = {**size_of(folder), "digest": sha256_path(folder), "serving": sha256_path(serving)}
    write_json(scores, run.output("reports/scores.json"))
    write_json(headline(scores, spec), run.output("reports/metrics.json"))

    to_explain = answered.with_columns(output=pl.Series(task.explained(outputs)))
    attributions, message = explain(folder, to_explain, task, run.params.attributions, run.seed)
    print(f"  {message}", flush=True)
    if (confusion := task.confusion(test, predictions)) is not None:
        tables["confusion"] = confusion
    slices = slice_scores(test, run.params.slices, task, evidence, [score.name for score in spec.headline])
    tables["slices"] = slices.with_columns(score=spec.of_slices.name)  # what DVC draws, of any task
    write_plots(run, tables)
    reports = {name: json.loads(run.input(f"reports/{name}.json").read_text(encoding="utf-8")) for name in REPORTS}
    right = pl.Series(task.is_correct(test, predictions))
    page = render(run.all_params, scores, reports, task.readable(answered), right, cases, attributions, tables)
    run.output("reports/evaluation.html").write_text(page, encoding="utf-8")
    publish_live(run, folder)


def _write_serving(
    run: Run[EvaluateParams], task: Task, train: pl.DataFrame, decision: Any, outputs: np.ndarray
) -> Path:
    """Write what a served model needs besides weights; `outputs` [n x k] are those of validation. Return the folder."""
    from stages.common.drift import profile_of

    folder = run.output("models/serving")
    decision.write(folder)
    shutil.copyfile(run.input(f"data/clean/{TEXT_CLEANING}"), folder / TEXT_CLEANING)
    counts, abstained = task.counts(train["label"], run.all_params.clean), task.decide(outputs, decision)["abstained"]
    write_json(profile_of(train, counts, task.drift_values(outputs, decision), abstained), folder / "profile.json")
    return folder


def _retention(run: Run[EvaluateParams], task: Task) -> dict[str, Any]:
    """Return how much worse the model foresees general texts than the base model, in bits per byte; often, nothing.

    The interval is the paired bootstrap's, over texts.
    """
    general = Retention.read(run.input("data/raw/retention.parquet")).unique("text", maintain_order=True)
    some = general.sort(hash_order("text", str(run.seed)), "text").head(run.params.retention_rows)
    numbers = task.text_numbers(some, run.input("models/base"), run.input("models/finetuned"))
    if numbers is None:
        return {}
    before, after = (Evidence(part, lambda sums: {"bits": sums[..., 0] / sums[..., 1] / np.log(2)}) for part in numbers)
    gained = gains(before, after, [Score("bits", "bits per byte", False, True)], run.params.bootstrap, run.seed)
    loss, low, high = (gained[f"bits_gain{end}"] for end in ("", "_low", "_high"))
    found = {"texts": len(numbers[0]), "base_bits": scores_of(before)["bits"], "bits": scores_of(after)["bits"]}
    change = f"{found['base_bits']:.4f} → {found['bits']:.4f} bits per byte, {loss:+.4f} ({low:+.4f} to {high:+.4f})"
    print(f"  {found['texts']:,} general texts: {change}", flush=True)
    return {"retention": {**found, "loss": loss, "loss_low": low, "loss_high": high}}


def _baselines(
    run: Run[EvaluateParams],
    task: Task,
    parts: Sequence[pl.DataFrame],
    evidence: Evidence,
    decision: Any,
    tables: dict[str, pl.DataFrame],
) -> dict[str, dict[str, dict[str, float]]]:
    """Return each baseline's scores with their intervals, and what the model gains over it.

    The parts are train, validation, and test with the model's answers; `evidence` is of these. Baselines that have no
    main score, since they only answer, are `answer_baselines`. The task adds to `tables` what they say.
    """
    spec, bootstrap = run.all_params.spec, run.params.bootstrap
    names = task.names_in(parts[0]["label"])
    base, finetuned = run.input("models/base"), run.input("models/finetuned")
    answered = parts[2]
    right, found = task.is_correct(answered, answered), {}
    result: dict[str, dict[str, dict[str, float]]] = {"baselines": {}}
    for name in run.all_params.baselines:
        predicted = task.baseline(name, parts, base, finetuned, decision)
        if predicted is None:
            print(f"  {name}: not for these rows", flush=True)
            continue
        found[name] = pl.Series(predicted, dtype=pl.String)
        theirs = answered.select("id").with_columns(prediction=found[name])
        other = task.evidence(answered, theirs, names)
        own = scores_with_intervals(other, bootstrap, run.seed)
        own |= gains(evidence, other, spec.scores, bootstrap, run.seed)
        score = spec.main if spec.main.name in own else spec.score(run.all_params.answer_metric)
        if score is spec.main:
            own |= mcnemar(right, task.is_correct(answered, theirs))
        result.setdefault("baselines" if score is spec.main else "answer_baselines", {})[name] = own
        gain, low, high = (own[f"{score.name}_gain{end}"] for end in ("", "_low", "_high"))
        message = f"the model gains {gain:+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"  {name}: {score.title} {own[score.name]:.4f}; {message}", flush=True)
    tables |= task.side_by_side(answered, found)
    return result


if __name__ == "__main__":
    main()
