"""What `dvc.lock` has recorded of a stage, compared with the files as they are now; and outs put back from DVC's cache.

Asking for changes locks nothing and writes nothing but DVC's memory of hashes, so it may be done at any time.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.common.errors import AttuneError
from stages.common.pipeline.dvc_files import check_deps, check_lock
from stages.common.pipeline.graph import read_lock

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

Kind = Literal[
    "runs always", "never run", "not made here yet", "in DVC's cache", "command", "params", "code", "data", "outs"
]

CODE = "stages"  # the folder of what is code among the dependencies
MOST = 60  # characters shown of a value
ABSENT = object()  # stands for a missing value of YAML: null is a value, too


@dataclass(frozen=True)
class Change:
    """One reason why a stage is out of date."""

    kind: Kind
    what: str = ""  # a path, or the dotted key of a param; empty for the stage as a whole
    how: str = ""  # for people: `deleted`, `3 → 5`

    def __str__(self) -> str:
        """`params: clean.length.min 3 → 5`."""
        details = " ".join(part for part in (self.what, self.how) if part)
        return f"{self.kind}: {details}" if details else self.kind


def changes(names: list[str], data: Any = None, root: Path = Path(), *, outs: bool = True) -> dict[str, list[Change]]:
    """Return why DVC would run each stage now, apart from what the stages before it will have done.

    Params are those in `params.yaml`, or else `data`. Without `outs`, only what the stages depend on counts, even if
    they are frozen. An AttuneError if DVC cannot read the project, or something in it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    check_deps(root)
    check_lock(root)
    try:
        with Repo(str(root)) as repo:
            own = (stage for stage in repo.index.stages if Path(stage.path_in_repo) == Path("dvc.yaml"))
            known = {stage.name: stage for stage in own}
            if unknown := [name for name in names if name not in known]:
                raise AttuneError(f"dvc.yaml: {unknown[0]} is no stage of its own for DVC", "no foreach, no matrix")
            return {name: list(_changes_of(known[name], data, outs=outs)) for name in names}
    except (DvcException, OSError) as error:
        raise AttuneError(f"DVC cannot read this project: {error}", "mend the file that this names") from None


def restore_outs(stages: Iterable[str] | None = None, root: Path = Path()) -> list[str]:
    """Put back what is missing of the outs that `dvc.lock` names, as far as DVC's cache has it; return their paths.

    DVC removes the outs of a stage before it runs it. A stage that fails restores its own; after one that was killed,
    `make` and the flows do it. Outs that are there stay as they are. An error is only a warning: the next run makes
    what is missing. Without names of stages, it is all of the lock.
    """
    try:
        missing = {
            (name, out["path"])
            for name, entry in read_lock(root).items()
            for out in entry.get("outs", [])
            if (stages is None or name in stages) and not (root / out["path"]).exists()
        }
        return _check_out(missing, root) if missing else []
    except Exception as error:  # of DVC, of the disk, of a lock with conflicts: whatever needs the outs reports it
        print(f"  warning: earlier outs were not put back: {error}", file=sys.stderr, flush=True)
        return []


def params_between(
    old: Mapping[str, Any], new: Mapping[str, Any], sections: Iterable[str] | None = None
) -> list[Change]:
    """Return which settings differ between two records of params, in these sections of theirs (None: all)."""
    names = dict.fromkeys([*old, *new]) if sections is None else sections
    old, new = ({name: params[name] for name in names if name in params} for params in (old, new))
    reasons = []
    for key, *values in differing(old, new):
        before, after = (text if text is None or len(text) <= MOST else f"{text[: MOST - 1]}…" for text in values)
        how = f"new: {after}" if before is None else f"{before} → {'left out' if after is None else after}"
        reasons.append(Change("params", key, how))
    return reasons


def differing(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, str | None, str | None]]:
    """Yield what differs between two values of YAML, down to single settings.

    Each is its dotted key, and both values as text: (`clean.length.min`, `3`, `5`); None: there is none.
    """
    dot = f"{key}." if key else ""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for inner in dict.fromkeys([*old, *new]):
            yield from differing(old.get(inner, ABSENT), new.get(inner, ABSENT), f"{dot}{inner}")
    elif _of_mappings(old) and _of_mappings(new):
        for number, (before, after) in enumerate(zip_longest(old, new, fillvalue=ABSENT)):
            yield from differing(before, after, f"{dot}{number}")
    elif old != new:
        yield key, _text(old), _text(new)


def _changes_of(stage: "PipelineStage", data: Any, *, outs: bool) -> list[Change]:
    from dvc.dependency.param import ParamsDependency

    if not any(file.hash_info for file in (*stage.deps, *stage.outs)):
        return [Change("never run")]
    restorable = [out for out in stage.outs if not out.exists and _in_cache(out)] if outs else []
    cached = [out for out in stage.outs if out.use_cache]
    if outs and cached and not any(out.exists for out in cached) and not all(out in restorable for out in cached):
        return [Change("not made here yet")]  # a fresh clone; what else differs is no news
    reasons = [Change("command", stage.cmd)] if stage.changed_stage() else []
    if stage.always_changed or stage.is_callback:
        reasons.append(Change("runs always"))
    for dep in () if stage.frozen and outs else stage.deps:
        if isinstance(dep, ParamsDependency):
            new = dep.read_params() if data is None else {key: data[key] for key in dep.params if key in data}
            reasons += params_between(dep.hash_info.value or {}, new, dep.params)
        elif not (outs and not dep.exists and _in_cache(dep)):  # else it is reported by the stage that makes it
            reasons += _status("code" if Path(dep.def_path).parts[0] == CODE else "data", dep)
    for out in stage.outs if outs else ():
        reasons += [] if out in restorable else _status("outs", out)
    return reasons or ([Change("in DVC's cache")] if restorable else [])


def _status(kind: Kind, file: Any) -> list[Change]:
    return [Change(kind, file.def_path, str(how).replace("modified", "changed")) for how in file.status().values()]


def _check_out(missing: Set[tuple[str, str]], root: Path) -> list[str]:
    """Check out outs, given by stage and path, that DVC's cache has; return their paths."""
    from dvc.repo import Repo

    restored = []
    with Repo(str(root)) as repo:
        outs = [out for stage in repo.index.stages for out in stage.outs]
        for out in sorted(outs, key=lambda out: not out.use_cache):
            if (getattr(out.stage, "name", ""), out.def_path) in missing and out.hash_info:
                if not out.use_cache:
                    repo.cache.local.cache_types = ["copy"]  # a file that Git keeps is never a link into the cache
                with _as_cached(out):
                    if not out.changed_cache():
                        out.checkout(allow_missing=True)
                        restored.append(str(out.def_path))
    return restored


@contextmanager
def _as_cached(out: Any) -> Iterator[None]:
    """Treat an out that Git keeps as if DVC cached it: DVC's run cache holds it as well."""
    use_cache, out.use_cache = out.use_cache, True  # of this object alone
    try:
        yield
    finally:
        out.use_cache = use_cache


def _in_cache(out: Any) -> bool:
    with _as_cached(out):
        return bool(out.hash_info) and not out.changed_cache()


def _of_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _text(value: Any) -> str | None:
    if value is ABSENT:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
