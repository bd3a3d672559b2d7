"""What became of each stage between two revisions, and why, out of what both `dvc.lock` say."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from flows.reviewing.changed.code_changes import FileChange
from flows.reviewing.findings import StageChange
from flows.reviewing.revision import Revision
from stages.common.graph import Node
from stages.common.recorded import CODE, Change, params_between
from stages.common.redact import redacted
from stages.common.shown import listed

MOST_FILES = 4  # of code that changed, by name
UNEXPLAINED = "nothing that it depends on differs, but what it made does: another kind of machine, or chance"


def stage_changes(
    base: Revision, head: Revision, files: Sequence[FileChange]
) -> tuple[tuple[StageChange, ...], list[str]]:
    """Hold what `dvc.lock` has recorded of each stage in two revisions against each other.

    Args:
        base: the older one.
        head: the newer one.
        files: that differ between the two commits.

    Returns:
        Stages in the head's order, then those that it does not have any more; and what could not be compared.
    """
    found, missing = [], []
    for name in (*head.graph, *(name for name in base.graph if name not in head.graph)):
        if name not in head.graph or name not in base.graph:
            found.append(StageChange(name, "new" if name in head.graph else "removed"))
        elif without := [revision.name for revision in (base, head) if name not in revision.lock]:
            missing.append(f"stage {name}: there is no record of it in dvc.lock of {' and of '.join(without)}")
        else:
            found.append(_compared(name, base, head, files))
    return tuple(found), missing


def _compared(name: str, base: Revision, head: Revision, files: Sequence[FileChange]) -> StageChange:
    outs = tuple(path for path, _, _ in _other_hashes(name, "outs", base, head))
    reasons = [redacted(str(reason)) for reason in _reasons(name, base, head, files)]
    if outs and not reasons:
        reasons = [UNEXPLAINED]
    stale = [
        f"recorded with other code, params or data than {revision.name} has: {redacted(revision.stale[name])}"
        for revision in (base, head)
        if revision.results == "recorded" and name in revision.stale
    ]
    return StageChange(name, "ran again" if reasons else "same", (*reasons, *stale), outs)


def _reasons(name: str, base: Revision, head: Revision, files: Sequence[FileChange]) -> Iterator[Change]:
    """Yield what differs among the things that a stage depends on, in the words of a plan."""
    was, now = (str(revision.lock[name].get("cmd", "")) for revision in (base, head))
    if was != now:
        yield Change("command", how=f"{was} → {now}")
    yield from params_between(_params(base.lock[name]), _params(head.lock[name]))
    for path, old, new in _other_hashes(name, "deps", base, head):
        code = PurePosixPath(path).parts[0] == CODE
        how = "is read now" if old is None else "is not read any more" if new is None else ""
        yield Change("code" if code else "data", path, how or (_files(path, files) if code else _maker(path, head)))


def _other_hashes(name: str, kind: Any, base: Revision, head: Revision) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield path and both hashes of each dependency or out whose bytes differ."""
    was, now = base.hashes(name, kind), head.hashes(name, kind)
    for path in dict.fromkeys([*now, *was]):
        if was.get(path) != now.get(path):
            yield path, was.get(path), now.get(path)


def _params(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that a stage ran with, whichever files they were read from."""
    return {key: value for section in (entry.get("params") or {}).values() for key, value in (section or {}).items()}


def _files(folder: str, files: Iterable[FileChange]) -> str:
    place = PurePosixPath(folder)
    paths = [PurePosixPath(path) for path, _, _ in files]
    named = sorted(str(path.relative_to(place)) for path in paths if place in path.parents)
    return f"({listed(named, MOST_FILES)})" if named else "changed"


def _maker(path: str, head: Revision) -> str:
    made_by = next((node.name for node in head.graph.values() if _makes(node, path)), "")
    return f"(of {made_by})" if made_by else "changed"


def _makes(node: Node, path: str) -> bool:
    place = PurePosixPath(path)
    return any(place == PurePosixPath(out) or PurePosixPath(out) in place.parents for out in node.outs)
