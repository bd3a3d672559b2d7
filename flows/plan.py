"""`python -m flows.plan`: what a run would do and why. Nothing is run or written."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.command import program
from flows.prepare import find_registered
from flows.reporting.reports import read_report
from flows.search.params_patch import change as change_params
from stages.common.display import display, listed
from stages.common.errors import AttuneError
from stages.common.git import GitFailed, NoGit, git
from stages.common.params import PARAMS_FILE, Params, check_params, read_yaml
from stages.common.pipeline.dvc_status import Change, changes
from stages.common.pipeline.graph import Node, read_graph, upstream_of
from stages.common.pipeline.stage import LOGS
from stages.tracking.provenance import REGISTERS
from stages.tracking.registry import STAMP

Verdict = Literal["up to date", "restored", "runs", "may run"]

RESTORED = "in DVC's cache"
WIDTH = 160  # characters of a reason
MOST_REASONS, MOST_FILES = 6, 4  # listed of a stage, of a folder of code


@dataclass(frozen=True)
class Step:
    """What a run would do with one stage.

    `restored`: its outs come back from DVC's cache; `may run`: if the stages before it, which run, give it other files
    than it has read.
    """

    node: Node
    verdict: Verdict
    reasons: tuple[str, ...] = ()  # why it runs, a line each


def make_plan(
    targets: Sequence[str] = (), *, force: bool = False, set: Mapping[str, Any] | None = None, refresh: bool = False
) -> list[Step]:
    """Return what `flows.pipeline` would do with each stage, in graph order; the parameters are the same.

    Raises:
        AttuneError: if a target, key or value is wrong, or DVC cannot read the project.
    """
    data = change_params(read_yaml(PARAMS_FILE), set or {})
    params, graph = check_params(data), chosen(targets)
    current = changes(list(graph), data if set else None)
    forced = forced_stages(graph, params, force=force, refresh=refresh)
    if REGISTERS in graph:
        with suppress(Exception):  # a registry that does not answer says nothing of the plan
            registration, reason = find_registered()
            if reason:
                forced.setdefault(REGISTERS, []).append(reason)
            elif registration:  # a run writes the stamp before it asks DVC
                current[REGISTERS] = [change for change in current[REGISTERS] if change.what != str(STAMP)]
    steps: dict[str, Step] = {}
    for name, node in graph.items():
        reasons = [*forced.get(name, []), *(f"{change}{_changed_code(change)}" for change in current[name])]
        running = [other for other in upstream_of(node, graph) if steps[other].verdict in ("runs", "may run")]
        if reasons and reasons != [RESTORED]:
            steps[name] = Step(node, "runs", tuple(reasons))
        elif running:
            steps[name] = Step(node, "may run", (f"if {running[-1]} changes what it reads",))
        else:
            steps[name] = Step(node, "restored" if reasons else "up to date", tuple(reasons))
    return list(steps.values())


def chosen(targets: Sequence[str]) -> dict[str, Node]:
    """Return the stages that the targets need, in graph order; all without any; an AttuneError if one is none."""
    graph = read_graph()
    for name in targets:
        if name not in graph:
            raise AttuneError(f"{display(name, 60)!r} is no stage of dvc.yaml", f"stages are {', '.join(graph)}")
    needed = {name for target in targets for name in (target, *upstream_of(graph[target], graph))}
    return {name: node for name, node in graph.items() if not targets or name in needed}


def forced_stages(graph: Mapping[str, Node], params: Params, *, force: bool, refresh: bool) -> dict[str, list[str]]:
    """Return the stages that run whatever DVC thinks, each with the reason."""
    forced = {name: ["forced"] for name in graph} if force else {}
    if refresh and "ingest" in graph and (unpinned := params.ingest.unpinned):
        forced["ingest"] = [f"refresh: {display(', '.join(unpinned), WIDTH, None)} may have changed"]
    return forced


def _changed_code(change: Change) -> str:
    """Return which files of a folder of code differ from the commit that recorded the last results, if Git knows."""
    if change.kind != "code":
        return ""
    try:
        commit = git(Path(), "log", "-1", "--format=%H", "--", "dvc.lock")
        changed = git(Path(), "diff", "--name-only", commit, "--", change.what).split("\n") if commit else []
        new = git(Path(), "ls-files", "-o", "--exclude-standard", change.what).split("\n") if commit else []
    except NoGit:
        return ""
    except GitFailed as error:
        return f" ({error.what})"
    names = [name.removeprefix(f"{change.what}/") for name in changed + new if name.startswith(f"{change.what}/")]
    return f" ({listed(names, MOST_FILES)})" if names else ""


def parse_setting(text: str) -> tuple[str, Any]:
    """Return key and value of `finetune.learning_rate=1e-4`; the value is read as in params.yaml.

    Raises:
        AttuneError: if there is no key, no value, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise AttuneError(f"--set {display(text, 60)}: no value", "write it like --set finetune.learning_rate=1e-4")
    try:
        return key.strip(), YAML(typ="safe", pure=True).load(value)
    except YAMLError:
        raise AttuneError(f"--set {display(text, 60)}: not a value of YAML", "put quotes around texts") from None


def read_options(name: str, description: str, arguments: Sequence[str] | None) -> dict[str, Any]:
    """Return the command line's options as parameters of `make_plan` and the flow; an AttuneError if one is wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m flows.{name}", description=description)
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="bring these up to date, and what they need")
    parser.add_argument("--force", action="store_true", help="run stages even if nothing has changed")
    parser.add_argument("--refresh", action="store_true", help="look at sources without a pin again (sql, url)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another value in params.yaml; several times"
    )
    options = vars(parser.parse_args(arguments))
    return {**options, "set": dict(map(parse_setting, options["set"]))}


@program("interrupted; nothing was changed")
def main(arguments: list[str] | None = None) -> None:
    """Print the plan."""
    steps = make_plan(**read_options("plan", "What a run would do, and why.", arguments))
    table = Table("stage", "", "why", title="What a run would do", title_justify="left")
    table.add_column("last took", justify="right")
    for step in steps:
        style = {"runs": "bold", "may run": ""}.get(step.verdict, "dim")
        more = [f"and {len(step.reasons) - MOST_REASONS} more"] if len(step.reasons) > MOST_REASONS else []
        why = "\n".join([*(display(reason, WIDTH, None) for reason in step.reasons[:MOST_REASONS]), *more])
        seconds = read_report(LOGS / f"{step.node.name}.json").get("seconds")
        took = f"{seconds:.1f} s" if seconds else ""
        table.add_row(*map(Text, (step.node.name, step.verdict, why, took)), style=style)
    runs, may = (sum(step.verdict == verdict for step in steps) for verdict in ("runs", "may run"))
    closing = f"{runs} of {len(steps)} stages run" + (f", {may} may" if may else "")
    nothing = "everything is up to date: a run would start no stage"
    Console(highlight=False).print(table, Text(closing if runs or may else nothing))


if __name__ == "__main__":
    sys.exit(main())
