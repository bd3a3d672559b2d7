"""What a run says of its making: commit, recipe, and a digest of what each stage read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stages.common.digests import sha256_value
from stages.common.errors import AttuneError
from stages.common.graph import Node, read_graph, read_lock, upstream_of
from stages.common.params import Params, load_params
from stages.common.params.loading import PARAMS_FILE
from stages.common.tracking.checkout import (
    COMMIT_TAG,
    DIRTY_TAG,
    SHOWN_COMMIT_TAG,
    SOURCES_TAG,
    commit_tags,
    sources_digest,
)
from stages.common.tracking.flat import flatten

RECIPE_TAG = "attune.recipe"
STAGE_TAG = "attune.stage."
RECIPES = Path("recipes")
NO_PART = {"tracking", "tune", "review"}  # sections of params.yaml that no stage reads
CLOSE = 5  # settings in which params may differ from a recipe to be called after it
TRAINS, CODE = "finetune", "stages"
SHORT = 10  # digits of a digest: enough to tell runs apart, few enough to compare by eye


def origin_tags(params: Params) -> dict[str, str]:
    """Return the tags of a training that begins now, in the current folder."""
    graph = read_graph() if Path("dvc.yaml").exists() else {}
    upstream = upstream_of(graph[TRAINS], graph) if TRAINS in graph else []
    commit = commit_tags()
    sources = sources_of_training(commit[COMMIT_TAG], graph) if commit else ""
    began = {**commit, SOURCES_TAG: sources} if sources else commit
    return {**began, RECIPE_TAG: recipe_of(params), **stage_tags(upstream, graph)}


def sources_of_training(commit: str, graph: Mapping[str, Node]) -> str:
    """Return a digest of the code and configuration that a training depends on, as they are now.

    The code of later stages may still change until they run, and `dvc.lock` keeps the params.

    Args:
        commit: full hash of the one that was checked out when the training began.
        graph: of `dvc.yaml`.
    """
    early = {TRAINS, *(upstream_of(graph[TRAINS], graph) if TRAINS in graph else [])}
    read = {dep for name in early & graph.keys() for dep in graph[name].deps}
    later = sorted({dep for node in graph.values() for dep in node.deps} - read)
    code = [dep for dep in later if Path(dep).parts[0] == CODE and not any(_overlap(dep, one) for one in read)]
    return sources_digest(commit, [str(PARAMS_FILE), *code])


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def is_origin(tag: str) -> bool:
    """Return whether a tag tells of a training's beginning: it stays as it was first set."""
    return tag.startswith(("mlflow.", STAGE_TAG)) or tag in (SHOWN_COMMIT_TAG, DIRTY_TAG, SOURCES_TAG, RECIPE_TAG)


def recipe_of(params: Params, folder: Path = RECIPES) -> str:
    """Return the recipe that params are: its name, with up to five settings that differ; `none` if it is more."""
    mine = _settings(params)
    found: list[tuple[int, str, list[str]]] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            other = _settings(load_params(path))
        except AttuneError:
            continue
        keys = [key for key in {**mine, **other} if mine.get(key, "") != other.get(key, "")]
        found.append((len(keys), path.stem, keys))
    count, name, keys = min(found, default=(CLOSE + 1, "", []))
    if count > CLOSE:
        return "none"
    return f"{name}, but {', '.join(keys)}" if keys else name


def stage_tags(
    stages: Iterable[str], graph: Mapping[str, Node], lock: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return a short digest of what each of the stages read (command, code, data, params), as `dvc.lock` has it.

    Two runs part at the first stage whose digests differ.

    Args:
        stages: names; those that the lock does not know are left out.
        graph: of `dvc.yaml`.
        lock: stages of a `dvc.lock`; None: of the one here.
    """
    kept = of_one_run(read_lock() if lock is None else lock, graph)
    return {f"{STAGE_TAG}{name}": _digest(kept[name]) for name in stages if name in kept}


def of_one_run(lock: Mapping[str, Any], graph: Mapping[str, Node]) -> dict[str, Any]:
    """Return the stages of a lock that fit together: what one reads is what those before it wrote.

    While a pipeline is at work, the lock still tells of an earlier run where this one has not come yet.
    """
    kept: dict[str, Any] = {}
    made: dict[str, str] = {}  # md5 of each out
    for name, node in graph.items():
        deps = {dep["path"]: _md5(dep) for dep in lock.get(name, {}).get("deps", [])}
        complete = all(before in kept for before in upstream_of(node, graph))
        if name in lock and complete and all(made.get(path, md5) == md5 for path, md5 in deps.items()):
            kept[name] = lock[name]
            made |= {out["path"]: _md5(out) for out in lock[name].get("outs", [])}
    return kept


def _md5(entry: Mapping[str, Any]) -> str:
    return str(entry.get("md5") or entry.get("hash") or "")


def _digest(entry: Mapping[str, Any]) -> str:
    deps = sorted((dep["path"], _md5(dep)) for dep in entry.get("deps", []))
    read = [entry.get("cmd"), deps, json.loads(json.dumps(entry.get("params", {}), default=str))]
    return sha256_value(read)[:SHORT]


def _settings(params: Params) -> dict[str, Any]:
    return dict(flatten(params.model_dump(mode="json", by_alias=True, exclude=NO_PART)))
