"""`dvc.yaml`, the one place where stages are listed, read for those who need to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.display import display
from stages.common.errors import AttuneError


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

    Raises:
        AttuneError: if there is no `dvc.yaml` here, it is none, or its stages wait for each other.
    """
    path = root / "dvc.yaml"
    if not path.exists():
        raise AttuneError("there is no dvc.yaml here", "run stages from the project's folder")
    try:
        stages = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["stages"]
        nodes = [_node(name, entry) for name, entry in stages.items()]
    except (YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        what = f"{path} is not understood: {type(error).__name__} {display(str(error), 120)}"
        raise AttuneError(what, "each stage has a cmd, and lists of deps, params and outs; no foreach") from None
    return _in_order(nodes)


def read_lock(root: Path = Path()) -> dict[str, Any]:
    """Return the stages of `dvc.lock` as DVC wrote them, or nothing before the first run."""
    path = root / "dvc.lock"
    if not path.exists():
        return {}
    lock = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or {}
    stages: dict[str, Any] = lock.get("stages", {})
    return stages


def upstream_of(node: Node, graph: Mapping[str, Node]) -> list[str]:
    """Return the names of all stages that a stage needs, directly or through others, in the order of the graph."""
    needed: set[str] = set()
    waiting = [node]
    while waiting:
        last = waiting.pop()
        found = [other for other in graph.values() if other.name not in needed and _reads(last, other)]
        needed.update(other.name for other in found)
        waiting += found
    return [name for name in graph if name in needed and name != node.name]


def _node(name: str, entry: dict[str, Any]) -> Node:
    outs = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
    return Node(
        name=name,
        desc=entry.get("desc", ""),
        cmd=entry["cmd"],
        deps=tuple(_path_of(dep) for dep in entry.get("deps", [])),
        outs=tuple(_path_of(out) for out in outs),
        params=tuple(entry.get("params", [])),
        meta=entry.get("meta", {}),
    )


def _path_of(entry: str | dict[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _reads(node: Node, other: Node) -> bool:
    """Whether a dependency of `node` is, holds or lies in an out of `other`."""
    deps, outs = ([f"{normpath(path)}/" for path in paths] for paths in (node.deps, other.outs))
    return any(dep.startswith(out) or out.startswith(dep) for dep in deps for out in outs)


def _in_order(nodes: list[Node]) -> dict[str, Node]:
    ordered: dict[str, Node] = {}
    while len(ordered) < len(nodes):
        ready = [
            node
            for node in nodes
            if node.name not in ordered
            and all(other.name in ordered for other in nodes if other is not node and _reads(node, other))
        ]
        if not ready:
            raise AttuneError("the stages in dvc.yaml wait for each other", "break the cycle among their deps")
        ordered[ready[0].name] = ready[0]
    return ordered
