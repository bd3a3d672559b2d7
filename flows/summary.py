"""`python -m flows.summary`: the last run on one screen."""

import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.told.reports import (
    REPORTS,
    SCORES,
    failed_gates,
    gates_passed,
    read_registration,
    read_report,
    with_interval,
)
from stages.common.errors import AttuneError
from stages.common.graph import read_graph
from stages.common.shown import shown
from stages.common.stage import LOGS


def main() -> int:
    """Print the summary; what does not exist yet is left out."""
    console = Console(highlight=False)
    try:
        graph = read_graph()
    except AttuneError as error:
        print(error, file=sys.stderr)
        return 1
    metrics, clean = (read_report(REPORTS / f"{name}.json") for name in ("metrics", "clean"))
    registration = read_registration()
    if not metrics:
        console.print("There are no results yet: make run")
        return 1
    console.print()
    if clean:
        console.print(_rows(clean), soft_wrap=True)
    console.print(_scores(metrics))
    console.print(_trust(metrics, read_report(REPORTS / "export.json")), soft_wrap=True)
    console.print(_stages(list(graph)))
    if registration and registration["version"] is None:
        registration = _looked_up(registration)
    if registration:
        console.print(_registration(registration), soft_wrap=True)
    console.print(Text("look at it: reports/evaluation.html, reports/data.html · model card: reports/model_card.md"))
    console.print(Text("compare runs: make ui, then open http://127.0.0.1:5000"))
    return 0


def _rows(clean: dict[str, Any]) -> Text:
    manifest = read_report(Path("data/raw/manifest.json"))
    read = manifest.get("rows_read", clean["rows_in"])
    rejected = read - clean["rows_kept"]
    splits = ", ".join(f"{name} {split['rows']:,}" for name, split in clean["splits"].items())
    added = read_report(Path("reports/augment.json")).get("rows_added", 0)
    more = f"; augmentation added {added:,} to train" if added else ""
    return Text(f"rows  {read:,} read, {clean['rows_kept']:,} kept ({splits}), {rejected:,} rejected{more}\n")


def _scores(metrics: dict[str, Any]) -> Table:
    table = Table(title=f"Test scores on {metrics['rows']:,} rows", title_justify="left")
    table.add_column("model")
    for name in SCORES:
        table.add_column(f"{name} [interval]", justify="right")
    for name, scores in {"this model": metrics, **metrics["baselines"]}.items():
        cells = [with_interval(scores, key) for key in SCORES.values()]
        table.add_row(Text(name.replace("_", " ")), *map(Text, cells), style="bold" if name == "this model" else "")
    return table


def _trust(metrics: dict[str, Any], export: dict[str, Any]) -> Text:
    """How far the probabilities can be trusted, what the behavioural tests say, which forms of the model there are."""
    calibration, thresholds = metrics["calibration"], metrics.get("thresholds") or {}
    tests = [test for test in metrics["behaviour"].values() if test["cases"]]
    told = [f"calibration error {calibration['ece']:.3f}"]
    if "coverage" in thresholds:
        told.append(f"sure enough to answer {thresholds['coverage']:.1%}")
    silent = [label for label, one in thresholds.get("labels", {}).items() if one["threshold"] is None]
    if silent:
        told.append(f"never answers {', '.join(shown(label, 40) for label in silent[:5])}: docs/evaluation.md")
    if tests:
        passed, cases = (sum(test[what] for test in tests) for what in ("passed", "cases"))
        told.append(f"{passed} of {cases} behavioural cases passed")
    forms = [name for name, form in export.items() if isinstance(form, dict) and form["offered"]]
    told.append(f"offered as {', '.join(['torch', *forms])}")
    return Text("trust  " + "; ".join(told) + "\n")


def _stages(names: list[str]) -> Table:
    """A column of seconds; a stage that did not run in this call shows what it took when it did."""
    started = _parent_start()
    table = Table(title="Stages", title_justify="left")
    for name in ("stage", "seconds", "peak MiB", "note"):
        table.add_column(name, justify="left" if name in ("stage", "note") else "right")
    for name in names:
        log = read_report(LOGS / f"{name}.json")
        if log:
            fresh = log["finished"] >= started
            table.add_row(
                name, f"{log['seconds']:.1f}", str(log["peak_mib"]), "run" if fresh else "unchanged, not run again"
            )
        else:
            table.add_row(name, "–", "–", "from the cache")
    return table


def _parent_start() -> float:
    """When this `make run` began; without one, every stage counts as fresh."""
    return float(os.environ.get("ATTUNE_STARTED", "0"))


def _registration(registration: dict[str, Any]) -> Text:
    text = Text()
    name, version, alias = (registration[key] for key in ("model_name", "version", "alias"))
    where = f"version {version}" if version else "not in the registry (make register)"
    text.append(f"model  {name} {where}{f', alias {alias}' if alias else ''}", style="bold")
    text.append(f"; {gates_passed(registration)} gates passed\n")
    if version:
        text.append(f"use it  models:/{name}{f'@{alias}' if alias else f'/{version}'} (README.md, Using the model)\n")
    for gate in failed_gates(registration):
        text.append(f"  failed  {gate['gate']}: {gate['reason']}\n", style="red")
    return text


def _looked_up(registration: dict[str, Any]) -> dict[str, Any]:
    """Return what the registry knows of a model that another checkout or an earlier run has registered."""
    from stages.common.tracking.champions import unless_gone
    from stages.common.tracking.registry import version_of
    from stages.common.tracking.store import connect

    try:
        client, name = connect(), registration["model_name"]
        version = version_of(client, name, registration["model"], registration["package"])
        aliases: dict[str, str] = {}
        with unless_gone():
            aliases = client.get_registered_model(name).aliases
        alias = next((alias for alias, number in aliases.items() if str(number) == str(version)), None)
        return {**registration, "version": version, "alias": alias}
    except Exception:  # a summary is no place to fail over a registry
        return registration


if __name__ == "__main__":
    sys.exit(main())
