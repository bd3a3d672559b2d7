"""`python -m flows.pipeline`: the DVC graph as a Prefect flow, one task per stage, in graph order.

Retries, delays and timeouts stand in the `meta` of each stage in dvc.yaml; the stages themselves know nothing of it.
"""

import os
import sys

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # before Prefect reads its settings

from prefect import flow, get_run_logger, task

from flows.stage_process import Outcome, reproduce, seconds_of
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_graph
from stages.common.params import load_params

DEFAULT_TIMEOUT = "1h"


@task
def run_stage(node: Node) -> str:
    """Bring one stage up to date; return `success` or `cached`.

    Raises:
        RuntimeError: naming the stage and its last lines, if it failed or took longer than its timeout.
    """
    outcome = reproduce(node.name, seconds_of(node.meta.get("timeout", DEFAULT_TIMEOUT)), get_run_logger().info)
    if outcome.state in ("failed", "timeout"):
        raise RuntimeError(_explain(node, outcome))
    return outcome.state


@flow(name="attune", log_prints=True)
def pipeline() -> dict[str, str]:
    """Run what has to run of the pipeline; return the state of each stage.

    Raises:
        AttuneError: if params.yaml is wrong, before anything runs.
    """
    load_params(complete=True)
    states: dict[str, str] = {}
    for node in read_graph().values():
        delay = seconds_of(node.meta.get("retry_delay", 0))
        named = run_stage.with_options(
            name=node.name,
            task_run_name=node.name,
            description=node.desc,
            retries=int(node.meta.get("retries", 0)),
            retry_delay_seconds=delay,
        )
        states[node.name] = named(node)
    print("  ".join(f"{name}: {state}" for name, state in states.items()))
    return states


def _explain(node: Node, outcome: Outcome) -> str:
    what = f"took longer than {node.meta.get('timeout', DEFAULT_TIMEOUT)}" if outcome.state == "timeout" else "failed"
    return f"the stage {node.name} {what}; its last lines:\n  " + "\n  ".join(outcome.last_lines)


if __name__ == "__main__":
    try:
        pipeline()
    except AttuneError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except RuntimeError:
        sys.exit(1)  # Prefect has logged it
