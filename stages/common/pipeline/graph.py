"""`dvc.yaml`, the one place where stages are listed, and `dvc.lock`, what DVC recorded of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.display import display
from stages.common.errors import AttuneError

LOCK = "dvc.lock"
FILLED_IN = re.compile(r"\$\{(.*?)\}")
TASK = re.compile("[a-z0-9-]+")  # nothing that leads elsewhere: params.yaml may be of anybody's commit
PUT_BACK = "`make run` puts the last whole one back"


class LockBroken(AttuneError):
    """`dvc.lock` is empty or cut off, as DVC leaves it when it is killed while it writes."""


@dataclass(frozen=True)
class Node:
    """One stage of the graph as `dvc.yaml` declares it; paths are relative to the project."""

    name: str
    desc: str
    cmd: str
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


def read_graph(root: Path = Path()) -> dict[str, Node]:
    """Return the stages by name, each after the stages whose outs it reads.

    `${task}` stands for the task of `params.yaml`, as DVC has it. An AttuneError if there is no `dvc.yaml` here, it
    cannot be read, its stages wait for each other, or it holds another `${…}`.
    """
    path = root / "dvc.yaml"
    if not path.exists():
        raise AttuneError("there is no dvc.yaml here", "run stages from the project's folder")
    try:
        stages = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["stages"]
        task = _task_at(root) if FILLED_IN.search(str(stages)) else ""
        nodes = [_node(name, _filled(entry, task)) for name, entry in stages.items()]
    except (YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        what = f"{path} is not understood: {type(error).__name__} {display(str(error), 120)}"
        raise AttuneError(what, "each stage has a cmd, and lists of deps, params and outs; no foreach") from None
    ordered: dict[str, Node] = {}
    while waiting := [node for node in nodes if node.name not in ordered]:
        ready = [node for node in waiting if not any(_reads(node, other) for other in waiting if other is not node)]
        if not ready:
            raise AttuneError("the stages in dvc.yaml wait for each other", "break the cycle among their deps")
        ordered[ready[0].name] = ready[0]
    return ordered


def read_lock(root: Path = Path()) -> dict[str, Any]:
    """Return the stages of `dvc.lock`, none before the first run; an AttuneError if it cannot be read."""
    path = root / LOCK
    return parse_lock(path.read_bytes().decode(errors="surrogateescape")) if path.exists() else {}


def parse_lock(text: str, *, pure: bool = True) -> dict[str, Any]:
    """Return the stages in the text of a `dvc.lock`; not `pure`: quicker, for whoever needs no values.

    A LockBroken if it is empty or not understood, an AttuneError if a merge has left a conflict in it.
    """
    if conflict := re.search("^(<<<<<<<|>>>>>>>)", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        fix = "take one side whole: git checkout --ours dvc.lock (or --theirs; where the marks are committed: "
        fix += "git checkout COMMIT dvc.lock), then make run"
        raise AttuneError(f"{LOCK}, line {line}: a merge has left a conflict", fix)
    if not text.strip("\0 \r\n\t"):
        raise LockBroken(f"{LOCK} is empty, as DVC leaves it when it is killed", PUT_BACK)
    try:
        stages = YAML(typ="safe", pure=pure).load(text).get("stages", {})
        return {name: {**entry} for name, entry in stages.items()}
    except (YAMLError, TypeError, AttributeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}," if mark else ""
        raise LockBroken(f"{LOCK}{where} is not understood: {type(error).__name__}", PUT_BACK) from None


def upstream_of(node: Node, graph: Mapping[str, Node]) -> list[str]:
    """Return the names of all stages that a stage needs, directly or through others, in the order of the graph."""
    needed = {node.name}
    for other in reversed([*graph.values()]):  # where a stage comes after those whose outs it reads
        if any(_reads(graph[name], other) for name in needed):
            needed.add(other.name)
    return [name for name in graph if name in needed and name != node.name]


def _task_at(root: Path) -> str:
    from stages.common.params.params_file import PARAMS_FILE, read_yaml

    params = read_yaml(root / PARAMS_FILE)
    task = params.get("task") if isinstance(params, Mapping) else None
    if not isinstance(task, str) or not TASK.fullmatch(task):
        what = f"{root / PARAMS_FILE}: dvc.yaml asks for the task, and this is none: {display(str(task), 60)}"
        raise AttuneError(what, "write it there, such as `task: text-classification`")
    return task


def _filled(value: Any, task: str) -> Any:
    """Return a value of `dvc.yaml` with the task in its place."""
    if isinstance(value, Mapping):
        return {_filled(key, task): _filled(inner, task) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, task) for inner in value]
    if other := [name for name in FILLED_IN.findall(str(value)) if name != "task"]:
        raise AttuneError(f"dvc.yaml: ${{{display(other[0], 60)}}} is not filled in", "only ${task} is: write it out")
    return value.replace("${task}", task) if isinstance(value, str) else value


def _node(name: str, entry: dict[str, Any]) -> Node:
    def paths(*keys: str) -> tuple[str, ...]:
        entries = [path for key in keys for path in entry.get(key, [])]
        return tuple(path if isinstance(path, str) else next(iter(path)) for path in entries)

    return Node(
        name=name,
        desc=entry.get("desc", ""),
        cmd=entry["cmd"],
        deps=paths("deps"),
        outs=paths("outs", "metrics", "plots"),
        params=tuple(entry.get("params", [])),
        meta=entry.get("meta", {}),
    )


def _reads(node: Node, other: Node) -> bool:
    """Whether a dependency of `node` is, holds or lies in an out of `other`."""
    deps, outs = ([f"{normpath(path)}/" for path in paths] for paths in (node.deps, other.outs))
    return any(dep.startswith(out) or out.startswith(dep) for dep in deps for out in outs)
