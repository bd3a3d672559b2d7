"""register: put the model through its gates, write its card, and make it a version in MLflow's registry."""

import json
from collections.abc import Callable

from stages.common.errors import AttuneError
from stages.common.params import RegisterParams
from stages.common.schemas import AugmentedRecords, CleanRecords
from stages.common.serving.classifier import Package
from stages.common.shown import visible
from stages.common.stage import Run, stage, write_json
from stages.register import champion, gates
from stages.register.card import model_card
from stages.register.parts import check_parts
from stages.tasks.encoding import texts_and_pairs

TRIES = 3  # how often it is judged, each time beside a new champion, before it gives way
CALLS = 50  # that the latency is measured with


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
    if run.params.gates.max_latency_ms is not None:
        own.append(_latency(run, run.params.gates.max_latency_ms))
    _say(own)

    manifest, cleaned = run.input("data/raw/manifest.json"), run.input("reports/clean.json")
    train = AugmentedRecords.read(run.input("data/augmented/train.parquet"))
    made = dict(train["method"].drop_nulls().value_counts().sort("method").iter_rows())

    def write_card(verdicts: list[gates.Verdict]) -> None:
        card = model_card(run.all_params, metrics, verdicts, manifest, cleaned, made, export, slices)
        run.output("reports/model_card.md").write_text(card, encoding="utf-8")

    failed = _register(run, own, list(metrics["per_class"]), write_card)
    if failed:
        print(f"  not promoted, because of: {', '.join(failed)}")
        if run.params.fail_on_gate:
            raise AttuneError(
                f"the model did not pass: {', '.join(failed)}",
                "train a better one, or move the limits in register.gates; reports/registration.json has the figures",
                keep_outs=True,
            )


def _register(
    run: Run[RegisterParams],
    own: list[gates.Verdict],
    labels: list[str],
    write_card: Callable[[list[gates.Verdict]], None],
) -> list[str]:
    """Judge the model beside the champion, report, and promote it if it passed; return the names of failed gates.

    The report is written before the registry changes, and again if that came out otherwise: the model is promoted only
    while the champion is the one that it was judged against.
    """
    from stages.common.tracking.champions import Overtaken
    from stages.common.tracking.publish import publish_live
    from stages.common.tracking.registry import Registered, Registration
    from stages.common.tracking.runs import model_digest

    package, gate = _package(run), run.params.gates.champion
    digest = model_digest(package.model)

    def report(verdicts: list[gates.Verdict], in_use: bool) -> Registration:
        promoted = all(verdict.passed for verdict in verdicts)
        settings = gate.model_dump() if gate else None
        reported = [verdict.as_report() for verdict in verdicts]
        registration = Registration(run.params.model_name, digest, promoted, settings, reported, in_use)
        write_card(verdicts)
        write_json(registration.as_report(), run.output("reports/registration.json"))
        return registration

    for attempt in range(TRIES + 1):
        beside = champion.judge_beside_champion(run, package, digest, labels)
        last_word = [champion.overtaken()] if attempt == TRIES and not beside.in_use else []
        verdicts = [*own, *beside.verdicts, *last_word]
        _say([*beside.verdicts, *last_word])
        registration = report(verdicts, beside.in_use)
        registered: Registered | None = None
        try:
            registered = publish_live(run, package.model, registration, beside.seen)
        except Overtaken:
            print("  another model became champion meanwhile: judged again", flush=True)
            continue
        if registered is None and registration.promoted:
            verdicts.append(champion.not_recorded())
            _say(verdicts[-1:])
            registration = report(verdicts, beside.in_use)
        if registered is None or registered.alias == registration.alias:
            break
    if registered is not None:
        print(f"  {run.params.model_name} version {registered.version} is registered as {registered.alias}")
    if registration.in_use and not registration.promoted:
        print("  it stays champion until another model passes; `make rollback` puts the one before back")
    return [verdict.gate for verdict in verdicts if not verdict.passed]


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
