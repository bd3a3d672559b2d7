"""`python -m flows.plan`: what a run would do and why; nothing is run or written."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import exit_status
from flows.git import asked
from flows.prepare import REGISTERS, lacks_model, reported
from flows.search.params_patch import change
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_graph, upstream_of
from stages.common.params import Params, check_params
from stages.common.params.loading import PARAMS_FILE, read_yaml
from stages.common.recorded import Change, changes
from stages.common.shown import listed, shown
from stages.common.stage import LOGS
from stages.common.tracking.registry import STAMP

Verdict = Literal["up to date", "restored", "runs", "may run"]

FORCED, RESTORED = "forced", "in DVC's cache"
WIDTH = 160  # characters of a reason
MOST_REASONS = 6  # listed of a stage
MOST_FILES = 4  # of code that changed, by name


@dataclass(frozen=True)
class Step:
    """What a run would do with one stage.

    Args:
        node: the stage.
        verdict: `restored`: its outs come back from DVC's cache;
            `may run`: if the stages before it, which run, give it other files than it has read.
        reasons: why it runs, a line each.
    """

    node: Node
    verdict: Verdict
    reasons: tuple[str, ...] = ()


def make_plan(
    targets: Sequence[str] = (), *, force: bool = False, set: Mapping[str, Any] | None = None, refresh: bool = False
) -> list[Step]:
    """Return what `flows.pipeline` would do with each stage, in graph order.

    Args:
        targets: stages to bring up to date, with those before them; none: all.
        force: run them even if nothing changed.
        set: other values of params, by dotted key.
        refresh: look at sources again whose content may have changed without any pin knowing.

    Raises:
        AttuneError: if a target, key or value is wrong, or DVC cannot read the project.
    """
    data = change(read_yaml(PARAMS_FILE), set or {})
    params = check_params(data)
    graph = chosen(targets)
    found = changes(list(graph), data if set else None)
    forced = forced_stages(graph, params, force=force, refresh=refresh)
    if REGISTERS in graph:
        with suppress(Exception):  # a registry that does not answer says nothing of the plan
            if reason := lacks_model():
                forced.setdefault(REGISTERS, []).append(reason)
            elif reported():  # a run writes the stamp before it asks DVC
                found[REGISTERS] = [one for one in found[REGISTERS] if one.what != str(STAMP)]
    steps: list[Step] = []
    runs: list[Node] = []
    for name, node in graph.items():
        reasons = [*forced.get(name, []), *map(_told, found[name])]
        before = [other.name for other in runs if other.name in upstream_of(node, graph)]
        if reasons == [RESTORED] and not before:
            steps.append(Step(node, "restored", (RESTORED,)))
        elif reasons and reasons != [RESTORED]:
            steps.append(Step(node, "runs", tuple(reasons)))
        elif before:
            steps.append(Step(node, "may run", (f"if {before[-1]} changes what it reads",)))
        else:
            steps.append(Step(node, "up to date"))
        if steps[-1].verdict in ("runs", "may run"):
            runs.append(node)
    return steps


def chosen(targets: Sequence[str]) -> dict[str, Node]:
    """Return the stages of the graph that the targets need, in graph order; all of them without any.

    Raises:
        AttuneError: if a target is no stage.
    """
    graph = read_graph()
    for name in targets:
        if name not in graph:
            raise AttuneError(f"{shown(name, 60)!r} is no stage of dvc.yaml", f"stages are {', '.join(graph)}")
    needed = {name for target in targets for name in (target, *upstream_of(graph[target], graph))}
    return {name: node for name, node in graph.items() if not targets or name in needed}


def forced_stages(graph: Mapping[str, Node], params: Params, *, force: bool, refresh: bool) -> dict[str, list[str]]:
    """Return the stages that run whatever DVC thinks, each with the reason."""
    found = {name: [FORCED] for name in graph} if force else {}
    if refresh and "ingest" in graph and (moving := params.ingest.unpinned):
        found["ingest"] = [f"refresh: {shown(', '.join(moving), WIDTH)} may have changed"]
    return found


def _told(found: Change) -> str:
    return f"{found}{_files(found.what) if found.kind == 'code' else ''}"


def _files(folder: str) -> str:
    """Return which files of a folder differ from the commit that recorded the last results, as far as Git knows."""
    commit = asked(Path(), "log", "-1", "--format=%H", "--", "dvc.lock")
    if not commit:
        return ""
    changed = asked(Path(), "diff", "--name-only", commit, "--", folder).split("\n")
    new = asked(Path(), "ls-files", "-o", "--exclude-standard", folder).split("\n")
    named = [str(Path(name).relative_to(folder)) for name in changed + new if Path(folder) in Path(name).parents]
    return f" ({listed(named, MOST_FILES)})" if named else ""


def parse_setting(text: str) -> tuple[str, Any]:
    """Return key and value of `finetune.learning_rate=1e-4`; the value is read as in params.yaml.

    Raises:
        AttuneError: if it is no such thing.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise AttuneError(f"--set {shown(text, 60)}: no value", "write it like --set finetune.learning_rate=1e-4")
    try:
        return key.strip(), YAML(typ="safe", pure=True).load(value)
    except YAMLError:
        raise AttuneError(f"--set {shown(text, 60)}: not a value of YAML", "put quotes around texts") from None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to run."""
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="bring these up to date, and what they need")
    parser.add_argument("--force", action="store_true", help="run stages even if nothing has changed")
    parser.add_argument("--refresh", action="store_true", help="look at sources without a pin again (sql, url)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another value in params.yaml; several times"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the plan."""
    parser = argparse.ArgumentParser(prog="python -m flows.plan", description="What a run would do, and why.")
    add_options(parser)
    asked = parser.parse_args(arguments)

    def work() -> None:
        settings = dict(map(parse_setting, asked.set))
        steps = make_plan(asked.targets, force=asked.force, set=settings, refresh=asked.refresh)
        Console(highlight=False).print(table(steps), Text(_closing(steps)))

    return exit_status(work, "interrupted; nothing was changed")


def table(steps: Sequence[Step]) -> Table:
    """Return the plan as a table for the terminal."""
    made = Table(title="What a run would do", title_justify="left")
    for column in ("stage", "", "why", "last took"):
        made.add_column(column, justify="right" if column == "last took" else "left")
    for step in steps:
        style = {"up to date": "dim", "restored": "dim", "runs": "bold", "may run": ""}[step.verdict]
        more = [f"and {len(step.reasons) - MOST_REASONS} more"] if len(step.reasons) > MOST_REASONS else []
        why = "\n".join([*(shown(reason, WIDTH) for reason in step.reasons[:MOST_REASONS]), *more])
        made.add_row(*map(Text, (step.node.name, step.verdict, why, _last_took(step.node.name))), style=style)
    return made


def _last_took(name: str) -> str:
    try:
        return f"{json.loads((LOGS / f'{name}.json').read_text(encoding='utf-8'))['seconds']:.1f} s"
    except (OSError, ValueError, KeyError):
        return ""


def _closing(steps: Sequence[Step]) -> str:
    count = {verdict: sum(step.verdict == verdict for step in steps) for verdict in ("runs", "may run")}
    if not any(count.values()):
        return "everything is up to date: a run would start no stage"
    return f"{count['runs']} of {len(steps)} stages run" + (f", {count['may run']} may" if count["may run"] else "")


if __name__ == "__main__":
    sys.exit(main())
