"""`python -m flows.champion`: who is champion and who was; `--rollback` puts the previous one back."""

import argparse
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import program
from flows.model_versions.versions import aliases_of, asking_mlflow
from stages.common.display import display
from stages.common.errors import AttuneError
from stages.common.params import load_params
from stages.common.redact import redacted
from stages.tracking import registry
from stages.tracking.store import connect, tracking_uri

LATEST = 20  # versions listed, besides those that were champion


@program("interrupted; `make champion` shows who is champion")
def main(arguments: list[str] | None = None) -> None:
    """Roll back if asked, and list the versions, the newest first: alias, when it was put into use, scores."""
    parser = argparse.ArgumentParser(prog="python -m flows.champion", description="Who is champion, and who was.")
    parser.add_argument("--rollback", action="store_true", help="put the previous champion back into use")
    parser.add_argument("--uri", action="store_true", help="print the champion's address alone, for `make serve`")
    parser.add_argument("--to", metavar="VERSION", type=int, help="an earlier champion to roll back to")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why it is rolled back, kept with the version")
    options = parser.parse_args(arguments)
    if not options.rollback and (options.to is not None or options.reason):
        raise AttuneError("--to and --reason say how to roll back", "add --rollback")
    console, params = Console(highlight=False, soft_wrap=True), load_params()
    name, headline = params.register_.model_name, params.spec.headline
    with asking_mlflow("start the server, or unset MLFLOW_TRACKING_URI; `make champion` shows who is champion"):
        client = connect()
        if options.uri:
            current = registry.champion(client, name)
            if current is None:
                fix = f"make run; one that failed its gates: make serve MODEL=models:/{name}@{registry.CHALLENGER}"
                raise AttuneError(f"no model of {name} is champion in {redacted(tracking_uri())}", fix)
            registry.check_files(client, name, int(current.version))
            print(f"models:/{name}@{registry.CHAMPION}")
            return
        if options.rollback:
            demoted, restored = registry.roll_back(client, name, options.to, options.reason)
            console.print(Text(f"version {demoted} was rolled back; version {restored} is the champion of {name}\n"))

        versions = client.search_model_versions(f"name = '{name}'")
        if not versions:
            raise AttuneError(f"{name} has no versions in MLflow yet", "make run")
        aliases = client.get_registered_model(name).aliases
        table = Table(title=f"{name} in MLflow's registry (times in UTC)", title_justify="left")
        titles = [score.title for score in headline]
        for column in ("version", "alias", "put into use", *titles, "rolled back"):
            table.add_column(column, justify="right" if column in titles else "left")
        for index, version in enumerate(sorted(versions, key=lambda version: -int(version.version))):
            names, tags = aliases_of(aliases, version.version), version.tags
            time = tags.get(registry.PROMOTED_TAG, "").rpartition(" ")[2]
            if index >= LATEST and not names and not time:
                continue
            metrics: dict[str, float] = {}
            with registry.unless_gone():  # its run may have been deleted
                metrics = client.get_run(version.run_id).data.metrics
            values = [metrics.get(f"test_{score.name}") for score in headline]
            cells = [str(version.version), ", ".join(names), time[:16].replace("T", " ")]
            cells += ["–" if value is None else f"{value:.4f}" for value in values]
            cells.append(display(tags.get(registry.DEMOTED_TAG), 100))
            table.add_row(*map(Text, cells), style="bold" if registry.CHAMPION in names else "")
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
