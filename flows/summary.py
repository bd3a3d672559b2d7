"""`python -m flows.summary`: the last run on one screen."""

import os
import sys

from rich.console import Console
from rich.markdown import Markdown

from flows.command import program
from flows.execution.stage_process import Outcome
from flows.reporting.artifact import places
from flows.reporting.reports import Reports, read_report, read_reports
from flows.reporting.run_summary import summary
from stages.common.errors import AttuneError
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import LOGS


@program("interrupted")
def main() -> None:
    """Print the summary; what does not exist yet is left out."""
    graph, current = read_graph(), read_reports()
    if not current.metrics:
        raise AttuneError("there are no results yet", "make run")
    started = float(os.environ.get("ATTUNE_STARTED", "0"))  # of this `make run`; without one, every stage counts
    outcomes = {}
    for name in graph:
        log = read_report(LOGS / f"{name}.json")
        why = f"peak {log['peak_mib']} MiB" if log else "from the cache"
        fresh = log.get("finished", 0) > started
        outcomes[name] = Outcome("success" if fresh else "cached", log.get("seconds", 0.0), why)
    text = summary(outcomes, Reports(), current, places(current, other_params=False))
    Console(highlight=False).print(Markdown(text))


if __name__ == "__main__":
    sys.exit(main())
