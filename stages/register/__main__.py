"""register: put the model through its gates, write its card, and make it a version in MLflow's registry."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stages.common.digests import sha256_file, sha256_path
from stages.common.display import visible
from stages.common.errors import AttuneError
from stages.common.params import RegisterParams
from stages.common.pipeline.stage import LOGS, Run, stage, write_json
from stages.common.schemas import AugmentedRecords, CleanRecords
from stages.register import champion, gates
from stages.register.card import model_card
from stages.serving.classifier import FILES, Package, labels_of
from stages.serving.decision import Decision
from stages.tasks.inference import texts_and_pairs
from stages.tracking.champions import CHAMPION
from stages.tracking.registry import REGISTERED, REGISTRATION, STAMP

CALLS = 50  # that the latency is measured with
MOST_SHOWN = 5_000  # characters of a tag in MLflow


@stage("register")
def main(run: Run[RegisterParams]) -> None:
    """Judge, report, register; promote only a model that passed every gate."""
    import polars as pl
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    metrics, export = (
        json.loads(run.input(f"reports/{name}.json").read_text(encoding="utf-8")) for name in ("metrics", "export")
    )
    check_parts(_package(run), metrics, export)
    slices = pl.read_csv(run.input("reports/plots/slices.csv"))
    own = gates.judge_reports(run.params.gates, run.all_params.evaluate, metrics, slices)
    _say(own)

    manifest, cleaned = run.input("data/raw/manifest.json"), run.input("reports/clean.json")
    train = AugmentedRecords.read(run.input("data/augmented/train.parquet"))
    made = dict(train["method"].drop_nulls().value_counts().sort("method").iter_rows())
    card = model_card(run.all_params, metrics, own, manifest, cleaned, made, export, slices)
    run.output("reports/model_card.md").write_text(card, encoding="utf-8")

    verdicts = [*own, *_register(run, own, list(metrics["per_class"]))]
    if failed := [verdict.gate for verdict in verdicts if not verdict.passed]:
        print(f"  not promoted, because of: {', '.join(failed)}")
        if run.params.fail_on_gate:
            raise AttuneError(
                f"the model did not pass: {', '.join(failed)}",
                f"train a better one, or move the limits in register.gates; the figures: {REGISTRATION}, {REGISTERED}",
                keep_outs=True,
            )


def check_parts(package: Package, metrics: Mapping[str, Any], export: Mapping[str, Any]) -> None:
    """Compare the parts of a model with what the reports say that they were made of: what is registered was scored.

    Raises:
        AttuneError: naming the first part that is another one.
    """
    assert package.exported and package.serving
    scored, scores, exported = metrics.get("model", {}), "reports/metrics.json", "reports/export.json"
    parts = [
        (scores, "models/finetuned", scored.get("digest"), sha256_path(package.model)),
        (scores, "models/serving", scored.get("serving"), sha256_path(package.serving)),
        (exported, "models/finetuned", export.get("model"), scored.get("digest")),
    ]
    for name, file in FILES.items():
        path, offered = package.exported / file, export.get(name, {}).get("offered")
        digest = sha256_file(path) if path.exists() else None
        parts.append((exported, f"models/exported/{file}", export[name]["sha256"] if offered else None, digest))
    for report, part, said, found in parts:
        if said != found:
            what = f"{report} does not speak of {part} as it is now"
            raise AttuneError(what, "bring everything up to date: dvc repro (or make run)")
    if Decision.read(package.serving).labels != labels_of(package.model):
        raise AttuneError("models/serving has other labels than models/finetuned", "dvc repro --force evaluate")


def _register(run: Run[RegisterParams], own: list[gates.Verdict], labels: list[str]) -> list[gates.Verdict]:
    """Register the model, and promote it if it passed all gates; return the verdicts that hold in this registry alone.

    Raises:
        Overtaken: if the champion is no longer the one that it was judged against; the flow tries again.
    """
    from stages.tracking.packaging import package_digest
    from stages.tracking.publish import publish_live
    from stages.tracking.registry import ChampionVerdicts, Registration
    from stages.tracking.runs import model_digest

    package = _package(run)
    passed = all(verdict.passed for verdict in own)
    digests = model_digest(package.model), package_digest(package)
    registration = Registration(run.params.model_name, *digests, passed, [asdict(verdict) for verdict in own])
    registration.write(run.output(str(REGISTRATION)), run.output(str(STAMP)))

    verdicts = [_latency(run, limit)] if (limit := run.params.gates.max_latency_ms) is not None else []
    beside, seen = champion.judge_beside_champion(run, digests[0], labels)
    verdicts += beside
    _say(verdicts)
    here = all(verdict.passed for verdict in verdicts)
    reasons = "; ".join(verdict.line() for verdict in verdicts)[:MOST_SHOWN]
    registered = publish_live(run, package.model, registration, ChampionVerdicts(here, reasons, seen))
    if registered is None and passed and here:
        reason = "the registry broke off while the model was promoted; run `make register` when it can be reached"
        verdicts.append(champion.failed("promotion", reason))
        _say(verdicts[-1:])
    promoted = registered is not None and passed and here
    if registered is not None:
        print(f"  {run.params.model_name} version {registered.version} is registered as {registered.alias}")
        if registered.alias == CHAMPION and not promoted:
            print("  it stays champion until another model passes; `make rollback` puts the one before back")
    outcome = {
        "model_name": registration.model_name,
        "model": registration.model,
        "package": registration.package,
        "version": registered.version if registered else None,
        "alias": registered.alias if registered else None,
        "new_champion": registered is not None and registered.new_champion,
        "promoted": promoted,
        "gates": [asdict(verdict) for verdict in verdicts],
    }
    LOGS.mkdir(exist_ok=True)
    write_json(outcome, REGISTERED)  # no out: the version, and the champion beside it, differ from registry to registry
    return verdicts


def _latency(run: Run[RegisterParams], limit: float) -> gates.Verdict:
    """Judge how long one text takes as it would be served; the milliseconds, which vary, are on the terminal alone."""
    from stages.serving.classifier import Classifier
    from stages.serving.latency import latencies

    texts, pairs = texts_and_pairs(CleanRecords.read(run.input("data/clean/test.parquet")))
    classifier = Classifier(_package(run))
    p95 = latencies({"model": classifier}, texts, 1, CALLS, pairs)["model"].p95_ms
    print(f"  one text takes {p95:.1f} ms ({classifier.variant}, 95th percentile)", flush=True)
    passed = p95 <= limit
    reason = f"one text takes {'no longer' if passed else 'longer'} than {limit:g} ms here (95th percentile)"
    return gates.Verdict("max_latency_ms", None, limit, passed, reason)


def _package(run: Run[RegisterParams]) -> Package:
    return Package(run.input("models/finetuned"), run.input("models/exported"), run.input("models/serving"))


def _say(verdicts: list[gates.Verdict]) -> None:
    for verdict in verdicts:
        print(f"  {visible(verdict.line())}", flush=True)


if __name__ == "__main__":
    main()
