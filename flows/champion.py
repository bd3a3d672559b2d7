"""`python -m flows.champion`: who is champion and who was; `--rollback` puts the one before back."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import exit_status
from stages.common.errors import AttuneError
from stages.common.params import load_params
from stages.common.shown import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

LATEST = 20  # versions listed, besides those that were champion
SCORES = {"accuracy": "test_accuracy", "macro-F1": "test_macro_f1"}
REASON = 100  # characters of a reason in the table


def main(arguments: list[str] | None = None) -> int:
    """List the versions, roll the champion back, or let a version that was rolled back be judged again."""
    asked = _parser().parse_args(arguments)
    return exit_status(lambda: _act(asked), "interrupted; `make champion` shows how things stand")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.champion", description="Who is champion, and who was.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="put the champion before back into use")
    what.add_argument("--forgive", metavar="VERSION", type=int, help="let a version rolled back be judged again")
    parser.add_argument("--to", metavar="VERSION", type=int, help="an earlier champion to roll back to")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why it is rolled back, kept with the version")
    return parser


def _act(asked: argparse.Namespace) -> None:
    from stages.common.tracking.promotion import forgive, roll_back
    from stages.common.tracking.store import Unreachable, connect

    if not asked.rollback and (asked.to is not None or asked.reason):
        raise AttuneError("--to and --reason say how to roll back", "add --rollback")
    console = Console(highlight=False, soft_wrap=True)
    name = load_params().register_.model_name
    try:
        client = connect()
    except Unreachable as error:
        fix = "start the server, or unset MLFLOW_TRACKING_URI"
        raise AttuneError(f"MLflow cannot be reached: {error}", fix) from None
    from mlflow.exceptions import MlflowException

    try:
        if asked.rollback:
            demoted, now = roll_back(client, name, asked.to, asked.reason)
            console.print(Text(f"version {demoted} was rolled back; version {now} is the champion of {name}"))
            console.print(Text(f"to have it judged again some day: python -m flows.champion --forgive {demoted}\n"))
        if asked.forgive is not None:
            forgive(client, name, asked.forgive)
            console.print(Text(f"version {asked.forgive} of {name} may be judged again: make register\n"))
        console.print(_table(client, name))
    except MlflowException as error:
        what = str(error).partition("\n")[0]
        raise AttuneError(f"MLflow failed: {what}", "`make champion` shows how things stand") from None


def _table(client: "MlflowClient", name: str) -> Table:
    """Return the versions, the newest first: alias, when each was put into use, scores, why it was rolled back."""
    from stages.common.tracking.champions import CHALLENGER, CHAMPION, DEMOTED_TAG
    from stages.common.tracking.promotion import standing
    from stages.common.tracking.store import quiet

    now = standing(client, name)
    with quiet():
        found = client.search_model_versions(f"name = '{name}'")
        aliases = client.get_registered_model(name).aliases if found else {}
    if not found:
        raise AttuneError(f"{name} has no versions in MLflow yet", "make run")
    in_use: dict[int, list[str]] = {}
    for entry in now.entries:
        how = "promoted" if entry.demotes is None else f"back for {entry.demotes}"
        in_use.setdefault(entry.version, []).append(f"{entry.number}. {how} {entry.at[:16].replace('T', ' ')}")
    table = Table(title=f"{name} in MLflow's registry (times in UTC)", title_justify="left")
    for column in ("version", "alias", "put into use", *SCORES, "rolled back"):
        table.add_column(column, justify="right" if column in SCORES else "left")
    ordered = sorted(found, key=lambda version: -int(version.version))
    for at, version in enumerate(ordered):
        number = int(version.version)
        names = [one for one in (CHAMPION, CHALLENGER) if str(aliases.get(one)) == str(number)]
        if at >= LATEST and not names and number not in in_use:
            continue
        cells = [str(number), ", ".join(names), "\n".join(in_use.get(number, [])), *_scores(client, version)]
        why = shown(version.tags.get(DEMOTED_TAG), REASON)
        table.add_row(*map(Text, [*cells, why]), style="bold" if CHAMPION in names else "")
    return table


def _scores(client: "MlflowClient", version: Any) -> list[str]:
    from mlflow.exceptions import MlflowException

    try:
        metrics = client.get_run(version.run_id).data.metrics
    except MlflowException:  # its run was deleted
        metrics = {}
    return [f"{metrics[key]:.4f}" if key in metrics else "–" for key in SCORES.values()]


if __name__ == "__main__":
    sys.exit(main())
