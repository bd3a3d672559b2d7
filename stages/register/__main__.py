"""register: put the model through its gates, write its card, and make it a version in MLflow's registry."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl

from stages.common.digests import sha256_path
from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.params import RegisterParams
from stages.common.pipeline.stage import LOGS, Run, stage, write_json
from stages.common.schemas import AugmentedRecords, CleanRecords
from stages.register.card import model_card
from stages.register.champion_comparison import compare_with_champion
from stages.register.gates import Verdict, failed, judge_reports
from stages.serving.backends import FILES, Package, Predictor
from stages.serving.latency import latencies
from stages.tracking.package import package_digest
from stages.tracking.publish import publish_live
from stages.tracking.registry import CHAMPION, REGISTERED, REGISTRATION, STAMP, ChampionComparison, Registration

REPORTS = ("data/raw/manifest.json", "reports/clean.json", "reports/scores.json", "reports/export.json")
CALLS = 50  # that the latency is measured with
MAX_TAG = 5_000  # characters of a tag in MLflow


@stage("register")
def main(run: Run[RegisterParams]) -> None:
    """Judge, report, register; promote only a model that passed every gate."""
    manifest, cleaned, metrics, export = (json.loads(run.input(path).read_text(encoding="utf-8")) for path in REPORTS)
    package = Package(run.input("models/finetuned"), run.input("models/exported"), run.input("models/serving"))
    check_parts(package, metrics, export)
    slices = pl.read_csv(run.input("reports/plots/slices.csv"))
    own = judge_reports(run.all_params, metrics, slices, export)
    _print(own)

    train = AugmentedRecords.read(run.input("data/augmented/train.parquet"))
    augmented = dict(train["method"].drop_nulls().value_counts().sort("method").iter_rows())
    card = model_card(run.all_params, metrics, own, manifest, cleaned, augmented, export, slices)
    run.output("reports/model_card.md").write_text(card, encoding="utf-8")

    verdicts = [*own, *_register(run, package, own)]
    if names := [verdict.gate for verdict in verdicts if not verdict.passed]:
        print(f"  not promoted, because of: {', '.join(names)}")
        if run.params.fail_on_gate:
            fix = f"train a better one, or move the limits in register.gates; the figures: {REGISTRATION}, {REGISTERED}"
            raise AttuneError(f"the model did not pass: {', '.join(names)}", fix, keep_outs=True)


def check_parts(package: Package, metrics: Mapping[str, Any], export: Mapping[str, Any]) -> None:
    """Check that what is registered is what was scored: each part of the model is the one that the reports name.

    Raises:
        AttuneError: naming the first part that is another one.
    """
    assert package.exported and package.serving
    scored, scores, exported = metrics["model"], "reports/scores.json", "reports/export.json"
    parts = [
        (scores, "models/finetuned", scored["digest"], sha256_path(package.model)),
        (scores, "models/serving", scored["serving"], sha256_path(package.serving)),
        (exported, "models/finetuned", export["model"], scored["digest"]),
    ]
    for name, file in FILES.items():
        path = package.exported / file
        digest = sha256_path(path) if path.exists() else None
        parts.append((exported, f"models/exported/{file}", export[name]["sha256"], digest))
    for report, part, reported, actual in parts:
        if reported != actual:
            what = f"{report} does not speak of {part} as it is now"
            raise AttuneError(what, "bring everything up to date: make run")


def _register(run: Run[RegisterParams], package: Package, own: list[Verdict]) -> list[Verdict]:
    """Register the model, and promote it if it passed all gates; return the verdicts that hold in this registry alone.

    Raises:
        Overtaken: if the champion is no longer the one that it was compared with; the flow tries again.
    """
    passed = all(verdict.passed for verdict in own)
    digests = sha256_path(package.model), package_digest(package)
    registration = Registration(run.params.model_name, *digests, passed, [asdict(verdict) for verdict in own])
    registration.write(run.output(str(REGISTRATION)), run.output(str(STAMP)))

    verdicts = [_latency(run, package, limit)] if (limit := run.params.gates.max_latency_ms) is not None else []
    compared, current = compare_with_champion(run, digests[0], package)
    verdicts += compared
    _print(verdicts)
    may_replace = all(verdict.passed for verdict in verdicts)
    reasons = "; ".join(verdict.line() for verdict in verdicts)[:MAX_TAG]
    state = publish_live(run, package.model, registration, ChampionComparison(may_replace, reasons, current))
    promoted = state is not None and passed and may_replace
    if state:
        print(f"  {run.params.model_name} version {state.version} is registered as {state.alias}")
        if state.alias == CHAMPION and not promoted:
            print("  it stays champion until another model passes; `make rollback` puts the one before back")
    elif passed and may_replace:
        reason = "the registry broke off while the model was promoted; run `make register` when it can be reached"
        verdicts.append(failed("promotion", reason))
        _print(verdicts[-1:])
    outcome = state._asdict() if state else {"version": None, "alias": None, "new_champion": False}
    outcome |= {"promoted": promoted, "gates": [asdict(verdict) for verdict in verdicts]}
    LOGS.mkdir(exist_ok=True)
    write_json(asdict(registration) | outcome, REGISTERED)
    return verdicts


def _latency(run: Run[RegisterParams], package: Package, limit: float) -> Verdict:
    """Judge how long one text takes as it would be served; the milliseconds, which vary, are on the terminal alone."""
    predictor = Predictor(package)
    scored = pl.read_parquet(run.input("data/predictions.parquet"), columns=["id"])
    test = CleanRecords.read(run.input("data/clean/test.parquet")).join(scored, on="id", maintain_order="left")
    texts, pairs = predictor.task.asked(test)
    p95 = latencies({"model": predictor}, texts, 1, CALLS, pairs)["model"].p95_ms
    print(f"  one text takes {p95:.1f} ms ({predictor.variant}, 95th percentile)", flush=True)
    passed = p95 <= limit
    reason = f"one text takes {'no longer' if passed else 'longer'} than {limit:g} ms here (95th percentile)"
    return Verdict("max_latency_ms", None, limit, passed, reason)


def _print(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        print(f"  {visible(verdict.line())}", flush=True)


if __name__ == "__main__":
    main()
