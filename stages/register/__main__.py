"""register: put the model through its gates, write its card, and make it a version in MLflow's registry."""

import json

from stages.common.errors import AttuneError
from stages.common.params import RegisterParams
from stages.common.schemas import AugmentedRecords, CleanRecords
from stages.common.serving.classifier import Package
from stages.common.shown import visible
from stages.common.stage import LOGS, Run, stage, write_json
from stages.common.tracking.champions import CHAMPION
from stages.common.tracking.registry import REGISTERED, REGISTRATION
from stages.register import champion, gates
from stages.register.card import model_card
from stages.register.parts import check_parts
from stages.tasks.encoding import texts_and_pairs

TRIES = 3  # how often it is judged, each time beside a new champion, before it gives way
CALLS = 50  # that the latency is measured with
MOST_TOLD = 5_000  # characters of a tag in MLflow


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

    failed = [
        verdict.gate for verdict in [*own, *_register(run, own, list(metrics["per_class"]))] if not verdict.passed
    ]
    if failed:
        print(f"  not promoted, because of: {', '.join(failed)}")
        if run.params.fail_on_gate:
            raise AttuneError(
                f"the model did not pass: {', '.join(failed)}",
                f"train a better one, or move the limits in register.gates; the figures: {REGISTRATION}, {REGISTERED}",
                keep_outs=True,
            )


def _register(run: Run[RegisterParams], own: list[gates.Verdict], labels: list[str]) -> list[gates.Verdict]:
    """Register the model, and promote it if it passed all gates; return the verdicts that hold in this registry alone.

    It is promoted only while the champion is the one that it was judged against.
    """
    from stages.common.tracking.champions import Overtaken
    from stages.common.tracking.packaging import package_digest
    from stages.common.tracking.publish import publish_live
    from stages.common.tracking.registry import STAMP, ChampionVerdicts, Registered, Registration
    from stages.common.tracking.runs import model_digest

    package = _package(run)
    passed = all(verdict.passed for verdict in own)
    reported = [verdict.as_report() for verdict in own]
    digests = model_digest(package.model), package_digest(package)
    registration = Registration(run.params.model_name, *digests, passed, reported)
    registration.write(run.output(str(REGISTRATION)), run.output(str(STAMP)))

    here = [_latency(run, limit)] if (limit := run.params.gates.max_latency_ms) is not None else []
    _say(here)
    registered: Registered | None = None
    for attempt in range(TRIES + 1):
        beside = champion.judge_beside_champion(run, package, digests[0], labels)
        last_word = [champion.overtaken()] if attempt == TRIES and not beside.in_use else []
        _say([*beside.verdicts, *last_word])
        verdicts = [*here, *beside.verdicts, *last_word]
        reasons = "; ".join(verdict.line() for verdict in verdicts)[:MOST_TOLD]
        judged = ChampionVerdicts(all(verdict.passed for verdict in verdicts), reasons, beside.seen)
        try:
            registered = publish_live(run, package.model, registration, judged)
        except Overtaken:
            print("  another model became champion meanwhile: judged again", flush=True)
            continue
        break
    promoted = passed and all(verdict.passed for verdict in verdicts)
    if registered is None and promoted:
        verdicts.append(champion.not_recorded())
        _say(verdicts[-1:])
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
        "promoted": promoted and registered is not None,
        "gates": [verdict.as_report() for verdict in verdicts],
    }
    LOGS.mkdir(exist_ok=True)
    write_json(outcome, REGISTERED)  # no out: the version, and the champion beside it, differ from registry to registry
    return verdicts


def _latency(run: Run[RegisterParams], limit: float) -> gates.Verdict:
    """Measure how long one text takes as it would be served."""
    from stages.common.serving.classifier import Classifier
    from stages.common.serving.latency import latencies

    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    texts, pairs = texts_and_pairs(test)
    classifier = Classifier(_package(run))
    found = latencies({"model": classifier}, texts, 1, CALLS, pairs)["model"]
    print(f"  one text takes {found.p95_ms:.1f} ms ({classifier.variant}, 95th percentile)", flush=True)
    return gates.within_latency(limit, found.p95_ms)


def _package(run: Run[RegisterParams]) -> Package:
    return Package(run.input("models/finetuned"), run.input("models/exported"), run.input("models/serving"))


def _say(verdicts: list[gates.Verdict]) -> None:
    for verdict in verdicts:
        print(f"  {visible(verdict.line())}", flush=True)


if __name__ == "__main__":
    main()
