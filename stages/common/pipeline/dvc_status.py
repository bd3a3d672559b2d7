"""What `dvc.lock` has recorded of a stage, held against the files as they are now, as DVC judges it.

Nothing is locked and nothing is written but DVC's memory of hashes, so it may be asked at any time.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.common.errors import AttuneError

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

Kind = Literal[
    "runs always", "never run", "not made here yet", "in DVC's cache", "command", "params", "code", "data", "outs"
]

CODE = "stages"  # the folder of what is code among the dependencies
MOST = 60  # characters shown of a value
ABSENT = object()  # where a value of YAML would be: null is one, too


@dataclass(frozen=True)
class Change:
    """One reason why a stage is out of date."""

    kind: Kind
    what: str = ""  # a path, or the dotted key of a param; empty for the stage as a whole
    how: str = ""  # for people: `deleted`, `3 → 5`

    def __str__(self) -> str:
        """`params: clean.length.min 3 → 5`."""
        told = " ".join(part for part in (self.what, self.how) if part)
        return f"{self.kind}: {told}" if told else self.kind


def changes_of(name: str) -> list[Change]:
    """Return the changes of one stage."""
    return changes([name])[name]


def changes(names: list[str], data: Any = None, root: Path = Path(), *, outs: bool = True) -> dict[str, list[Change]]:
    """Return why DVC would run each stage now, apart from what the stages before it will have done.

    Args:
        names: of the stages.
        data: params to judge by instead of those in `params.yaml`.
        root: the project's folder.
        outs: false: only what the stages depend on counts, even if they are frozen.

    Raises:
        AttuneError: if DVC cannot read the project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            mine = (stage for stage in repo.index.stages if Path(stage.path_in_repo) == Path("dvc.yaml"))
            known = {stage.name: stage for stage in mine}
            if unknown := [name for name in names if name not in known]:
                raise AttuneError(f"dvc.yaml: {unknown[0]} is no stage of its own for DVC", "no foreach, no matrix")
            return {name: list(_of(known[name], data, outs=outs)) for name in names}
    except DvcException as error:
        fix = "`dvc status` there says the same; after a merge, take one side whole: git checkout --ours dvc.lock (or "
        raise AttuneError(f"DVC cannot read this project: {error}", f"{fix}--theirs), then make run") from None


def _of(stage: "PipelineStage", data: Any, *, outs: bool) -> list[Change]:
    from dvc.dependency.param import ParamsDependency

    if not any(one.hash_info for one in (*stage.deps, *stage.outs)):
        return [Change("never run")]
    missing = [out for out in stage.outs if not out.exists] if outs else []
    restored = [out for out in missing if _in_cache(out)]
    cached = [out for out in stage.outs if out.use_cache]
    if outs and cached and not any(out.exists for out in cached) and not all(out in restored for out in cached):
        return [Change("not made here yet")]  # a fresh clone; what else differs is no news
    found = [Change("command", stage.cmd)] if stage.changed_stage() else []
    if stage.always_changed or stage.is_callback:
        found.append(Change("runs always"))
    for dep in () if stage.frozen and outs else stage.deps:
        if isinstance(dep, ParamsDependency):
            new = dep.read_params() if data is None else {key: data[key] for key in dep.params if key in data}
            found += params_between(dep.hash_info.value or {}, new, dep.params)
        elif not (outs and not dep.exists and _in_cache(dep)):  # else the stage that makes it has something to say
            kind: Kind = "code" if Path(dep.def_path).parts[0] == CODE else "data"
            found += _status(kind, dep)
    for out in stage.outs if outs else ():
        found += [] if out in restored else _status("outs", out)
    return found or ([Change("in DVC's cache")] if restored else [])


def _status(kind: Kind, one: Any) -> list[Change]:
    return [Change(kind, one.def_path, str(how).replace("modified", "changed")) for how in one.status().values()]


@contextmanager
def as_cached(out: Any) -> Iterator[None]:
    """Have DVC answer for an out that Git keeps as for those it caches: the cache of runs holds it as well."""
    used, out.use_cache = out.use_cache, True  # of this object alone
    try:
        yield
    finally:
        out.use_cache = used


def _in_cache(out: Any) -> bool:
    with as_cached(out):
        return bool(out.hash_info) and not out.changed_cache()


def params_between(
    old: Mapping[str, Any], new: Mapping[str, Any], sections: Iterable[str] | None = None
) -> list[Change]:
    """Return which settings differ between two records of params, in these sections of theirs (None: all)."""
    named = dict.fromkeys([*old, *new]) if sections is None else sections
    before, after = ({name: params[name] for name in named if name in params} for params in (old, new))
    return [Change("params", key, _told(was, now)) for key, was, now in differing(before, after)]


def differing(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, str | None, str | None]]:
    """Yield what differs between two values of YAML, down to single settings.

    Yields:
        Its dotted key, and both values as text: (`clean.length.min`, `3`, `5`); None: there is none.
    """
    dot = f"{key}." if key else ""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for inner in dict.fromkeys([*old, *new]):
            yield from differing(old.get(inner, ABSENT), new.get(inner, ABSENT), f"{dot}{inner}")
    elif _of_mappings(old) and _of_mappings(new):
        for number, (was, now) in enumerate(zip_longest(old, new, fillvalue=ABSENT)):
            yield from differing(was, now, f"{dot}{number}")
    elif old != new:
        yield key, _text(old), _text(new)


def _of_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _told(was: str | None, now: str | None) -> str:
    before, after = (text if text is None or len(text) <= MOST else f"{text[: MOST - 1]}…" for text in (was, now))
    return f"new: {after}" if was is None else f"{before} → {'left out' if now is None else after}"


def _text(value: Any) -> str | None:
    if value is ABSENT:
        return None
    return value if isinstance(value, str) else json.dumps(_without_nulls(value), ensure_ascii=False, default=str)


def _without_nulls(value: Any) -> Any:
    """Return a section without keys that say nothing; a setting that is null stays one."""
    if isinstance(value, Mapping):
        return {str(key): _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
