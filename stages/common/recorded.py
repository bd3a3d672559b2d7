"""What `dvc.lock` has recorded of a stage, held against the files as they are now, as DVC judges it.

Nothing is locked and nothing is written but DVC's memory of hashes, so it may be asked at any time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.common.errors import AttuneError

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

Kind = Literal["runs always", "never run", "not made here yet", "command", "params", "code", "data", "outs"]

CODE = "stages"  # the folder of what is code among the dependencies
MOST = 60  # characters shown of a value


@dataclass(frozen=True)
class Change:
    """One reason why a stage is out of date.

    Args:
        kind: what sort of thing changed.
        what: a path, or the dotted key of a param; empty for the stage as a whole.
        how: for people: `deleted`, `3 → 5`.
    """

    kind: Kind
    what: str = ""
    how: str = ""

    def __str__(self) -> str:
        """`params: clean.length.min 3 → 5`."""
        told = " ".join(part for part in (self.what, self.how) if part)
        return f"{self.kind}: {told}" if told else self.kind


def changes_of(name: str, data: Any = None, root: Path = Path()) -> list[Change]:
    """Return why DVC would run a stage now, apart from what the stages before it will have done; nothing: it would not.

    Args:
        name: of the stage.
        data: params to judge by instead of those in `params.yaml`.
        root: the project's folder.

    Raises:
        AttuneError: if DVC cannot read the project.
    """
    return changes([name], data, root)[name]


def changes(names: list[str], data: Any = None, root: Path = Path()) -> dict[str, list[Change]]:
    """Return the same of several stages, which is quicker than one by one."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            known = {stage.name: stage for stage in repo.index.stages if getattr(stage, "name", None)}
            return {name: list(_of(known[name], data)) for name in names}
    except DvcException as error:
        fix = "after a merge, take one side whole: git checkout --ours dvc.lock (or --theirs), then make run"
        raise AttuneError(f"DVC cannot read this project: {error}", fix) from None


def _of(stage: "PipelineStage", data: Any) -> list[Change]:
    from dvc.dependency.param import ParamsDependency

    if not any(one.hash_info for one in (*stage.deps, *stage.outs)):
        return [Change("never run")]
    cached = [out for out in stage.outs if out.use_cache]
    if cached and not any(out.exists for out in cached):
        return [Change("not made here yet")]  # a fresh clone; what else differs is no news
    found = [Change("command", stage.cmd)] if stage.changed_stage() else []
    if stage.always_changed or stage.is_callback:
        found.append(Change("runs always"))
    for dep in () if stage.frozen else stage.deps:
        if isinstance(dep, ParamsDependency):
            found += _params(dep, data)
        else:
            kind: Kind = "code" if Path(dep.def_path).parts[0] == CODE else "data"
            found += [Change(kind, dep.def_path, _said(how)) for how in dep.status().values()]
    return found + [Change("outs", out.def_path, _said(how)) for out in stage.outs for how in out.status().values()]


def _said(how: object) -> str:
    return {"modified": "changed"}.get(str(how), str(how))


def _params(dep: Any, data: Any) -> list[Change]:
    old = dep.hash_info.value or {}
    new = dep.read_params() if data is None else {key: data[key] for key in dep.params if key in data}
    return [Change("params", key, how) for name in dep.params for key, how in _differing(old, new, name)]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], key: str, prefix: str = "") -> list[tuple[str, str]]:
    """Return what differs of a key, down to single settings: (`clean.length.min`, `3 → 5`)."""
    dotted = f"{prefix}{key}"
    if key not in new:
        return [(dotted, f"{_short(old[key])} → left out")] if key in old else []
    if key not in old:
        return [(dotted, f"new: {_short(new[key])}")]
    was, now = old[key], new[key]
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*was, *now])
        return [found for inner in keys for found in _differing(was, now, inner, f"{dotted}.")]
    return [] if was == now else [(dotted, f"{_short(was)} → {_short(now)}")]


def _short(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return said if len(said) <= MOST else f"{said[: MOST - 1]}…"
