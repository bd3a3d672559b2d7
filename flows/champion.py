"""`python -m flows.champion`: who is champion and who was; `--rollback` puts the previous one back."""

import argparse
import sys
from typing import TYPE_CHECKING

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
    """List the versions, or roll the champion back."""
    asked = _parser().parse_args(arguments)
    return exit_status(lambda: _act(asked), "interrupted; `make champion` shows who is champion")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.champion", description="Who is champion, and who was.")
    parser.add_argument("--rollback", action="store_true", help="put the previous champion back into use")
    parser.add_argument("--to", metavar="VERSION", type=int, help="an earlier champion to roll back to")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why it is rolled back, kept with the version")
    return parser


def _act(asked: argparse.Namespace) -> None:
    from stages.common.tracking.champions import roll_back
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
            console.print(Text(f"version {demoted} was rolled back; version {now} is the champion of {name}\n"))
        console.print(_table(client, name))
    except MlflowException as error:
        what = str(error).partition("\n")[0]
        raise AttuneError(f"MLflow failed: {what}", "`make champion` shows who is champion") from None


def _table(client: "MlflowClient", name: str) -> Table:
    """Return the versions, the newest first: alias, when each was put into use, scores, why it was rolled back."""
    from stages.common.tracking.champions import CHALLENGER, CHAMPION, DEMOTED_TAG, PROMOTED_TAG, unless_gone
    from stages.common.tracking.store import quiet

    with quiet():
        versions = client.search_model_versions(f"name = '{name}'")
        aliases = client.get_registered_model(name).aliases if versions else {}
    if not versions:
        raise AttuneError(f"{name} has no versions in MLflow yet", "make run")
    table = Table(title=f"{name} in MLflow's registry (times in UTC)", title_justify="left")
    for column in ("version", "alias", "put into use", *SCORES, "rolled back"):
        table.add_column(column, justify="right" if column in SCORES else "left")
    for index, version in enumerate(sorted(versions, key=lambda version: -int(version.version))):
        names = [alias for alias in (CHAMPION, CHALLENGER) if str(aliases.get(alias)) == str(version.version)]
        times = version.tags.get(PROMOTED_TAG, "").split()
        if index >= LATEST and not names and not times:
            continue
        metrics: dict[str, float] = {}
        with unless_gone():  # its run may have been deleted
            metrics = client.get_run(version.run_id).data.metrics
        scores = [f"{metrics[key]:.4f}" if key in metrics else "–" for key in SCORES.values()]
        in_use = "\n".join(time[:16].replace("T", " ") for time in times)
        cells = [str(version.version), ", ".join(names), in_use, *scores, shown(version.tags.get(DEMOTED_TAG), REASON)]
        table.add_row(*map(Text, cells), style="bold" if CHAMPION in names else "")
    return table


if __name__ == "__main__":
    sys.exit(main())
